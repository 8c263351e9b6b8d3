package controller

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"tripod.dev/tripod/failover"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// sender carries commands out beside the turns and keeps their results for one
// term. A command of a run is sent once per ID: its attempts are counted in the
// journal. Other commands are sent again, at their own pace, as long as turns
// ask for them; more slowly while they fail, because what one dataset lacks a
// thousand may.
type sender struct {
	direct  Directives
	uptime  func() time.Duration
	wake    func()
	metrics *metrics

	mu      sync.Mutex
	inWork  map[string]bool
	tried   map[string]int32
	failed  map[string]int // in a row
	lastAt  map[string]time.Duration
	answers map[string]failover.Result
	running sync.WaitGroup
}

func newSender(d Directives, uptime func() time.Duration, wake func(), m *metrics) *sender {
	return &sender{direct: d, uptime: uptime, wake: wake, metrics: m, inWork: map[string]bool{}, tried: map[string]int32{}, failed: map[string]int{},
		lastAt: map[string]time.Duration{}, answers: map[string]failover.Result{}}
}

// reset forgets the results of an earlier term: they may be of a state that
// another leader has moved on from.
func (s *sender) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.inWork)
	clear(s.tried)
	clear(s.failed)
	clear(s.lastAt)
	clear(s.answers)
}

func (s *sender) results() map[string]failover.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.answers)
}

// send starts a command unless it is in work, answered, or sent a moment ago.
func (s *sender) send(ctx context.Context, c failover.Command, d *agentv1.Directive) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, answered := s.answers[c.ID]
	last, sent := s.lastAt[c.ID]
	switch {
	case s.inWork[c.ID], c.Every == 0 && answered, c.Every > 0 && sent && s.uptime()-last < pace(c.Every, s.failed[c.ID]):
		return false
	}
	if c.Every > 0 {
		s.tried[c.ID]++
		d.Attempt = s.tried[c.ID]
		d.Id = fmt.Sprintf("%s/%d", c.ID, d.Attempt)
	}
	s.inWork[c.ID], s.lastAt[c.ID] = true, s.uptime()
	s.running.Go(func() { s.carry(ctx, c, d) })
	return true
}

// slowest is the pace of a command that goes on failing, unless its own is slower.
const slowest = 5 * time.Second

// pace is how long to wait before a command that has failed so many times in a row is
// sent again.
func pace(every time.Duration, failed int) time.Duration {
	for ; failed > 1 && every < slowest; failed-- {
		every = min(2*every, slowest)
	}
	return every
}

// begin is true when work on an ID is to begin: it is not in work and not answered.
func (s *sender) begin(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.answers[id]; known || s.inWork[id] {
		return false
	}
	s.inWork[id] = true
	return true
}

// answered keeps the result of what began, unless the term has ended.
func (s *sender) answered(ctx context.Context, id string, r failover.Result) {
	r.At = s.uptime()
	s.mu.Lock()
	delete(s.inWork, id)
	if ctx.Err() == nil {
		s.answers[id] = r
	}
	s.mu.Unlock()
	s.wake()
}

func (s *sender) carry(ctx context.Context, c failover.Command, d *agentv1.Directive) {
	start := s.uptime()
	bounded, cancel := context.WithTimeout(ctx, c.Bound)
	defer cancel()
	r, err := s.direct.Direct(bounded, c.Cluster, d)
	result := failover.Result{Outcome: failover.Unreachable, At: s.uptime()}
	if err != nil {
		result.Message = err.Error()
	} else {
		result = failover.Result{Outcome: outcomes[r.GetOutcome()], Message: r.GetMessage(), Position: r.GetPosition(), PositionBytes: r.GetObservation().GetPositionBytes(),
			Timeline: r.GetTimeline(), Elapsed: time.Duration(r.GetElapsedMillis()) * time.Millisecond, At: s.uptime()}
	}
	s.metrics.directives.WithLabelValues(string(c.Verb), string(result.Outcome)).Observe((s.uptime() - start).Seconds())
	s.mu.Lock()
	delete(s.inWork, c.ID)
	if ctx.Err() == nil {
		s.answers[c.ID] = result
	}
	if result.Outcome == failover.Done {
		delete(s.failed, c.ID)
	} else if c.Every > 0 {
		s.failed[c.ID]++
	}
	s.mu.Unlock()
	s.wake()
}

// resultLife is how long the answer to a command of no run is kept: it counts
// only until what it confirmed is committed.
const resultLife = 10 * time.Minute

// forget drops results that no turn can ask for any more.
func (s *sender) forget(unfinished func(run string) bool, now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.answers {
		run, _, _ := strings.Cut(id, "/")
		if !unfinished(run) && now-r.At > resultLife {
			delete(s.answers, id)
			delete(s.lastAt, id)
			delete(s.tried, id)
			delete(s.failed, id)
		}
	}
}

var outcomes = map[agentv1.Outcome]failover.Outcome{
	agentv1.Outcome_OUTCOME_UNSPECIFIED: failover.Failed,
	agentv1.Outcome_OUTCOME_DONE:        failover.Done,
	agentv1.Outcome_OUTCOME_REFUSED:     failover.Refused,
	agentv1.Outcome_OUTCOME_FAILED:      failover.Failed,
	agentv1.Outcome_OUTCOME_UNREACHABLE: failover.Unreachable,
}
