package session

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/proto/agent/delta"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Sessions are an agent replica's sessions with all hub members. Its methods
// are safe for concurrent use.
type Sessions struct {
	config Config
	origin time.Time // of the monotonic clock that the lease is counted on
	desk   *desk
	book   *book

	tick  chan time.Duration // the fleet's, as the last Welcome told
	hurry chan struct{}

	mu       sync.Mutex // held while Receiver.Grant runs, so that grants keep their order
	holder   *lease.Holder
	deadline time.Duration // last told to the receiver
	stamp    lease.Stamp
	roles    delta.Roles
	// remembered is the highest incarnation that Remember was called with.
	remembered uint64
}

// New checks the configuration. Nothing is dialled before Run.
func New(config Config) (*Sessions, error) {
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	s := &Sessions{
		config: config, origin: time.Now(), tick: make(chan time.Duration, 1), hurry: make(chan struct{}, 1),
		holder: lease.NewHolder(config.Incarnation), remembered: config.Incarnation,
	}
	s.desk = newDesk(config.Receiver.Carry)
	s.book = newBook(s)
	return s, nil
}

// Run keeps the sessions until ctx ends and returns when everything that it
// started has ended.
func (s *Sessions) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.desk.run(ctx) })
	group.Go(func() error { return s.book.run(ctx) })
	group.Go(func() error { return s.beat(ctx) })
	return group.Wait()
}

// beat sends one heartbeat to every member each tick.
func (s *Sessions) beat(ctx context.Context) error {
	interval := s.config.Tick
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		s.askAll()
		asked := time.Now()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.hurry:
			// Several that hurry at once share one question.
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(max(0, interval/20-time.Since(asked))):
			}
		case told := <-s.tick:
			if told != interval {
				interval = told
				ticker.Reset(interval)
			}
		case <-ticker.C:
		}
	}
}

// Hurry asks for a grant now instead of at the next tick. It never blocks.
func (s *Sessions) Hurry() { signal(s.hurry) }

// askAll numbers a heartbeat and gives it to every session. The time of asking
// is taken before anything is handed over: what waits in a queue counts.
func (s *Sessions) askAll() {
	heartbeat := s.config.Heartbeat()
	heartbeat.Replica = s.config.Replica
	s.mu.Lock()
	heartbeat.Seq = s.holder.Ask(time.Since(s.origin))
	heartbeat.Roles = s.roles.Held()
	s.mu.Unlock()
	for _, link := range s.book.all() {
		link.post().putHeartbeat(heartbeat)
	}
}

// answer takes a grant from any member.
func (s *Sessions) answer(grant *agentv1.Grant) lease.Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	stamp := lease.Stamp{Incarnation: grant.GetIncarnation(), Term: grant.GetTerm(), Revision: grant.GetRevision()}
	ttl := time.Duration(grant.GetTtlMillis()) * time.Millisecond
	verdict := s.holder.Answer(grant.GetSeq(), stamp, ttl, time.Since(s.origin))
	if verdict != lease.Accepted {
		return verdict
	}
	s.rememberLocked()
	whole, err := s.roles.Take(grant)
	if err != nil { // the receiver keeps the lease that it has until all roles have come
		s.config.Logger.Warn("grant cannot be used; asking for all roles", "error", err)
		s.roles.Forget()
		s.Hurry()
		return verdict
	}
	if deadline := s.holder.Deadline(); deadline != s.deadline || stamp != s.stamp {
		s.deadline, s.stamp = deadline, stamp
		s.config.Receiver.Grant(whole, s.origin.Add(deadline))
	}
	return verdict
}

// saw takes the incarnation that a member says it is of; false when it is older
// than what this cluster has seen.
func (s *Sessions) saw(incarnation uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := s.holder.Saw(incarnation)
	s.rememberLocked()
	return ok
}

func (s *Sessions) rememberLocked() {
	if highest := s.holder.Incarnation(); highest > s.remembered {
		s.remembered = highest
		s.config.Remember(highest)
	}
}

// Seen is the highest incarnation seen, and the highest revision of a grant or
// remembered from before.
func (s *Sessions) Seen() (incarnation uint64, revision int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.holder.Incarnation(), max(s.holder.Stamp().Revision, s.config.Revision)
}

// Deadline is when the roles of the last grant end; zero before the first one.
func (s *Sessions) Deadline() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder.Deadline() == 0 {
		return time.Time{}
	}
	return s.origin.Add(s.holder.Deadline())
}

// Broadcast gives a message to every session that is open now and never blocks.
// A session that is too slow loses the oldest ones.
func (s *Sessions) Broadcast(message *agentv1.AgentMessage) {
	for _, link := range s.book.all() {
		link.post().putMessage(message)
	}
}

// Connected counts the members with whom a session is open.
func (s *Sessions) Connected() int {
	n := 0
	for _, link := range s.book.all() {
		if link.open.Load() {
			n++
		}
	}
	return n
}

// Missing lists the addresses of hub members with whom no session is open, in order.
func (s *Sessions) Missing() []string {
	var missing []string
	for _, link := range s.book.all() {
		if !link.open.Load() && !s.book.heldElsewhere(link) {
			missing = append(missing, link.address)
		}
	}
	slices.Sort(missing)
	return missing
}

// toldTick keeps only the newest tick.
func (s *Sessions) toldTick(tick time.Duration) {
	if tick <= 0 {
		return
	}
	for {
		select {
		case s.tick <- tick:
			return
		default:
		}
		select {
		case <-s.tick:
		default:
		}
	}
}
