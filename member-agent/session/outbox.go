package session

import (
	"context"
	"sync"

	"tripod.dev/tripod/proto/agent/delta"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// messageBacklog is how many results and statuses may wait for one member.
const messageBacklog = 256

// outbox orders what goes out on one session: the newest heartbeat first, then
// results and statuses, then the view, which waits for its turn.
type outbox struct {
	mu        sync.Mutex
	heartbeat *agentv1.Heartbeat
	messages  []*agentv1.AgentMessage
	view      *agentv1.AgentMessage
	wake      chan struct{}
	drained   chan struct{}
	// speaker makes differences of heartbeats; nil for a member that wants whole ones.
	speaker *delta.Speaker
}

func newOutbox(differences bool) *outbox {
	o := &outbox{wake: make(chan struct{}, 1), drained: make(chan struct{}, 1)}
	if differences {
		o.speaker = &delta.Speaker{}
	}
	return o
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (o *outbox) putHeartbeat(h *agentv1.Heartbeat) {
	if o == nil {
		return
	}
	o.mu.Lock()
	o.heartbeat = h
	o.mu.Unlock()
	signal(o.wake)
}

func (o *outbox) putMessage(m *agentv1.AgentMessage) {
	if o == nil {
		return
	}
	o.mu.Lock()
	if len(o.messages) >= messageBacklog {
		o.messages = o.messages[1:]
	}
	o.messages = append(o.messages, m)
	o.mu.Unlock()
	signal(o.wake)
}

// putView waits until the part of the view before it has been taken.
func (o *outbox) putView(ctx context.Context, m *agentv1.AgentMessage) error {
	for {
		o.mu.Lock()
		free := o.view == nil
		if free {
			o.view = m
		}
		o.mu.Unlock()
		if free {
			signal(o.wake)
			return nil
		}
		select {
		case <-o.drained:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// clearView drops a part of a view stream that has ended.
func (o *outbox) clearView() {
	o.mu.Lock()
	o.view = nil
	o.mu.Unlock()
}

// take returns what is to be sent next, nil when nothing waits. What it returns must be
// sent, or the session ended.
func (o *outbox) take() *agentv1.AgentMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.heartbeat != nil:
		heartbeat := o.heartbeat
		o.heartbeat = nil
		if o.speaker != nil {
			heartbeat = o.speaker.Next(heartbeat)
		} else {
			heartbeat = delta.Plain(heartbeat, 0)
		}
		return &agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Heartbeat{Heartbeat: heartbeat}}
	case len(o.messages) > 0:
		m := o.messages[0]
		o.messages = o.messages[1:]
		return m
	case o.view != nil:
		m := o.view
		o.view = nil
		signal(o.drained)
		return m
	}
	return nil
}

// run sends until ctx ends or send fails.
func (o *outbox) run(ctx context.Context, send func(*agentv1.AgentMessage) error) error {
	for {
		for m := o.take(); m != nil; m = o.take() {
			if err := send(m); err != nil {
				return err
			}
		}
		select {
		case <-o.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
