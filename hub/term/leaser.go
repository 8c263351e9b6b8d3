package term

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/failover/lease"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// Applied says at which log position a renewal was applied on this member.
type Applied struct {
	Term     uint64
	Revision int64
}

// Proposer puts renewals into the Raft log. ProposeRenewal works on the leader
// only and returns when the renewal is committed and applied on this member.
type Proposer interface {
	ProposeRenewal(ctx context.Context, renewal *raftlogv1.LeaseRenewal) (Applied, error)
}

// Roster is the committed state that leases are given from.
type Roster interface {
	// Roles returns the roles at one revision, not older than the newest one
	// applied on this member when the call began.
	Roles(ctx context.Context) (RoleTable, error)
	// Admitted is nil for a cluster that may hold a lease.
	Admitted(cluster string) error
}

// LeaserConfig describes a Leaser.
type LeaserConfig struct {
	Lease       lease.Config
	Incarnation func() uint64
	// Steady is this member's account of how steadily the hub renews.
	Steady   func() time.Duration
	Proposer Proposer
	Roster   Roster
	Vantages *Vantages
	// Observations takes what comes with the heartbeats.
	Observations *Observations
	// Batch is the least time between two proposals; default: a quarter of a
	// tick. Clusters are heard at any phase of the tick, and what waits for the
	// next proposal is lost from their leases.
	Batch  time.Duration
	Clock  Clock
	Logger *slog.Logger
}

// Leaser answers heartbeats on the leader. All that were heard since the last
// proposal share the next one; nobody is answered before it is applied. It is
// safe for concurrent use; Run is called once per term, by one Runner.
type Leaser struct {
	config LeaserConfig
	wake   chan struct{}

	mu      sync.Mutex
	leading bool
	next    *round
	tick    uint64
}

// round is one renewal: who it renews and, when done is closed, what came of it.
type round struct {
	clusters map[string]struct{}
	done     chan struct{}

	err   error
	term  uint64
	roles RoleTable
}

func newRound() *round { return &round{clusters: map[string]struct{}{}, done: make(chan struct{})} }

var errNotLeading = status.Error(codes.Unavailable, "this member does not lead the hub: ask the leader")

// NewLeaser leads nothing until Run.
func NewLeaser(config LeaserConfig) *Leaser {
	if config.Batch == 0 {
		config.Batch = config.Lease.Tick / 4
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	return &Leaser{config: config, wake: make(chan struct{}, 1), next: newRound()}
}

// Hear takes the heartbeats that a member heard, renews the leases of their
// clusters and answers each with a grant; of seq 0 when the cluster may not hold
// a lease. A request without heartbeats only says that the member is there.
func (l *Leaser) Hear(ctx context.Context, request *hubv1.RelayRequest) (*hubv1.RelayResponse, error) {
	admitted := make([]bool, len(request.GetHeartbeats()))
	for i, h := range request.GetHeartbeats() {
		admitted[i] = l.config.Roster.Admitted(h.GetCluster()) == nil
	}
	joined, err := l.join(request, admitted)
	if err != nil {
		return nil, err
	}
	response := &hubv1.RelayResponse{Grants: make([]*agentv1.Grant, len(admitted)), Observed: make([]bool, len(admitted))}
	if joined != nil {
		select {
		case <-joined.done:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		if joined.err != nil {
			return nil, joined.err
		}
	}
	for i, h := range request.GetHeartbeats() {
		response.Grants[i] = &agentv1.Grant{}
		if admitted[i] {
			response.Grants[i] = l.grant(joined, h)
			response.Observed[i] = l.config.Observations.Hears(h.GetCluster(), h.GetHeartbeat().GetReplica())
		}
	}
	return response, nil
}

// join notes what was heard and puts the clusters into the next round, nil when
// there are none.
func (l *Leaser) join(request *hubv1.RelayRequest, admitted []bool) (*round, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.leading {
		return nil, errNotLeading
	}
	l.config.Vantages.reported(request.GetMember(), request.GetCenter())
	var joined *round
	for i, h := range request.GetHeartbeats() {
		if !admitted[i] {
			continue
		}
		joined = l.next
		joined.clusters[h.GetCluster()] = struct{}{}
		reason := ""
		if !h.GetHeartbeat().GetObservable() {
			reason = h.GetHeartbeat().GetUnobservableReason()
			if reason == "" {
				reason = "the agent gives no reason"
			}
		}
		l.config.Vantages.heard(request.GetMember(), h.GetCluster(), h.GetHeartbeat().GetGuard(), reason)
		l.config.Observations.Note(h.GetCluster(), h.GetHeartbeat())
	}
	if joined != nil {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	return joined, nil
}

func (l *Leaser) grant(r *round, h *hubv1.RelayedHeartbeat) *agentv1.Grant {
	g := &agentv1.Grant{
		Seq: h.GetHeartbeat().GetSeq(), TtlMillis: l.config.Lease.TTL.Milliseconds(),
		Incarnation: l.config.Incarnation(), Term: r.term, Revision: r.roles.Revision,
	}
	r.roles.grant(g, h.GetCluster(), h.GetHeartbeat().GetRoles())
	return g
}

// Run answers until ctx ends, which is when the term does. When nobody is heard it
// renews nobody once a tick, so that an empty fleet is not taken for an outage of
// the hub.
func (l *Leaser) Run(ctx context.Context, term uint64) error {
	l.begin()
	defer l.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	idle := time.NewTicker(l.config.Lease.Tick)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-idle.C:
		case <-l.wake:
			idle.Reset(l.config.Lease.Tick)
		}
		r := l.take()
		started := l.config.Clock()
		if err := l.renew(ctx, r); err != nil && ctx.Err() == nil {
			l.config.Logger.Warn("leases were not renewed", "term", term, "error", err)
		}
		if len(r.clusters) == 0 {
			continue // whoever is heard next need not wait
		}
		timer.Reset(max(0, l.config.Batch-(l.config.Clock()-started)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
}

func (l *Leaser) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.config.Vantages.reset()
	l.leading = true
}

// end answers everyone who still waits: another member leads now, or none.
func (l *Leaser) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leading = false
	l.next.err = errNotLeading
	close(l.next.done)
	l.next = newRound()
}

func (l *Leaser) take() *round {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.next
	l.next = newRound()
	l.tick++
	return r
}

// renew commits one round and reads, after it is applied, what the roles are.
func (l *Leaser) renew(ctx context.Context, r *round) (err error) {
	defer func() {
		if err != nil {
			r.err = status.Error(codes.Unavailable, err.Error())
		}
		close(r.done)
	}()
	ctx, cancel := context.WithTimeout(ctx, l.config.Lease.TTL)
	defer cancel()
	renewal := &raftlogv1.LeaseRenewal{Tick: l.tick, Incarnation: l.config.Incarnation(),
		SteadyMillis: uint64(l.config.Steady().Milliseconds())}
	for name := range r.clusters {
		renewal.Clusters = append(renewal.Clusters, name)
	}
	applied, err := l.config.Proposer.ProposeRenewal(ctx, renewal)
	if err != nil {
		return err
	}
	roles, err := l.config.Roster.Roles(ctx)
	if err != nil {
		return fmt.Errorf("read the roles after a renewal: %w", err)
	}
	if roles.Revision < applied.Revision {
		return errors.New("the roles were read at an older revision than the renewal's: this is a defect of the store")
	}
	r.term, r.roles = applied.Term, roles
	return nil
}
