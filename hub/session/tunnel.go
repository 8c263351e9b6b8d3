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

// StreamWindow is how much of one stream may be on its way unread: enough for 1 Gbit/s
// and a round trip of 134 ms. A stalled stream holds this much memory and stops nobody else.
const StreamWindow = 16 << 20

const (
	maxPreface     = 300
	prefaceTimeout = 5 * time.Second
)

// agentTunnel is the tunnel of one replica.
type agentTunnel struct {
	*yamux.Session
	id      Identity
	replica string
}

// serveTunnel takes an agent's tunnel connection and keeps it until it ends, or ctx.
func (s *Server) serveTunnel(ctx context.Context, conn *tls.Conn) {
	defer func() { _ = conn.Close() }()
	tunnel := s.takeTunnel(conn)
	if tunnel == nil {
		return
	}
	defer s.registry.removeTunnel(tunnel.id.Cluster, tunnel.replica, tunnel.Session)
	err := s.keepTunnel(ctx, tunnel)
	s.config.Logger.Info("tunnel closed", "cluster", tunnel.id.Cluster, "replica", tunnel.replica, "error", err)
}

// takeTunnel makes a tunnel of conn: the agent sends its replica's name and a
// newline; the member answers "OK\n" or "NO reason\n", and then opens yamux streams.
// It is nil if the agent is refused. The stack that all of this needs is not kept for
// as long as the tunnel is.
func (s *Server) takeTunnel(conn *tls.Conn) *agentTunnel {
	id, err := s.agentOf(s.identifyState(conn.ConnectionState()))
	if err != nil {
		s.metrics.refused.Inc()
		_, _ = fmt.Fprintf(conn, "NO %s\n", status.Convert(err).Message())
		return nil
	}
	cluster := id.Cluster
	replica, err := readPreface(conn)
	if err != nil {
		s.config.Logger.Info("tunnel refused", "cluster", cluster, "error", err)
		return nil
	}
	session, err := yamux.Client(frames.Joined(conn), s.tunnelConfig())
	if err != nil {
		s.config.Logger.Error("tunnel cannot start", "cluster", cluster, "error", err)
		return nil
	}
	if old := s.registry.addTunnel(cluster, replica, session); old != nil {
		_ = old.Close()
	}
	s.config.Logger.Info("tunnel opened", "cluster", cluster, "replica", replica)
	return &agentTunnel{session, id, replica}
}

// keepTunnel asks at every tick whether the agent is still believed, at every second
// one whether it is there, and says why the tunnel has ended.
func (s *Server) keepTunnel(ctx context.Context, tunnel *agentTunnel) error {
	var answered chan error // nil while nothing is asked
	defer func() {
		_ = tunnel.Close()
		if answered != nil {
			<-answered //nolint:errcheck // the tunnel has ended
		}
	}()
	// Only members open streams. What an agent opened would wait here with its window,
	// for somebody to accept it.
	if err := tunnel.GoAway(); err != nil {
		return fmt.Errorf("refuse streams that the agent opens: %w", err)
	}
	ticker := time.NewTicker(s.config.Lease.Tick)
	defer ticker.Stop()
	for ticks := 1; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tunnel.CloseChan():
			return net.ErrClosed
		case <-ticker.C:
			if err := s.admitted(tunnel.id, tunnel.id.Cluster); err != nil {
				return err
			}
			if ticks++; ticks%2 == 0 && answered == nil {
				answer := make(chan error, 1)
				answered = answer
				go func() { answer <- answers(tunnel.Session) }()
			}
		case err := <-answered:
			answered = nil
			if err != nil {
				return err
			}
		}
	}
}

// answers returns when the other end has answered; the tunnel's configuration says how
// long that may take.
func answers(tunnel *yamux.Session) error {
	if _, err := tunnel.Ping(); err != nil {
		return fmt.Errorf("ask whether the agent is there: %w", err)
	}
	return nil
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
	config.AcceptBacklog = 128
	config.EnableKeepAlive = false // keepTunnel asks, without a goroutine that waits to
	config.ConnectionWriteTimeout = s.config.Lease.TTL
	config.MaxStreamWindowSize = StreamWindow
	config.StreamCloseTimeout = s.config.StreamLinger
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
