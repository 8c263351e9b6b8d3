package reporter

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
	"tripod.dev/tripod/syncer"
	"tripod.dev/tripod/syncer/view"
)

// Subscribe gives one hub member a snapshot of every synced resource, then what
// changes, and the cluster's facts. It returns when ctx ends or with send's
// error. send may block: nothing is queued meanwhile, the member is given the
// newest state of each object when it reads on. A message carries at most the
// configured batch, or one object that is larger.
//
// Any number of Subscribe calls may run at once; each has its own snapshot.
func (r *Reporter) Subscribe(ctx context.Context, send func(*agentv1.AgentMessage) error) error {
	s := &stream{
		reporter: r,
		send:     send,
		places:   map[schema.GroupVersionResource]bookmark{},
	}
	tick := r.config.Clock.NewTicker(r.config.FactsEvery)
	defer tick.Stop()
	ages := false
	for {
		changed := r.ledger.next()
		moved, err := s.pass(ctx, ages)
		if err != nil {
			return err
		}
		ages = false
		if moved {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-tick.C():
			ages = true
		}
	}
}

// stream is one hub member's place in everything.
type stream struct {
	reporter *Reporter
	send     func(*agentv1.AgentMessage) error
	places   map[schema.GroupVersionResource]bookmark
	facts    *agentv1.ClusterFacts
}

// pass sends the facts if they are new and at most one batch of each resource,
// so that a large resource does not hold up the small ones. With ages it also
// repeats the age of each resource that cannot be watched.
func (s *stream) pass(ctx context.Context, ages bool) (moved bool, err error) {
	if facts := s.reporter.facts.current(); facts != nil && facts != s.facts {
		if err := s.send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Facts{Facts: facts}}); err != nil {
			return false, err
		}
		s.facts = facts
	}
	for _, resource := range s.reporter.ledger.listed() {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		sent, err := s.advance(resource, ages)
		if err != nil {
			return false, err
		}
		moved = moved || sent
	}
	return moved, nil
}

func (s *stream) advance(resource syncer.Resource, ages bool) (moved bool, err error) {
	gvr := resource.GroupVersionResource
	place := s.places[gvr]
	batch, next, age, ok := s.reporter.ledger.page(gvr, place, s.reporter.config.Batch)
	if !ok && next.old == place.old && (!next.old || !ages) {
		s.places[gvr] = next
		return false, nil
	}
	delta := view.Encode(resource, batch, age)
	if err := s.send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_View{View: delta}}); err != nil {
		return false, err
	}
	s.places[gvr] = next
	return ok, nil
}
