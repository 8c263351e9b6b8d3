package session

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/yamux"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/proto/agent/frames"
)

// ErrNoTunnel is what Dial wraps when no agent of the cluster is connected to
// this member: wait for it, or ask another member.
var ErrNoTunnel = errors.New("no tunnel")

// StreamWindow is how much of one stream may be on its way unread. A stalled
// stream holds this much memory and stops nobody else.
const StreamWindow = 16 << 20

const (
	maxPreface     = 300
	prefaceTimeout = 5 * time.Second
)

// serveTunnel takes an agent's tunnel connection. The agent sends its replica's
// name and a newline; the member answers "OK\n" or "NO reason\n", and then opens
// yamux streams.
func (s *Server) serveTunnel(ctx context.Context, conn *tls.Conn) {
	defer func() { _ = conn.Close() }()
	id, err := s.agentOf(s.identifyState(conn.ConnectionState()))
	if err != nil {
		s.metrics.refused.Inc()
		_, _ = fmt.Fprintf(conn, "NO %s\n", status.Convert(err).Message())
		return
	}
	cluster := id.Cluster
	replica, err := readPreface(conn)
	if err != nil {
		s.config.Logger.Info("tunnel refused", "cluster", cluster, "error", err)
		return
	}
	tunnel, err := yamux.Client(frames.Joined(conn), s.tunnelConfig())
	if err != nil {
		s.config.Logger.Error("tunnel cannot start", "cluster", cluster, "error", err)
		return
	}
	if old := s.registry.addTunnel(cluster, replica, tunnel); old != nil {
		_ = old.Close()
	}
	defer s.registry.removeTunnel(cluster, replica, tunnel)
	defer func() { _ = tunnel.Close() }()
	s.config.Logger.Info("tunnel opened", "cluster", cluster, "replica", replica)
	ticker := time.NewTicker(s.config.Lease.Tick)
	defer ticker.Stop()
	for err == nil {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-tunnel.CloseChan():
			err = net.ErrClosed
		case <-ticker.C:
			err = s.admitted(id, cluster)
		}
	}
	s.config.Logger.Info("tunnel closed", "cluster", cluster, "replica", replica, "error", err)
}

func readPreface(conn net.Conn) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(prefaceTimeout)); err != nil {
		return "", err
	}
	// The agent sends nothing more before it has the answer, so the buffered
	// reader takes nothing that belongs to yamux.
	line, err := bufio.NewReader(io.LimitReader(conn, maxPreface)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("read the replica's name: %w", err)
	}
	if _, err := io.WriteString(conn, "OK\n"); err != nil {
		return "", fmt.Errorf("answer the replica: %w", err)
	}
	return strings.TrimSuffix(line, "\n"), conn.SetDeadline(time.Time{})
}

func (s *Server) tunnelConfig() *yamux.Config {
	config := yamux.DefaultConfig()
	// Here it only bounds the streams that the agent has not accepted yet, and costs
	// memory for each agent.
	config.AcceptBacklog = 256
	config.KeepAliveInterval = 2 * s.config.Lease.Tick
	config.ConnectionWriteTimeout = s.config.Lease.TTL
	config.MaxStreamWindowSize = StreamWindow
	config.LogOutput = nil
	config.Logger = yamuxLog{s.config.Logger}
	return config
}

// Dial opens a stream to an agent of cluster, the active one if it is connected.
// The stream speaks HTTP/1.1 to the agent's proxy of its API server.
func (s *Server) Dial(ctx context.Context, cluster string) (net.Conn, error) {
	var errs []error
	for _, tunnel := range s.registry.tunnelsOf(cluster) {
		conn, err := openStream(ctx, tunnel)
		if err == nil {
			s.metrics.streams.WithLabelValues(cluster).Inc()
			return conn, nil
		}
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("open a stream to cluster %q: %w", cluster, errors.Join(errs...))
	}
	return nil, fmt.Errorf("%w: no agent of cluster %q is connected to member %q: see its conditions with `kubectl get clusters %s -o yaml`",
		ErrNoTunnel, cluster, s.config.Name, cluster)
}

// openStream gives yamux's Open a context: it waits when the agent has not yet
// accepted very many streams.
func openStream(ctx context.Context, tunnel *yamux.Session) (net.Conn, error) {
	type opened struct {
		conn net.Conn
		err  error
	}
	result := make(chan opened, 1)
	go func() {
		conn, err := tunnel.Open()
		select {
		case <-ctx.Done():
			if err == nil {
				_ = conn.Close()
			}
			result <- opened{err: ctx.Err()}
		default:
			result <- opened{conn, err}
		}
	}()
	select {
	case r := <-result:
		return r.conn, r.err
	case <-ctx.Done():
		go func() { // ends with the tunnel at the latest
			if r := <-result; r.err == nil {
				_ = r.conn.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// yamuxLog makes yamux's complaints about a connection part of our log.
type yamuxLog struct{ log *slog.Logger }

func (l yamuxLog) Print(v ...any)                 { l.line(fmt.Sprint(v...)) }
func (l yamuxLog) Printf(format string, v ...any) { l.line(fmt.Sprintf(format, v...)) }
func (l yamuxLog) Println(v ...any)               { l.line(fmt.Sprintln(v...)) }

func (l yamuxLog) line(text string) {
	l.log.Debug("tunnel", "error", strings.TrimSpace(text))
}
