package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
	"golang.org/x/sync/errgroup"

	"tripod.dev/tripod/member-agent/redial"
	"tripod.dev/tripod/proto/agent/frames"
)

const maxAnswer = 1024

// Tunnel keeps one tunnel to every hub member.
type Tunnel struct {
	config  Config
	proxy   *proxy
	members chan []string // holds the newest

	mu       sync.Mutex
	open     map[string]bool // by address
	followed []string
}

// New checks the configuration. Nothing is dialled before Run.
func New(config Config) (*Tunnel, error) {
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	proxy, err := newProxy(config.RESTConfig, config.Logger)
	if err != nil {
		return nil, err
	}
	return &Tunnel{config: config, proxy: proxy, members: make(chan []string, 1), open: map[string]bool{}, followed: config.Members}, nil
}

// Follow makes these the members to keep tunnels to. It does not block; one call
// at a time.
func (t *Tunnel) Follow(members []string) {
	t.mu.Lock()
	t.followed = members
	t.mu.Unlock()
	select {
	case <-t.members:
	default:
	}
	t.members <- members
}

// Run dials for ever until ctx ends, and returns when every stream is closed.
func (t *Tunnel) Run(ctx context.Context) error {
	defer t.proxy.closeIdle()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		stops := map[string]context.CancelFunc{}
		for members := t.config.Members; ; {
			for address, stop := range stops {
				if !slices.Contains(members, address) {
					stop()
					delete(stops, address)
				}
			}
			for _, address := range members {
				if stops[address] != nil {
					continue
				}
				own, stop := context.WithCancel(ctx)
				stops[address] = stop
				group.Go(func() error {
					defer stop()
					if err := t.keep(own, address); ctx.Err() != nil {
						return err
					}
					return nil // the member is gone
				})
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case members = <-t.members:
			}
		}
	})
	return group.Wait()
}

func (t *Tunnel) keep(ctx context.Context, address string) error {
	pace := redial.New(redial.Config{Min: t.config.RedialMin, Max: t.config.RedialMax})
	for {
		outcome, err := t.once(ctx, address)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		pause := pace.After(outcome, t.Connected() > 0)
		t.config.Logger.Info("tunnel to hub member is not open; dialling again",
			"member", address, "error", err, "pause", pause.Round(time.Millisecond))
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// once holds one tunnel from dialling to its end.
func (t *Tunnel) once(ctx context.Context, address string) (redial.Outcome, error) {
	conn, outcome, err := t.dial(ctx, address)
	if err != nil {
		return outcome, err
	}
	session, err := yamux.Server(frames.Joined(conn), t.yamuxConfig())
	if err != nil {
		_ = conn.Close()
		return redial.Refused, fmt.Errorf("start the tunnel to hub member %q: %w", address, err)
	}
	t.config.Logger.Info("tunnel opened", "member", address)
	t.opened(address, true)
	defer t.opened(address, false)
	return redial.Lost, t.serve(ctx, session)
}

// opened notes whether the tunnel to address is open.
func (t *Tunnel) opened(address string, is bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if is {
		t.open[address] = true
		return
	}
	delete(t.open, address)
}

// Connected counts the members to whom a tunnel is open.
func (t *Tunnel) Connected() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open)
}

// Missing lists the members to whom no tunnel is open, HOST:PORT in order. It is safe
// for concurrent use.
func (t *Tunnel) Missing() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	missing := slices.Clone(t.followed)
	missing = slices.DeleteFunc(missing, func(address string) bool { return t.open[address] })
	slices.Sort(missing)
	return missing
}

// dial opens a connection that the member has consented to; without one the outcome
// says how far it got.
func (t *Tunnel) dial(ctx context.Context, address string) (net.Conn, redial.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, t.config.ConnectTimeout)
	defer cancel()
	raw, err := t.config.Dial(ctx, address)
	if err != nil {
		return nil, redial.Unreachable, fmt.Errorf("dial hub member %q: %w", address, err)
	}
	host, _, _ := net.SplitHostPort(address) // validated
	conn := tls.Client(frames.Under(raw), tunnelTLS(t.config.TLS, host))
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, redial.Refused, fmt.Errorf("dial hub member %q: %w", address, err)
	}
	if err := t.introduce(conn); err != nil {
		_ = raw.Close()
		return nil, redial.Refused, fmt.Errorf("open a tunnel to hub member %q: %w", address, err)
	}
	return conn, redial.Lost, nil
}

// introduce tells the replica's name and reads the member's consent.
func (t *Tunnel) introduce(conn net.Conn) error {
	if _, err := io.WriteString(conn, t.config.Replica+"\n"); err != nil {
		return err
	}
	// Byte by byte: what follows the answer belongs to yamux.
	var answer []byte
	one := make([]byte, 1)
	for {
		if _, err := io.ReadFull(conn, one); err != nil {
			return err
		}
		if one[0] == '\n' {
			break
		}
		if answer = append(answer, one[0]); len(answer) > maxAnswer {
			return errors.New("the member's answer is too long: is that port a hub's?")
		}
	}
	if text := string(answer); text != "OK" {
		return fmt.Errorf("refused: %s", strings.TrimPrefix(text, "NO "))
	}
	return nil
}

// serve answers the streams that the member opens, until the tunnel breaks.
func (t *Tunnel) serve(ctx context.Context, session *yamux.Session) error {
	server := &http.Server{
		Handler:           t.proxy,
		ReadHeaderTimeout: 30 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          errorLog(t.config.Logger),
	}
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	err := server.Serve(session)
	_ = server.Close()
	_ = session.Close()
	return err
}

func (t *Tunnel) yamuxConfig() *yamux.Config {
	config := yamux.DefaultConfig()
	config.AcceptBacklog = 1024
	config.KeepAliveInterval = t.config.KeepAlive
	config.ConnectionWriteTimeout = 3 * t.config.KeepAlive
	config.MaxStreamWindowSize = streamWindow
	// A stream that the agent has ended is the hub's until its client has read it all,
	// however long that takes: it would lose what it has not read (`kubectl exec … | less`).
	// The hub ends it when the client leaves.
	config.StreamCloseTimeout = 0
	config.LogOutput = nil
	config.Logger = yamuxLog{t.config.Logger}
	return config
}

// yamuxLog makes yamux's complaints about a connection part of our log.
type yamuxLog struct{ log *slog.Logger }

func (l yamuxLog) Print(v ...any)                 { l.line(fmt.Sprint(v...)) }
func (l yamuxLog) Printf(format string, v ...any) { l.line(fmt.Sprintf(format, v...)) }
func (l yamuxLog) Println(v ...any)               { l.line(fmt.Sprintln(v...)) }

func (l yamuxLog) line(text string) { l.log.Debug("tunnel", "error", strings.TrimSpace(text)) }
