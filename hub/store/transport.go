package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// MembersOrganization is the certificate organization of hub members.
const MembersOrganization = "tripod:members"

// memberPrefix begins the common name of a member's certificate.
const memberPrefix = "tripod:member:"

const handshakeTimeout = 5 * time.Second

// streamLayer carries Raft over mutual TLS. Handshakes run beside the accept
// loop, so that a silent or foreign peer holds up nobody.
type streamLayer struct {
	config    *tls.Config
	roots     func() *x509.CertPool
	dial      func(ctx context.Context, address string) (net.Conn, error)
	listener  net.Listener
	advertise string
	book      *book
	intro     *introduction
	log       *slog.Logger
	refused   *quiet

	ready  chan net.Conn
	closed chan struct{}
	once   sync.Once
	wg     sync.WaitGroup

	// accepted connections that Raft has not closed. NetworkTransport leaves
	// closing them to the peer, who may never do it. After down none is added.
	mu       sync.Mutex
	down     bool
	accepted map[*acceptedConn]struct{}
}

type acceptedConn struct {
	net.Conn
	layer *streamLayer
	once  sync.Once
}

// Close implements net.Conn; Raft calls it when it is done with the connection.
func (c *acceptedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.layer.mu.Lock()
		delete(c.layer.accepted, c)
		c.layer.mu.Unlock()
		c.layer.wg.Done()
	})
	return err
}

var _ raft.StreamLayer = (*streamLayer)(nil)

type memberAddr string

func (memberAddr) Network() string  { return "tcp" }
func (a memberAddr) String() string { return string(a) }

func newStreamLayer(cfg Config, book *book, intro *introduction) (*streamLayer, error) {
	listener, err := net.Listen("tcp", cfg.RaftListen)
	if err != nil {
		return nil, fmt.Errorf("store: listen for Raft: %w", err)
	}
	self, _ := cfg.member(cfg.Name)
	l := &streamLayer{
		config: cfg.TLS, roots: cfg.roots(), dial: cfg.Dial, listener: listener, advertise: self.RaftAddress,
		book: book, intro: intro, log: cfg.Logger, refused: newQuiet(10 * time.Second),
		ready: make(chan net.Conn), closed: make(chan struct{}), accepted: map[*acceptedConn]struct{}{},
	}
	l.wg.Go(l.acceptLoop)
	return l, nil
}

func (l *streamLayer) acceptLoop() {
	server := l.config.Clone()
	server.ClientAuth = tls.RequireAndVerifyClientCert
	server.VerifyConnection = verifyMember
	server.MinVersion = tls.VersionTLS13
	server.NextProtos = []string{protocolLevels}
	server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := server.Clone()
		now.ClientCAs = l.roots()
		return now, nil
	}
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.wg.Go(func() { l.handshake(tls.Server(conn, server)) })
	}
}

func (l *streamLayer) handshake(conn *tls.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		if isCertificateError(err) && l.refused.say(host) {
			l.log.Error("Raft connection refused: the peer has no certificate of this hub's members; if it should be one, give it a certificate from this hub's CA",
				"member", conn.RemoteAddr().String(), "error", err)
		}
		_ = conn.Close()
		return
	}
	peer := strings.TrimPrefix(conn.ConnectionState().PeerCertificates[0].Subject.CommonName, memberPrefix)
	if err := l.introduce(conn, peer, time.Now().Add(handshakeTimeout)); err != nil {
		_ = conn.Close()
		return
	}
	c := &acceptedConn{Conn: conn, layer: l}
	if !l.track(c) {
		_ = conn.Close()
		return
	}
	select {
	case l.ready <- c:
	case <-l.closed:
		_ = c.Close()
	}
}

// introduce lets Raft speak only with members of the same history.
func (l *streamLayer) introduce(conn *tls.Conn, peer string, deadline time.Time) error {
	if err := l.intro.leftBehind(); err != nil {
		return err
	}
	extended := conn.ConnectionState().NegotiatedProtocol == protocolLevels
	err := l.intro.greet(conn, peer, extended, deadline)
	l.intro.note(peer)
	var differ *lineageError
	if errors.As(err, &differ) && l.refused.say("lineage of "+peer) {
		l.log.Error("Raft connection refused: the histories differ", "peer", peer, "error", err)
	}
	if errors.Is(err, ErrTooOld) && l.refused.say("level of "+peer) {
		l.log.Error("Raft connection refused: a member is too old", "peer", peer, "error", err)
	}
	return err
}

func (l *streamLayer) track(c *acceptedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return false
	}
	l.accepted[c] = struct{}{}
	l.wg.Add(1)
	return true
}

// Accept implements net.Listener.
func (l *streamLayer) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It returns when every accepted connection has
// been closed by its user.
func (l *streamLayer) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		err = l.listener.Close()
		l.mu.Lock()
		l.down = true
		for c := range l.accepted {
			_ = c.Conn.Close()
		}
		l.mu.Unlock()
		l.wg.Wait()
	})
	return err
}

// Addr implements net.Listener with the address that others use.
func (l *streamLayer) Addr() net.Addr { return memberAddr(l.advertise) }

// Dial implements raft.StreamLayer.
func (l *streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), max(timeout, time.Second))
	defer cancel()
	name := l.book.nameAt(string(address))
	conn, err := l.dial(ctx, string(address))
	if err != nil {
		l.intro.note(name)
		return nil, fmt.Errorf("dial member %q: %w", name, err)
	}
	config := clientTLS(l.config, l.roots, name)
	config.NextProtos = []string{protocolLevels}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		l.intro.note(name)
		if !isCertificateError(err) {
			return nil, fmt.Errorf("greet member %q at %s: %w", name, address, err)
		}
		err = fmt.Errorf("member %q at %s does not prove to be one of this hub: %w: give it a certificate from this hub's CA, or mend the address", name, address, err)
		if l.refused.say(name) {
			l.log.Error("Raft peer refused", "member", name, "error", err)
		}
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := l.introduce(secured, name, deadline); err != nil {
		_ = secured.Close()
		return nil, err
	}
	return secured, nil
}

func isCertificateError(err error) bool {
	var verification *tls.CertificateVerificationError
	var name *memberNameError
	// What the peer says of our certificate, or that it has none, comes as text.
	return errors.As(err, &verification) || errors.As(err, &name) || strings.Contains(err.Error(), "certificate")
}

// clientTLS dials the member called name, or any member if name is empty. The
// peer is recognised by the member name in its certificate: addresses change
// and may be shared behind a translation, names do not.
func clientTLS(base *tls.Config, roots func() *x509.CertPool, name string) *tls.Config {
	c := base.Clone()
	now := c.Time
	if now == nil {
		now = time.Now
	}
	c.MinVersion = tls.VersionTLS13
	// Only the host name check is replaced; the chain is verified below.
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return &memberNameError{reason: "no certificate"}
		}
		intermediates := x509.NewCertPool()
		for _, cert := range state.PeerCertificates[1:] {
			intermediates.AddCert(cert)
		}
		if _, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots(), Intermediates: intermediates, CurrentTime: now()}); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
		}
		if err := verifyMember(state); err != nil {
			return err
		}
		if cn := state.PeerCertificates[0].Subject.CommonName; name != "" && cn != memberPrefix+name {
			return &memberNameError{reason: fmt.Sprintf("the certificate is for %q, want %q", cn, memberPrefix+name)}
		}
		return nil
	}
	return c
}

type memberNameError struct{ reason string }

func (e *memberNameError) Error() string { return "not a member's certificate: " + e.reason }

// verifyMember admits certificates of the members' organization. The chain has
// been verified.
func verifyMember(state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return &memberNameError{reason: "no certificate"}
	}
	subject := state.PeerCertificates[0].Subject
	if !slices.Contains(subject.Organization, MembersOrganization) {
		return &memberNameError{reason: fmt.Sprintf("subject %q is not of organization %q", subject, MembersOrganization)}
	}
	return nil
}

// quiet lets a message about one subject through once per interval.
type quiet struct {
	interval time.Duration
	mu       sync.Mutex
	last     map[string]time.Time
}

func newQuiet(interval time.Duration) *quiet {
	return &quiet{interval: interval, last: map[string]time.Time{}}
}

func (q *quiet) say(subject string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if last, ok := q.last[subject]; ok && time.Since(last) < q.interval {
		return false
	}
	q.last[subject] = time.Now()
	return true
}
