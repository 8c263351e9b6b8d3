package session

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	err = s.converse(ctx, session, stream)
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
		TickMillis: s.config.Lease.Tick.Milliseconds(), TtlMillis: s.config.Lease.TTL.Milliseconds(), Differences: true,
	}}})
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

func (s *Server) beat(session *agentSession, said *agentv1.Heartbeat) error {
	if err := s.admitted(session.id, session.cluster); err != nil {
		return err
	}
	heartbeat, err := session.listener.Whole(said)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
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
