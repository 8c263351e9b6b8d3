package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

var errReplaced = status.Error(codes.Aborted, "a newer session of the same replica has taken over")

// Session implements agentv1.SessionsServer.
func (s *Server) Session(stream agentv1.Sessions_SessionServer) error {
	id, err := s.agentOf(s.identify(stream.Context()))
	if err != nil {
		s.metrics.refused.Inc()
		return err
	}
	hello, err := s.greet(stream)
	if err != nil {
		s.metrics.refused.Inc()
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	session := &agentSession{
		id: id, cluster: id.Cluster, replica: hello.GetReplica(), out: newOutbox(), cancel: cancel, done: ctx.Done(),
		beats: make(chan *agentv1.Heartbeat, 1),
	}
	if old := s.registry.add(session, time.Now()); old != nil {
		old.cancel(errReplaced)
	}
	defer s.registry.remove(session)
	log := s.config.Logger.With("cluster", session.cluster, "replica", session.replica)
	log.Info("session opened")
	err = s.carry(ctx, session, stream)
	log.Info("session closed", "error", err)
	return err
}

// greet exchanges Hello and Welcome. A hub that is older than what the cluster
// has seen is no hub for it (safety.md section 9).
func (s *Server) greet(stream agentv1.Sessions_SessionServer) (*agentv1.Hello, error) {
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	hello := first.GetHello()
	if hello.GetReplica() == "" {
		return nil, status.Error(codes.InvalidArgument, "the first message of a session must be Hello with the replica's name")
	}
	incarnation := s.config.Incarnation()
	if hello.GetIncarnation() > incarnation {
		return nil, status.Errorf(codes.FailedPrecondition,
			"hub member %q is of incarnation %d, the cluster has seen %d: this member was left behind by a recovery and must rejoin as new",
			s.config.Name, incarnation, hello.GetIncarnation())
	}
	if s.config.Sealed() {
		// The hub that was restored may be given up again in favour of another.
		incarnation = hello.GetIncarnation()
	}
	return hello, stream.Send(&agentv1.HubMessage{Kind: &agentv1.HubMessage_Welcome{Welcome: &agentv1.Welcome{
		Member: s.config.Name, Center: s.config.Center, Incarnation: incarnation,
		TickMillis: s.config.Lease.Tick.Milliseconds(), TtlMillis: s.config.Lease.TTL.Milliseconds(),
	}}})
}

// carry moves messages both ways until the session ends.
func (s *Server) carry(ctx context.Context, session *agentSession, stream agentv1.Sessions_SessionServer) error {
	group, ctx := errgroup.WithContext(ctx)
	// Recv returns only when the stream ends, that is after this function has
	// returned; so its goroutine is waited for by Run, not here.
	received := make(chan error, 1)
	s.receivers.Go(func() { received <- s.receive(session, stream) })
	group.Go(func() error {
		select {
		case err := <-received:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	group.Go(func() error { return session.out.run(ctx, stream.Send) })
	group.Go(func() error { return s.watchdog(ctx, session) })
	group.Go(func() error { return s.tellMembers(ctx, session) })
	if s.config.Sealed() {
		group.Go(func() error { return s.untilUnsealed(ctx, session) })
		return s.ended(ctx, group)
	}
	group.Go(func() error { return s.passOn(ctx, session) })
	if s.config.Desired != nil {
		group.Go(func() error { return s.streamDesired(ctx, session) })
	}
	return s.ended(ctx, group)
}

// ended waits for the end of a session and says why it ended.
func (s *Server) ended(ctx context.Context, group *errgroup.Group) error {
	err := group.Wait()
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	if errors.Is(err, context.Canceled) {
		return status.Error(codes.Unavailable, "the session ends: the hub member stops or the agent left")
	}
	return err
}

func (s *Server) receive(session *agentSession, stream agentv1.Sessions_SessionServer) error {
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := s.handle(session, message); err != nil {
			return err
		}
	}
}

// handle takes one message in the order of the stream. It must not block.
func (s *Server) handle(session *agentSession, message *agentv1.AgentMessage) error {
	switch kind := message.GetKind().(type) {
	case *agentv1.AgentMessage_Heartbeat:
		return s.beat(session, kind.Heartbeat)
	case *agentv1.AgentMessage_View:
		// A delta of a replica that was told to stop may still be on its way.
		if s.registry.streams(session) {
			s.config.View.Apply(session.cluster, session.replica, kind.View)
		}
	case *agentv1.AgentMessage_Facts:
		s.registry.setFacts(session.cluster, kind.Facts)
		s.config.View.Facts(session.cluster, kind.Facts)
	case *agentv1.AgentMessage_Applied:
		s.config.Applied.Applied(session.cluster, kind.Applied)
	case *agentv1.AgentMessage_Result:
		s.pending.resolve(session.cluster, kind.Result)
	case *agentv1.AgentMessage_Hello:
		return status.Error(codes.InvalidArgument, "Hello may only be the first message of a session")
	}
	return nil // a kind of a newer agent is ignored
}

func (s *Server) beat(session *agentSession, heartbeat *agentv1.Heartbeat) error {
	if err := s.admitted(session.id, session.cluster); err != nil {
		return err
	}
	s.metrics.heartbeats.WithLabelValues(session.cluster).Inc()
	heartbeat.Replica, heartbeat.Guard = session.replica, false
	s.registry.heard(session, heartbeat.GetActive(), time.Now())
	s.config.Heard(session.cluster, heartbeat)
	for {
		select {
		case session.beats <- heartbeat:
			return nil
		default:
		}
		select { // a newer question makes the one that still waits worthless
		case <-session.beats:
		default:
		}
	}
}

// passOn brings the newest heartbeat to the leader and the grant back, one at a
// time. While the leader does not answer it tries again: until the deadline
// that the agent counts by, the same question is still worth an answer.
func (s *Server) passOn(ctx context.Context, session *agentSession) error {
	for {
		var heartbeat *agentv1.Heartbeat
		select {
		case heartbeat = <-session.beats:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		asked := time.Now()
		for {
			grant, err := s.uplink.hear(ctx, session.cluster, aged(heartbeat, time.Since(asked)))
			if err == nil {
				if grant.GetSeq() != 0 {
					s.metrics.grants.WithLabelValues(session.cluster).Inc()
					session.out.putGrant(grant)
				}
				break
			}
			if ctx.Err() != nil || len(session.beats) > 0 || time.Since(asked) > s.config.Lease.TTL {
				s.metrics.unanswered.WithLabelValues(session.cluster).Inc()
				break
			}
			if !s.uplink.pause(ctx) {
				break
			}
		}
	}
}

// aged adds the time that a heartbeat waited here to the ages in it.
func aged(heartbeat *agentv1.Heartbeat, waited time.Duration) *agentv1.Heartbeat {
	if waited < 10*time.Millisecond || len(heartbeat.GetDatasets()) == 0 {
		return heartbeat
	}
	older := proto.CloneOf(heartbeat)
	for _, d := range older.GetDatasets() {
		d.AgeMillis += waited.Milliseconds()
	}
	return older
}

// watchdog ends a session that has been silent for a TTL, so that the cluster
// does not look connected, and one whose agent is not believed any more, whatever
// it sends.
func (s *Server) watchdog(ctx context.Context, session *agentSession) error {
	ticker := time.NewTicker(s.config.Lease.Tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-ticker.C:
			if err := s.admitted(session.id, session.cluster); err != nil {
				return err
			}
			s.registry.mu.Lock()
			silent := now.Sub(session.heard)
			s.registry.mu.Unlock()
			if silent > s.config.Lease.TTL {
				return status.Errorf(codes.DeadlineExceeded, "no heartbeat for %v", silent.Round(time.Millisecond))
			}
		}
	}
}

func (s *Server) streamDesired(ctx context.Context, session *agentSession) error {
	// The watch ends with this call, whatever ends it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	states := s.config.Desired.Watch(ctx, session.cluster)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case state, ok := <-states:
			if !ok {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return status.Error(codes.Unavailable, fmt.Sprintf("desired state of cluster %q is not available now: dial again", session.cluster))
			}
			if err := session.out.putDesired(ctx, state); err != nil {
				return err
			}
		}
	}
}

// untilUnsealed drops the questions of an agent while the hub is sealed, and ends
// the session when that is over, so that the agent learns the incarnation.
func (s *Server) untilUnsealed(ctx context.Context, session *agentSession) error {
	ticker := time.NewTicker(s.config.Lease.Tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-session.beats:
		case <-ticker.C:
			if !s.config.Sealed() {
				return status.Error(codes.Unavailable, "the restored hub was approved: dial again")
			}
		}
	}
}

// tellMembers tells the agent who the members are, and which CAs the hub trusts, now
// and when they change.
func (s *Server) tellMembers(ctx context.Context, session *agentSession) error {
	ticker := time.NewTicker(s.config.Lease.Tick)
	defer ticker.Stop()
	var told *agentv1.HubMembers
	var trusted *agentv1.HubAuthorities
	for {
		if s.config.Authorities != nil && !s.config.Sealed() {
			if now := s.config.Authorities(); !proto.Equal(trusted, now) {
				session.out.putAuthorities(now)
				trusted = now
			}
		}
		members := &agentv1.HubMembers{}
		for _, m := range s.peers.members() {
			members.Members = append(members.Members, &agentv1.HubMember{Name: m.Name, Address: m.Address})
		}
		if len(members.Members) > 0 && !s.config.Sealed() && !proto.Equal(told, members) {
			session.out.putMembers(members)
			told = members
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
