package session

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// peers holds one connection to each other member. gRPC dials and redials them.
type peers struct {
	conns map[string]*grpc.ClientConn
	names []string
}

func newPeers(config Config) (*peers, error) {
	p := &peers{conns: map[string]*grpc.ClientConn{}}
	for _, member := range config.Members {
		conn, err := grpc.NewClient("passthrough:///"+member.Address,
			grpc.WithTransportCredentials(credentials.NewTLS(config.PeerTLS(member.Name))),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
				MinConnectTimeout: 2 * time.Second,
			}),
			// Also sets TCP_USER_TIMEOUT: a member without power is noticed.
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * config.Lease.Tick}),
		)
		if err != nil {
			p.close()
			return nil, fmt.Errorf("prepare the connection to member %q at %q: %w", member.Name, member.Address, err)
		}
		p.conns[member.Name] = conn
		p.names = append(p.names, member.Name)
	}
	slices.Sort(p.names)
	return p, nil
}

func (p *peers) close() {
	for _, conn := range p.conns {
		_ = conn.Close() // fails only when closed already
	}
}

func (p *peers) client(member string) (hubv1.PeerClient, error) {
	conn, ok := p.conns[member]
	if !ok {
		return nil, status.Errorf(codes.Unavailable, "member %q is not in this member's configuration: add it with its address", member)
	}
	return hubv1.NewPeerClient(conn), nil
}

func (p *peers) relay(ctx context.Context, leader string, request *hubv1.RelayRequest) (*hubv1.RelayResponse, error) {
	client, err := p.client(leader)
	if err != nil {
		return nil, err
	}
	return client.Relay(ctx, request)
}
