package session

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// peers holds one connection to each other member that was ever called. gRPC
// dials and redials them. It is safe for concurrent use.
type peers struct {
	config Config

	mu    sync.Mutex
	conns map[string]peerConn
}

type peerConn struct {
	*grpc.ClientConn
	address string
}

func newPeers(config Config) *peers { return &peers{config: config, conns: map[string]peerConn{}} }

// names of the other members, in order.
func (p *peers) names() []string {
	var names []string
	for _, m := range p.members() {
		if m.Name != p.config.Name {
			names = append(names, m.Name)
		}
	}
	slices.Sort(names)
	return names
}

func (p *peers) members() []Member {
	if p.config.Members == nil {
		return nil
	}
	return p.config.Members()
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close() // fails only when closed already
	}
}

// client calls another member, where the hub now says that it is.
func (p *peers) client(member string) (hubv1.PeerClient, error) {
	all := p.members()
	i := slices.IndexFunc(all, func(m Member) bool { return m.Name == member })
	if i < 0 {
		return nil, status.Errorf(codes.Unavailable, "member %q is not in the hub: `tripodctl hub members` lists them", member)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	conn, ok := p.conns[member]
	if ok && conn.address == all[i].Address {
		return hubv1.NewPeerClient(conn), nil
	}
	if ok {
		_ = conn.Close() // another one has taken its name
	}
	fresh, err := p.dial(all[i])
	if err != nil {
		return nil, err
	}
	p.conns[member] = peerConn{fresh, all[i].Address}
	return hubv1.NewPeerClient(fresh), nil
}

func (p *peers) dial(member Member) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+member.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(p.config.PeerTLS(member.Name))),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connectionWindow),
		// Also sets TCP_USER_TIMEOUT: a member without power is noticed.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * p.config.Lease.Tick}),
	)
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to member %q at %q: %w", member.Name, member.Address, err)
	}
	return conn, nil
}

func (p *peers) relay(ctx context.Context, leader string, request *hubv1.RelayRequest) (*hubv1.RelayResponse, error) {
	client, err := p.client(leader)
	if err != nil {
		return nil, err
	}
	return client.Relay(ctx, request)
}
