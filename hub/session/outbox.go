package session

import (
	"sync"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// directiveBacklog is how many directives may wait for one slow agent.
const directiveBacklog = 16

// outbox orders what goes out on one session. What is urgent goes first and
// what is superseded is not sent: of waiting grants only the newest, of waiting
// subscriptions only the last. A slow agent fills its own outbox and nobody
// else's.
type outbox struct {
	mu           sync.Mutex
	grant        *agentv1.Grant
	subscription *agentv1.ViewSubscription
	directives   []*agentv1.Directive
	desired      *agentv1.DesiredState
	members      *agentv1.HubMembers
	authorities  *agentv1.HubAuthorities
	wake         chan struct{} // one token: something was added
	drained      chan struct{} // one token: desired was taken
}

func newOutbox() *outbox {
	return &outbox{wake: make(chan struct{}, 1), drained: make(chan struct{}, 1)}
}

func (o *outbox) signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (o *outbox) putGrant(g *agentv1.Grant) {
	o.mu.Lock()
	if o.grant == nil || g.GetSeq() >= o.grant.GetSeq() {
		o.grant = g
	}
	o.mu.Unlock()
	o.signal(o.wake)
}

func (o *outbox) putSubscription(start bool) {
	o.mu.Lock()
	o.subscription = &agentv1.ViewSubscription{Start: start}
	o.mu.Unlock()
	o.signal(o.wake)
}

func (o *outbox) putMembers(m *agentv1.HubMembers) {
	o.mu.Lock()
	o.members = m
	o.mu.Unlock()
	o.signal(o.wake)
}

func (o *outbox) putAuthorities(a *agentv1.HubAuthorities) {
	o.mu.Lock()
	o.authorities = a
	o.mu.Unlock()
	o.signal(o.wake)
}

// putDirective is false when too many wait already.
func (o *outbox) putDirective(d *agentv1.Directive) bool {
	o.mu.Lock()
	full := len(o.directives) >= directiveBacklog
	if !full {
		o.directives = append(o.directives, d)
	}
	o.mu.Unlock()
	if !full {
		o.signal(o.wake)
	}
	return !full
}

// free is whether the desired state before has been taken; drained says when that
// changes.
func (o *outbox) free() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.desired == nil
}

// putDesired may be called only while free.
func (o *outbox) putDesired(d *agentv1.DesiredState) {
	o.mu.Lock()
	o.desired = d
	o.mu.Unlock()
	o.signal(o.wake)
}

// take returns what goes out next, nil when nothing waits.
func (o *outbox) take() *agentv1.HubMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.grant != nil:
		m := &agentv1.HubMessage{Kind: &agentv1.HubMessage_Grant{Grant: o.grant}}
		o.grant = nil
		return m
	case len(o.directives) > 0:
		m := &agentv1.HubMessage{Kind: &agentv1.HubMessage_Directive{Directive: o.directives[0]}}
		o.directives = o.directives[1:]
		return m
	case o.subscription != nil:
		m := &agentv1.HubMessage{Kind: &agentv1.HubMessage_Subscription{Subscription: o.subscription}}
		o.subscription = nil
		return m
	case o.members != nil:
		m := &agentv1.HubMessage{Kind: &agentv1.HubMessage_Members{Members: o.members}}
		o.members = nil
		return m
	case o.authorities != nil:
		m := &agentv1.HubMessage{Kind: &agentv1.HubMessage_Authorities{Authorities: o.authorities}}
		o.authorities = nil
		return m
	case o.desired != nil:
		m := &agentv1.HubMessage{Kind: &agentv1.HubMessage_Desired{Desired: o.desired}}
		o.desired = nil
		o.signal(o.drained)
		return m
	}
	return nil
}

// drain sends until nothing waits or send fails. One call at a time.
func (o *outbox) drain(send func(*agentv1.HubMessage) error) error {
	for m := o.take(); m != nil; m = o.take() {
		if err := send(m); err != nil {
			return err
		}
	}
	return nil
}
