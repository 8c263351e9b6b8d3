package session

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// maxMessageBytes bounds one message of a session: a chunk of a view snapshot
// or of desired state.
const maxMessageBytes = 16 << 20

// What one side has sent and the other has not read yet, in bytes: of a stream, and of
// all streams of a connection.
const (
	streamWindow     = 4 << 20
	connectionWindow = 8 << 20
)

// maxStreams bounds the calls under way on one connection, so that calls which are
// begun and cancelled at once do not pile up (CVE-2023-44487).
const maxStreams = 1 << 13

// Server is the session server of one hub member. Its methods are safe for
// concurrent use.
type Server struct {
	agentv1.UnimplementedSessionsServer

	config   Config
	registry *registry
	pending  *pending
	uplink   *uplink
	peers    *peers
	metrics  *metrics
	// talkers are the goroutines that read and write streams; they end with them.
	talkers sync.WaitGroup
}

// New checks the configuration. Nothing is served before Run.
func New(config Config) (*Server, error) {
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	m := newMetrics()
	if config.Registerer != nil {
		if err := m.register(config.Registerer); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	s := &Server{config: config, registry: newRegistry(config.View, m), pending: newPending(), metrics: m}
	s.peers = newPeers(config)
	s.uplink = newUplink(config, s.peers, m)
	return s, nil
}

// Address is where the server listens.
func (s *Server) Address() net.Addr { return s.config.Listener.Addr() }

// Run serves until ctx ends, and returns when every connection is closed and
// every goroutine has ended.
func (s *Server) Run(ctx context.Context) error {
	defer s.talkers.Wait()
	defer s.peers.close()
	// Handlers live by the group's context: one part that fails ends them all.
	group, ctx := errgroup.WithContext(ctx)
	conns := newHandover(s.config.Listener.Addr())
	server := s.grpcServer()
	split := newSplitter(s.config.Listener, s.config.TLS, s.config.Roots, s.config.Lease.TTL, s.config.Logger)
	split.sentAway = s.metrics.sentAway.Inc
	split.route(ProtocolGRPC, !s.config.WithoutCertificate, conns.give)
	split.route(ProtocolTunnel, true, func(conn *tls.Conn) { s.serveTunnel(ctx, conn) })
	if s.config.Join != nil {
		split.route(ProtocolJoin, false, func(conn *tls.Conn) {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			s.config.Join(conn)
		})
	}
	group.Go(func() error { return split.run(ctx) })
	group.Go(func() error { return server.Serve(conns) })
	group.Go(func() error { return s.uplink.run(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		server.Stop()
		return ctx.Err()
	})
	return group.Wait()
}

func (s *Server) grpcServer() *grpc.Server {
	tick := s.config.Lease.Tick
	options := append([]grpc.ServerOption{
		grpc.Creds(newFinishedTLS()),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		// Members relay a heartbeat for each cluster, an agent has one session.
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		// A thousand idle agents need no buffers: TLS has one to read from, and the other is
		// taken only to write.
		grpc.ReadBufferSize(0),
		grpc.SharedWriteBuffer(true),
		grpc.WaitForHandlers(true),
		// Windows of fixed size: otherwise gRPC sends a ping for each heartbeat, to find out how
		// far away the agent is.
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		// A dead agent is noticed by its missing heartbeats; this is for
		// clients of the other services.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * tick, Timeout: 2 * tick}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: tick, PermitWithoutStream: true}),
	}, s.config.ServerOptions...)
	server := grpc.NewServer(options...)
	agentv1.RegisterSessionsServer(server, s)
	hubv1.RegisterPeerServer(server, peerService{server: s})
	agentv1.RegisterGuardsServer(server, guardService{server: s})
	for _, register := range s.config.Register {
		register(server)
	}
	return server
}

// identify reads who is at the other end of a call.
func (s *Server) identify(ctx context.Context) (Identity, error) {
	caller, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, status.Error(codes.Unauthenticated, "the call has no peer")
	}
	info, ok := caller.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return Identity{}, status.Error(codes.Unauthenticated, "the call did not come over TLS")
	}
	return s.identifyState(info.State)
}

func (s *Server) identifyState(state tls.ConnectionState) (Identity, error) {
	if len(state.VerifiedChains) == 0 {
		return Identity{}, status.Error(codes.Unauthenticated, "no certificate of this hub's CA was shown")
	}
	id, err := s.config.Identify(state.PeerCertificates[0])
	if err != nil {
		return Identity{}, status.Error(codes.Unauthenticated, err.Error())
	}
	id.certificate = state.PeerCertificates[0]
	return id, nil
}

// agentOf is the agent that a verified connection may speak for.
func (s *Server) agentOf(id Identity, err error) (Identity, error) {
	if err != nil {
		return Identity{}, err
	}
	if id.Cluster == "" {
		return Identity{}, status.Error(codes.PermissionDenied,
			"sessions are for agents: the certificate must be one that the hub issued to a cluster's agent (tripodctl join-token CLUSTER)")
	}
	return id, s.admitted(id, id.Cluster)
}

// admitted says why an agent or a guard of the cluster may not come, or go on.
func (s *Server) admitted(id Identity, cluster string) error {
	err := s.config.Believe(id.certificate)
	if err == nil {
		err = s.config.Admit(cluster)
	}
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	return nil
}

func (s *Server) memberOf(ctx context.Context) (string, error) {
	id, err := s.identify(ctx)
	if err != nil {
		return "", err
	}
	if id.Member == "" {
		return "", status.Error(codes.PermissionDenied, "this call is for hub members only")
	}
	return id.Member, nil
}

// peerService serves the other members.
type peerService struct {
	hubv1.UnimplementedPeerServer
	server *Server
}
