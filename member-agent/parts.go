package memberagent

import (
	"context"
	"time"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// applying is what the agent needs of member-agent/applier.
type applying interface {
	Run(ctx context.Context) error
	Desired(state *agentv1.DesiredState)
	SetActive(active bool)
	// Status is the whole status, nil on a replica that is not active.
	Status() *agentv1.AppliedStatus
}

// reporting is what the agent needs of member-agent/reporter.
type reporting interface {
	Run(ctx context.Context) error
	Subscribe(ctx context.Context, send func(*agentv1.AgentMessage) error) error
}

// effecting is what the agent needs of member-agent/effector.
type effecting interface {
	Run(ctx context.Context) error
	Grant(grant *agentv1.Grant, deadline time.Time)
	Carry(ctx context.Context, directive *agentv1.Directive) *agentv1.DirectiveResult
	Observations() (all []*agentv1.DatasetObservation, agesMillis []int64)
	// GuardsBehind are those that do not follow the hub's CAs yet, in words.
	GuardsBehind() []string
}

// promising is what the agent needs of member-agent/pledging.
type promising interface {
	Run(ctx context.Context) error
	SetActive(active bool)
}

// broadcasting is what the parts' messages go out by.
type broadcasting interface {
	Broadcast(message *agentv1.AgentMessage)
	Hurry()
}

// hall is where the sessions and the parts meet. It implements
// session.Receiver.
type hall struct {
	applier  applying
	reporter reporting
	effector effecting
	pledges  promising
	// remember stores a grant for a later life; it does not block.
	remember func(*agentv1.Grant)
	active   func() bool
	// unobservable is why the agent cannot see its cluster, or empty.
	unobservable func() string
	// progress is how far the agent and those guards have followed the hub's CAs.
	progress func(guards []string) *agentv1.AuthorityProgress
	out      broadcasting // set before anything runs
}

// Grant implements session.Receiver.
func (h *hall) Grant(grant *agentv1.Grant, deadline time.Time) {
	h.effector.Grant(grant, deadline)
	h.remember(grant)
}

// Desired implements session.Receiver.
func (h *hall) Desired(_ string, state *agentv1.DesiredState) { h.applier.Desired(state) }

// Carry implements session.Receiver.
func (h *hall) Carry(ctx context.Context, directive *agentv1.Directive) *agentv1.DirectiveResult {
	if !h.active() {
		return &agentv1.DirectiveResult{
			Id: directive.GetId(), Outcome: agentv1.Outcome_OUTCOME_FAILED, Message: "this replica of the agent is not the active one: try again",
		}
	}
	return h.effector.Carry(ctx, directive)
}

// Stream implements session.Receiver.
func (h *hall) Stream(ctx context.Context, send func(*agentv1.AgentMessage) error) error {
	return h.reporter.Subscribe(ctx, send)
}

// Connected implements session.Receiver: the new session has not heard what was
// applied so far.
func (h *hall) Connected(string) {
	if status := h.applier.Status(); status != nil {
		h.applied(status)
	}
}

func (h *hall) applied(status *agentv1.AppliedStatus) {
	h.out.Broadcast(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Applied{Applied: status}})
}

// became takes this replica's new part.
func (h *hall) became(active bool) {
	h.pledges.SetActive(active)
	h.applier.SetActive(active)
	h.out.Hurry() // the hub should know now who acts
}

// heartbeat is a new one, without number.
func (h *hall) heartbeat() *agentv1.Heartbeat {
	reason := h.unobservable()
	beat := &agentv1.Heartbeat{Active: h.active(), Observable: reason == "", UnobservableReason: reason, Pledges: true}
	var behind []string
	if beat.Active {
		beat.Datasets, beat.AgesMillis = h.effector.Observations()
		behind = h.effector.GuardsBehind()
	}
	beat.Authorities = h.progress(behind)
	return beat
}
