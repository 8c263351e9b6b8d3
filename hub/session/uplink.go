package session

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/proto/agent/delta"
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

	mu sync.Mutex
	// spares are the replicas that the leader hears itself, as it said last.
	leader string
	spares map[spare]bool
}

// spare names a replica of an agent.
type spare struct{ cluster, replica string }

func newUplink(config Config, peers *peers, m *metrics) *uplink {
	return &uplink{config: config, peers: peers, metrics: m}
}

// hear asks the leader for a grant for a heartbeat that came that long ago. It takes a
// tick at most, and less when the leadership changes meanwhile.
func (u *uplink) hear(ctx context.Context, cluster string, heartbeat *agentv1.Heartbeat, ago time.Duration) (*agentv1.Grant, error) {
	leader, changed := u.config.Leadership.Leader()
	replica := spare{cluster, heartbeat.GetReplica()}
	if leader == u.config.Name || u.spared(leader, replica) { // of what this member hears itself it knows already
		heartbeat = delta.Unobserved(heartbeat)
	} else {
		heartbeat = delta.Plain(heartbeat, ago)
	}
	response, err := u.relay(ctx, leader, changed, &hubv1.RelayedHeartbeat{Cluster: cluster, Heartbeat: heartbeat})
	if err != nil {
		return nil, err
	}
	if len(response.GetGrants()) != 1 {
		return nil, status.Errorf(codes.Internal, "the leader answered one heartbeat with %d grants", len(response.GetGrants()))
	}
	u.spare(leader, replica, slices.Equal(response.GetObserved(), []bool{true}))
	return response.GetGrants()[0], nil
}

// spared is whether the leader wants no observations of the replica.
func (u *uplink) spared(leader string, replica spare) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.leader == leader && u.spares[replica]
}

// spare notes whether the leader wants observations of the replica.
func (u *uplink) spare(leader string, replica spare, spared bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.leader != leader {
		u.leader, u.spares = leader, map[spare]bool{}
	}
	if !spared {
		delete(u.spares, replica)
		return
	}
	u.spares[replica] = true
}

func (u *uplink) relay(ctx context.Context, leader string, changed <-chan struct{}, heartbeats ...*hubv1.RelayedHeartbeat) (*hubv1.RelayResponse, error) {
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
		leader, changed := u.config.Leadership.Leader()
		_, _ = u.relay(ctx, leader, changed)
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
