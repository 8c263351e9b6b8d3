package memberagent

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// part plays all the parts and the sessions.
type part struct {
	active  bool
	carried int
	sent    []*agentv1.AgentMessage
	hurried int
	status  *agentv1.AppliedStatus
}

func (p *part) Run(context.Context) error         { return nil }
func (p *part) Desired(*agentv1.DesiredState)     {}
func (p *part) SetActive(active bool)             { p.active = active }
func (p *part) Status() *agentv1.AppliedStatus    { return p.status }
func (p *part) Grant(*agentv1.Grant, time.Time)   {}
func (p *part) Broadcast(m *agentv1.AgentMessage) { p.sent = append(p.sent, m) }
func (p *part) Hurry()                            { p.hurried++ }
func (p *part) Carry(context.Context, *agentv1.Directive) *agentv1.DirectiveResult {
	p.carried++
	return &agentv1.DirectiveResult{Outcome: agentv1.Outcome_OUTCOME_DONE}
}
func (p *part) Observations() ([]*agentv1.DatasetObservation, []int64) {
	return []*agentv1.DatasetObservation{{State: "Running"}}, []int64{7}
}
func (p *part) GuardsBehind() []string                                             { return nil }
func (p *part) Subscribe(context.Context, func(*agentv1.AgentMessage) error) error { return nil }

func TestOnlyTheActiveReplicaActsAndObserves(t *testing.T) {
	p := &part{}
	active := false
	h := &hall{applier: p, reporter: p, effector: p, pledges: p, out: p, active: func() bool { return active }, unobservable: func() string { return "" },
		progress: func([]string) *agentv1.AuthorityProgress { return nil }}
	if beat := h.heartbeat(); beat.GetActive() || len(beat.GetDatasets()) != 0 || !beat.GetObservable() {
		t.Errorf("the heartbeat of a passive replica is %v", beat)
	}
	if result := h.Carry(t.Context(), &agentv1.Directive{Id: "r/s/1"}); result.GetOutcome() != agentv1.Outcome_OUTCOME_FAILED || p.carried != 0 {
		t.Errorf("a passive replica carried a directive: %v", result)
	}
	active = true
	h.became(true)
	if !p.active || p.hurried != 1 {
		t.Error("the applier or the hub is not told who is active")
	}
	if beat := h.heartbeat(); !beat.GetActive() || len(beat.GetDatasets()) != 1 || beat.GetAgesMillis()[0] != 7 {
		t.Errorf("the heartbeat of the active replica is %v", beat)
	}
	if result := h.Carry(t.Context(), &agentv1.Directive{Id: "r/s/2"}); result.GetOutcome() != agentv1.Outcome_OUTCOME_DONE {
		t.Errorf("got %v", result)
	}
}

func TestANewSessionHearsWhatWasApplied(t *testing.T) {
	p := &part{}
	h := &hall{applier: p, out: p}
	h.Connected("hub-a")
	if len(p.sent) != 0 {
		t.Error("a passive replica has nothing to say")
	}
	p.status = &agentv1.AppliedStatus{Buried: []string{"a/b"}}
	h.Connected("hub-a")
	if len(p.sent) != 1 || p.sent[0].GetApplied().GetBuried()[0] != "a/b" {
		t.Errorf("got %v", p.sent)
	}
}

func TestAnApiServerThatDoesNotAnswerMakesTheClusterUnobservable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failing atomic.Bool
		p := &probe{ask: func(context.Context) error {
			if failing.Load() {
				return errors.New("connection refused")
			}
			return nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = p.run(ctx) }()
		defer func() { cancel(); <-done }()
		expect := func(unobservable bool) {
			t.Helper()
			if reason := p.unobservable(); (reason != "") != unobservable {
				t.Errorf("reason is %q", reason)
			}
		}
		synctest.Wait()
		expect(false)
		failing.Store(true)
		elapse(1500 * time.Millisecond) // one failure is no state
		expect(false)
		elapse(time.Second)
		expect(true)
		failing.Store(false)
		elapse(time.Second)
		expect(false)
	})
}

// elapse lets time pass in a synctest bubble.
func elapse(d time.Duration) { <-time.After(d) }
