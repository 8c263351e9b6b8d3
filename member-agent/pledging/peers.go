package pledging

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"tripod.dev/tripod/failover/guard"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// peers are the connections to other agents. It is safe for concurrent use.
type peers struct {
	config Config

	mu     sync.Mutex
	conns  map[endpoint]*grpc.ClientConn
	closed bool
}

type endpoint struct{ cluster, address string }

func newPeers(c Config) *peers { return &peers{config: c, conns: map[endpoint]*grpc.ClientConn{}} }

// ask puts a question to the agent of cluster, which must prove to be that one.
func (p *peers) ask(ctx context.Context, cluster, address string, request *agentv1.PledgeRequest) (*agentv1.PledgeResponse, error) {
	conn, err := p.conn(endpoint{cluster, address})
	if err != nil {
		return nil, fmt.Errorf("reach the agent of %s at %s: %w", cluster, address, err)
	}
	response, err := agentv1.NewPledgesClient(conn).Pledge(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("ask the agent of %s at %s: %w", cluster, address, err)
	}
	return response, nil
}

func (p *peers) conn(e endpoint) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, context.Canceled
	}
	if conn := p.conns[e]; conn != nil {
		return conn, nil
	}
	conn, err := grpc.NewClient("passthrough:///"+e.address,
		grpc.WithTransportCredentials(credentials.NewTLS(p.clientTLS(e.cluster))),
		// A peer that was away is found again at once: roles end within a TTL.
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 2 * p.config.Lease.Tick,
			Backoff: backoff.Config{BaseDelay: p.config.Lease.Tick / 10, Multiplier: 1.5, Jitter: 0.2, MaxDelay: p.config.Lease.Tick / 2}}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * p.config.Lease.Tick}))
	if err != nil {
		return nil, err
	}
	p.conns[e] = conn
	return conn, nil
}

// only ends the connections to all but these.
func (p *peers) only(wanted map[endpoint]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e, conn := range p.conns {
		if !wanted[e] && e.cluster != p.config.Cluster {
			_ = conn.Close()
			delete(p.conns, e)
		}
	}
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	clear(p.conns)
}

// clientTLS trusts exactly the agent of one cluster: who answers for another could
// keep a primary alive that the other has replaced.
func (p *peers) clientTLS(cluster string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return p.config.Identity.ServingCertificate()
		},
		InsecureSkipVerify: true, // VerifyConnection verifies the chain and the subject
		VerifyConnection: func(state tls.ConnectionState) error {
			return guard.VerifyAgent(state, p.config.Identity.Authority(), cluster)
		},
	}
}
