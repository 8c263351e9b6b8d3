package session

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// retryPause is how long to wait before a heartbeat that found no leader is
// tried again, unless the leader changes before.
const retryPause = 50 * time.Millisecond

var errNoLeader = status.Error(codes.Unavailable, "the hub has no leader now")

// uplink is the way of heartbeats to the leader, whoever that is.
type uplink struct {
	config  Config
	peers   *peers
	metrics *metrics
}

func newUplink(config Config, peers *peers, m *metrics) *uplink {
	return &uplink{config: config, peers: peers, metrics: m}
}

// hear asks the leader for a grant. It takes a tick at most, and less when the
// leadership changes meanwhile.
func (u *uplink) hear(ctx context.Context, cluster string, heartbeat *agentv1.Heartbeat) (*agentv1.Grant, error) {
	response, err := u.relay(ctx, &hubv1.RelayedHeartbeat{Cluster: cluster, Heartbeat: heartbeat})
	if err != nil {
		return nil, err
	}
	if len(response.GetGrants()) != 1 {
		return nil, status.Errorf(codes.Internal, "the leader answered one heartbeat with %d grants", len(response.GetGrants()))
	}
	return response.GetGrants()[0], nil
}

func (u *uplink) relay(ctx context.Context, heartbeats ...*hubv1.RelayedHeartbeat) (*hubv1.RelayResponse, error) {
	leader, changed := u.config.Leadership.Leader()
	if leader == "" {
		return nil, errNoLeader
	}
	ctx, cancel := context.WithTimeout(ctx, u.config.Lease.Tick)
	defer cancel()
	request := &hubv1.RelayRequest{Member: u.config.Name, Center: u.config.Center, Heartbeats: heartbeats}
	type answer struct {
		response *hubv1.RelayResponse
		err      error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		if leader == u.config.Name {
			a.response, a.err = u.config.Leaser.Hear(ctx, request)
		} else {
			a.response, a.err = u.peers.relay(ctx, leader, request)
			u.metrics.relayed(leader, a.err)
		}
		answers <- a
	}()
	select {
	case <-changed:
		cancel()
	case a := <-answers:
		return a.response, a.err
	}
	a := <-answers
	return a.response, a.err
}

// pause waits before the next attempt; false when ctx has ended.
func (u *uplink) pause(ctx context.Context) bool {
	_, changed := u.config.Leadership.Leader()
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-changed:
	case <-timer.C:
	}
	return true
}

// run tells the leader each tick that this vantage is alive, so that a member
// that hears nothing is told from one that is not there.
func (u *uplink) run(ctx context.Context) error {
	ticker := time.NewTicker(u.config.Lease.Tick)
	defer ticker.Stop()
	for {
		// A leader that does not answer is the store's to notice.
		_, _ = u.relay(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Relay implements hubv1.PeerServer on the leader.
func (p peerService) Relay(ctx context.Context, request *hubv1.RelayRequest) (*hubv1.RelayResponse, error) {
	member, err := p.server.memberOf(ctx)
	if err != nil {
		return nil, err
	}
	if request.GetMember() != member {
		return nil, status.Errorf(codes.PermissionDenied, "member %q relays in the name of %q", member, request.GetMember())
	}
	// One that was removed may still run; what it hears counts for nothing.
	if !slices.Contains(p.server.peers.names(), member) {
		return nil, status.Errorf(codes.PermissionDenied, "member %q is not in the hub any more: stop it, or add it again (tripodctl hub add)", member)
	}
	return p.server.config.Leaser.Hear(ctx, request)
}
