package session

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"

	"tripod.dev/tripod/proto/agent/frames"
)

const handshakeTimeout = 5 * time.Second

// splitter accepts TLS connections and hands them out by ALPN protocol. A
// handshake runs on its own goroutine, so a silent client holds up nobody.
type splitter struct {
	listener net.Listener
	tls      *tls.Config
	routes   map[string]func(*tls.Conn)
	// needsCertificate lists the protocols that only verified clients speak.
	needsCertificate map[string]bool
	userTimeout      time.Duration
	turns            *turns
	sentAway         func() // called for each connection that waited in vain for a turn
	log              *slog.Logger
}

func newSplitter(listener net.Listener, base *tls.Config, roots func() *x509.CertPool, userTimeout time.Duration, log *slog.Logger) *splitter {
	config := base.Clone()
	// Small records at the beginning are for browsers; here they are more work.
	config.DynamicRecordSizingDisabled = true
	config.NextProtos = nil
	if roots != nil {
		// Connections keep their configuration: one for all that came while these were the CAs.
		var shared atomic.Pointer[tls.Config]
		config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			trusted := roots()
			if last := shared.Load(); last != nil && last.ClientCAs == trusted {
				return last, nil
			}
			now := config.Clone() // with the protocols that were routed meanwhile
			now.ClientCAs = trusted
			shared.Store(now)
			return now, nil
		}
	}
	return &splitter{
		listener: listener, tls: config, userTimeout: userTimeout, turns: newTurns(runtime.GOMAXPROCS(0)), sentAway: func() {}, log: log,
		routes: map[string]func(*tls.Conn){}, needsCertificate: map[string]bool{},
	}
}

// route must be called before run.
func (s *splitter) route(protocol string, needsCertificate bool, serve func(*tls.Conn)) {
	s.tls.NextProtos = append(s.tls.NextProtos, protocol)
	s.routes[protocol] = serve
	s.needsCertificate[protocol] = needsCertificate
}

// run accepts until ctx ends and returns when every handler has returned.
// Handlers learn of the end by their own means.
func (s *splitter) run(ctx context.Context) error {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return ctx.Err()
			}
			s.log.Warn("session listener cannot accept", "error", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(50 * time.Millisecond): // out of file descriptors, usually
			}
			continue
		}
		handlers.Go(func() {
			// A handshake leaves a stack four times as large as what comes after needs.
			if serve := s.shake(ctx, conn); serve != nil {
				handlers.Go(serve)
			}
		})
	}
}

// shake makes the handshake and returns what serves the connection, nil if it was
// refused.
func (s *splitter) shake(ctx context.Context, raw net.Conn) (serve func()) {
	setUserTimeout(raw, s.userTimeout)
	handshake, cancel := context.WithTimeout(ctx, handshakeTimeout)
	waiting := &inTurn{Conn: raw, turns: s.turns, ctx: handshake}
	conn := tls.Server(frames.Under(waiting), s.tls)
	err := conn.HandshakeContext(handshake)
	waiting.finish()
	cancel()
	if errors.Is(err, errBusy) {
		s.sentAway()
	}
	if err != nil {
		s.log.Info("session client failed the TLS handshake", "remote", raw.RemoteAddr().String(), "error", err)
		_ = raw.Close()
		return nil
	}
	state := conn.ConnectionState()
	protocol := state.NegotiatedProtocol
	route, ok := s.routes[protocol]
	if !ok || (s.needsCertificate[protocol] && len(state.VerifiedChains) == 0) {
		s.log.Info("session client refused: no known protocol, or no certificate of this hub's CA",
			"remote", raw.RemoteAddr().String(), "protocol", protocol)
		_ = conn.Close()
		return nil
	}
	return func() { route(conn) }
}

// setUserTimeout makes the kernel give up a connection whose data stay
// unacknowledged, so that a peer without power is noticed within a lease.
func setUserTimeout(conn net.Conn, timeout time.Duration) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
	})
}

// handover is a net.Listener that returns connections which were accepted, and
// whose TLS handshake was made, elsewhere.
type handover struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

func newHandover(addr net.Addr) *handover {
	return &handover{conns: make(chan net.Conn), done: make(chan struct{}), addr: addr}
}

func (h *handover) give(conn *tls.Conn) {
	select {
	case h.conns <- conn:
	case <-h.done:
		_ = conn.Close()
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr { return h.addr }

// finishedTLS are the credentials of connections that come through a handover.
type finishedTLS struct {
	credentials.TransportCredentials
}

func newFinishedTLS() credentials.TransportCredentials {
	return finishedTLS{credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13})}
}

// ServerHandshake implements credentials.TransportCredentials.
func (finishedTLS) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	finished, ok := conn.(*tls.Conn)
	if !ok {
		return nil, nil, errors.New("session: the connection was not handed over by the TLS splitter")
	}
	return conn, credentials.TLSInfo{
		State:          finished.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

// Clone implements credentials.TransportCredentials.
func (f finishedTLS) Clone() credentials.TransportCredentials {
	return finishedTLS{f.TransportCredentials.Clone()}
}
