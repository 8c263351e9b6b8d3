package etcdapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/hub/store"
)

// AdminsOrganization is the certificate organization of the hub's
// administrators, who may use the API for backups and repair.
const AdminsOrganization = "tripod:admins"

// A client's connection has so many calls and watches at most; a member's API server
// has some hundreds. It must have shaken hands in time.
const (
	maxStreams       = 1 << 14
	handshakeTimeout = 10 * time.Second
)

const memberService = "/tripod.raftlog.v1.MemberService/"

// Config describes the listeners of the API.
type Config struct {
	// Listen holds addresses: "host:port" (mutual TLS) or "unix:///path" (no TLS:
	// the socket is readable by this process's user alone).
	Listen []string
	// TLS is this member's certificate with the hub's CA in ClientCAs.
	TLS *tls.Config
	// Roots are the CAs that are trusted now, asked at each handshake; nil takes those
	// of TLS for good.
	Roots func() *x509.CertPool
	// ProgressInterval is how often an idle watch that asked for it is told the
	// revision; default 5 seconds, as Kubernetes advises for its etcd.
	ProgressInterval time.Duration
	// MaxRequestBytes bounds one request; default 1.5 MiB, as etcd's.
	MaxRequestBytes int
	// MaxTxnOps bounds the operations of one transaction; default 128 as etcd's.
	MaxTxnOps int
	// LeaderLoss is how long a stream that requires a leader lives without one.
	LeaderLoss time.Duration
	// Fail makes steps fail in tests; nil in production.
	Fail   store.Failpoints
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.ProgressInterval == 0 {
		c.ProgressInterval = 5 * time.Second
	}
	if c.MaxRequestBytes == 0 {
		c.MaxRequestBytes = 1536 * 1024
	}
	if c.MaxTxnOps == 0 {
		c.MaxTxnOps = 128
	}
	if c.LeaderLoss == 0 {
		c.LeaderLoss = 3 * store.LAN().Election
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Server is the API of one member.
type Server struct {
	cfg       Config
	store     *store.Store
	listeners []net.Listener
	servers   []*grpc.Server
	leaders   *leaderStreams
}

// New listens on every address. The caller must call Run, which owns closing.
func New(s *store.Store, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if len(cfg.Listen) == 0 {
		return nil, fmt.Errorf("etcdapi: nothing to listen on: give at least one address")
	}
	a := &Server{cfg: cfg, store: s, leaders: newLeaderStreams(s, cfg.LeaderLoss)}
	for _, address := range cfg.Listen {
		if err := a.listen(address); err != nil {
			a.closeListeners()
			return nil, err
		}
	}
	return a, nil
}

func (a *Server) listen(address string) error {
	path, isUnix := strings.CutPrefix(address, "unix://")
	network := "tcp"
	if isUnix {
		network, address = "unix", path
		// A socket left by a killed process refuses the next listener.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("etcdapi: remove old socket: %w", err)
		}
	} else if a.cfg.TLS == nil {
		return fmt.Errorf("etcdapi: no TLS configuration for %s: only a unix socket may go without", address)
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return fmt.Errorf("etcdapi: listen: %w", err)
	}
	a.listeners = append(a.listeners, listener)
	if isUnix {
		if err := os.Chmod(path, 0o600); err != nil {
			return fmt.Errorf("etcdapi: protect socket: %w", err)
		}
	}
	a.servers = append(a.servers, a.newServer(!isUnix))
	return nil
}

// Addresses returns what is listened on, in the order of Config.Listen.
func (a *Server) Addresses() []net.Addr {
	out := make([]net.Addr, len(a.listeners))
	for i, l := range a.listeners {
		out[i] = l.Addr()
	}
	return out
}

func (a *Server) newServer(secure bool) *grpc.Server {
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(a.cfg.MaxRequestBytes + 512*1024),
		grpc.MaxSendMsgSize(math.MaxInt32),
		// Who has any certificate of the hub's CA comes so far: work that is begun and
		// cancelled at once is bounded (CVE-2023-44487), and so is a silent handshake.
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.StaticStreamWindowSize(store.StreamWindow),
		grpc.StaticConnWindowSize(store.ConnectionWindow),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// The store may be closed when Run has returned.
		grpc.WaitForHandlers(true),
		grpc.ChainUnaryInterceptor(a.unary),
		grpc.ChainStreamInterceptor(a.stream),
	}
	if secure {
		c := a.cfg.TLS.Clone()
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.MinVersion = tls.VersionTLS12
		if a.cfg.Roots != nil {
			// credentials.NewTLS changes its own copy only: what it asks for is set here.
			c.NextProtos = []string{"h2"}
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
				now := c.Clone()
				now.ClientCAs = a.cfg.Roots()
				return now, nil
			}
		}
		opts = append(opts, grpc.Creds(credentials.NewTLS(c)))
	}
	g := grpc.NewServer(opts...)
	h := header{store: a.store}
	pb.RegisterKVServer(g, &kvServer{store: a.store, header: h, maxTxnOps: a.cfg.MaxTxnOps, maxBytes: a.cfg.MaxRequestBytes})
	pb.RegisterWatchServer(g, &watchServer{store: a.store, header: h, cfg: a.cfg})
	pb.RegisterLeaseServer(g, &leaseServer{store: a.store, header: h})
	pb.RegisterMaintenanceServer(g, &maintenanceServer{store: a.store, header: h, log: a.cfg.Logger})
	pb.RegisterClusterServer(g, &clusterServer{store: a.store, header: h})
	a.store.RegisterMemberService(g)
	healthpb.RegisterHealthServer(g, health.NewServer())
	return g
}

// Run serves until ctx is done, then ends every call and returns.
func (a *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, len(a.servers))
	for i, server := range a.servers {
		wg.Go(func() {
			errs[i] = server.Serve(a.listeners[i])
			cancel()
		})
	}
	wg.Go(func() { a.leaders.run(ctx) })
	<-ctx.Done()
	for _, server := range a.servers {
		server.Stop()
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (a *Server) closeListeners() {
	for _, l := range a.listeners {
		_ = l.Close()
	}
}

func (a *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := authorize(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	if requiresLeader(ctx) && a.store.Membership().LeaderID() == 0 {
		return nil, store.Status(store.ErrNoLeader)
	}
	if err := a.awaitAudit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	if err := a.store.Enter(); err != nil {
		return nil, store.Status(err)
	}
	defer a.store.Leave()
	return handler(ctx, req)
}

// awaitAudit keeps those who want the member's data waiting while it compares them
// with the other members', which takes a moment after a start.
func (a *Server) awaitAudit(ctx context.Context, method string) error {
	if !strings.HasPrefix(method, "/etcdserverpb.KV/") && !strings.HasPrefix(method, "/etcdserverpb.Watch/") {
		return nil
	}
	return store.Status(a.store.AwaitAudit(ctx))
}

func (a *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := authorize(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	if err := a.awaitAudit(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	if !requiresLeader(ss.Context()) {
		return handler(srv, ss)
	}
	return a.leaders.serve(srv, ss, handler)
}

// authorize admits members to everything and administrators to the etcd API.
// Agents and guards have certificates of the same CA, and no business here. A
// unix socket is protected by its file mode.
func authorize(ctx context.Context, method string) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		if strings.HasPrefix(method, memberService) {
			return status.Error(codes.PermissionDenied, "calls among members need a member's certificate")
		}
		return nil
	}
	var subject *x509.Certificate
	if certs := info.State.PeerCertificates; len(certs) > 0 {
		subject = certs[0]
	} else {
		return status.Error(codes.Unauthenticated, "no client certificate")
	}
	organizations := subject.Subject.Organization
	switch {
	case slices.Contains(organizations, store.MembersOrganization):
		return nil
	case slices.Contains(organizations, AdminsOrganization) && !strings.HasPrefix(method, memberService):
		return nil
	}
	return status.Errorf(codes.PermissionDenied, "certificate %q may not use the store: use one of organization %s or %s",
		subject.Subject.CommonName, store.MembersOrganization, AdminsOrganization)
}

// header fills in what etcd's response headers say about the member.
type header struct{ store *store.Store }

func (h header) fill(hdr *pb.ResponseHeader) *pb.ResponseHeader {
	m := h.store.Membership()
	hdr.ClusterId, hdr.MemberId, hdr.RaftTerm = m.ClusterID(), m.SelfID(), m.Term()
	if hdr.Revision == 0 {
		hdr.Revision = h.store.Revision()
	}
	return hdr
}

func (h header) new(revision int64) *pb.ResponseHeader {
	return h.fill(&pb.ResponseHeader{Revision: revision})
}
