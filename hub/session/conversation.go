package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// conversation is what a session does from Welcome to its end. While the agent is
// idle it has one goroutine beside the one that reads: a hub has thousands. What
// takes long, a heartbeat on its way and what is sent, has one while it lasts.
type conversation struct {
	server  *Server
	session *agentSession
	stream  agentv1.Sessions_SessionServer
	// sealed is whether the hub was, at the beginning.
	sealed  bool
	desired <-chan *agentv1.DesiredState

	// Nil while there is none.
	passed chan struct{} // closed when the heartbeat under way has its answer, or none
	sent   chan error    // tells that the outbox was emptied, or why not

	told    *agentv1.HubMembers
	trusted *agentv1.HubAuthorities
}

// converse moves messages both ways until the session ends.
func (s *Server) converse(ctx context.Context, session *agentSession, stream agentv1.Sessions_SessionServer) error {
	c := &conversation{server: s, session: session, stream: stream, sealed: s.config.Sealed()}
	defer func() {
		session.cancel(nil)
		if c.passed != nil {
			<-c.passed
		}
	}()
	// Recv and Send of an agent that says and takes nothing return only when the stream
	// ends, that is after this function has returned; so their goroutines are waited for by Run, not here.
	received := make(chan error, 1)
	s.talkers.Go(func() { received <- s.receive(session, stream) })
	if s.config.Desired != nil && !c.sealed {
		c.desired = s.config.Desired.Watch(ctx, session.cluster)
	}
	err := c.run(ctx, received)
	if errors.Is(err, context.Canceled) {
		return status.Error(codes.Unavailable, "the session ends: the hub member stops or the agent left")
	}
	return err
}

func (c *conversation) run(ctx context.Context, received <-chan error) error {
	ticker := time.NewTicker(c.server.config.Lease.Tick)
	defer ticker.Stop()
	c.tell()
	for {
		// Each of these waits while the one before is under way.
		beats, wake, desired := c.session.beats, c.session.out.wake, c.desired
		if c.passed != nil {
			beats = nil
		}
		if c.sent != nil {
			wake = nil
		}
		if desired != nil && !c.session.out.free() {
			desired = nil
		}
		select {
		case err := <-received:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-ticker.C:
			if err := c.look(now); err != nil {
				return err
			}
			c.tell()
		case heartbeat := <-beats:
			c.pass(ctx, heartbeat)
		case <-c.passed:
			c.passed = nil
		case <-wake:
			c.send()
		case err := <-c.sent:
			if err != nil {
				return err
			}
			c.sent = nil
		case state, ok := <-desired:
			if !ok {
				return c.undesired(ctx)
			}
			c.session.out.putDesired(state)
		case <-c.session.out.drained:
		}
	}
}

// undesired is why the session ends when the source of desired state has closed.
func (c *conversation) undesired(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return status.Error(codes.Unavailable, fmt.Sprintf("desired state of cluster %q is not available now: dial again", c.session.cluster))
}

// look ends a session that has been silent for a TTL, so that the cluster does not
// look connected, and one whose agent is not believed any more, whatever it sends;
// and one that was begun with a sealed hub, so that the agent learns the incarnation.
func (c *conversation) look(now time.Time) error {
	s := c.server
	if err := s.admitted(c.session.id, c.session.cluster); err != nil {
		return err
	}
	if c.sealed && !s.config.Sealed() {
		return status.Error(codes.Unavailable, "the restored hub was approved: dial again")
	}
	s.registry.mu.Lock()
	silent := now.Sub(c.session.heard)
	s.registry.mu.Unlock()
	if silent > s.config.Lease.TTL {
		return status.Errorf(codes.DeadlineExceeded, "no heartbeat for %v", silent.Round(time.Millisecond))
	}
	return nil
}

// tell tells the agent who the members are, and which CAs the hub trusts, if that is
// news. A sealed hub tells nothing.
func (c *conversation) tell() {
	s := c.server
	if s.config.Sealed() {
		return
	}
	if s.config.Authorities != nil {
		if now := s.config.Authorities(); !proto.Equal(c.trusted, now) {
			c.session.out.putAuthorities(now)
			c.trusted = now
		}
	}
	members := &agentv1.HubMembers{}
	for _, m := range s.peers.members() {
		members.Members = append(members.Members, &agentv1.HubMember{Name: m.Name, Address: m.Address})
	}
	if len(members.Members) > 0 && !proto.Equal(c.told, members) {
		c.session.out.putMembers(members)
		c.told = members
	}
}

// send empties the outbox.
func (c *conversation) send() {
	sent := make(chan error, 1)
	c.sent = sent
	c.server.talkers.Go(func() { sent <- c.session.out.drain(c.stream.Send) })
}

// pass brings a heartbeat to the leader and the grant back. A sealed hub drops it.
func (c *conversation) pass(ctx context.Context, heartbeat *agentv1.Heartbeat) {
	if c.sealed {
		return
	}
	passed := make(chan struct{})
	c.passed = passed
	go func() {
		defer close(passed)
		c.server.passOn(ctx, c.session, heartbeat)
	}()
}

// passOn brings a heartbeat to the leader and the grant back. While the leader does
// not answer it tries again: until the deadline that the agent counts by, the same
// question is still worth an answer, unless a newer one waits.
func (s *Server) passOn(ctx context.Context, session *agentSession, heartbeat *agentv1.Heartbeat) {
	asked := time.Now()
	for {
		grant, err := s.uplink.hear(ctx, session.cluster, heartbeat, time.Since(asked))
		if err == nil {
			if grant.GetSeq() != 0 {
				s.metrics.grants.WithLabelValues(session.cluster).Inc()
				session.out.putGrant(grant)
			}
			return
		}
		if ctx.Err() != nil || len(session.beats) > 0 || time.Since(asked) > s.config.Lease.TTL {
			s.metrics.unanswered.WithLabelValues(session.cluster).Inc()
			return
		}
		if !s.uplink.pause(ctx) {
			return
		}
	}
}
