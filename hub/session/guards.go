package session

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// guardReplica precedes the dataset in the name by which a guard is heard.
const guardReplica = "guard/"

// Attach implements agentv1.GuardsServer for a guard that no agent answers: a
// broken agent must not stop a healthy database (safety.md section 4). Its
// question renews the cluster's lease like a heartbeat; the answer holds the
// role of the guard's own dataset and nothing else. There are no commands here.
func (g guardService) Attach(stream agentv1.Guards_AttachServer) error {
	s := g.server
	id, err := s.identify(stream.Context())
	if err != nil {
		return err
	}
	if id.Guard == (GuardIdentity{}) {
		return status.Error(codes.PermissionDenied, "this call is for guards: the certificate must be one that the hub issued for a dataset's guard")
	}
	if err := s.admitted(id, id.Guard.Cluster); err != nil {
		return err
	}
	if first, err := stream.Recv(); err != nil {
		return err
	} else if first.GetHello() == nil {
		return status.Error(codes.InvalidArgument, "the first message of a guard must be its hello")
	}
	s.config.Logger.Warn("a guard asks the hub itself: no agent of its cluster answers it",
		"cluster", id.Guard.Cluster, "dataset", id.Guard.Namespace+"/"+id.Guard.Dataset)
	if err := stream.Send(&agentv1.GuardOrder{Kind: &agentv1.GuardOrder_Welcome{Welcome: &agentv1.GuardWelcome{Replica: s.config.Name}}}); err != nil {
		return err
	}
	return s.proveTo(id, stream)
}

// proveTo answers the newest question of the guard, one at a time, until the
// stream ends or the guard has been silent for a TTL.
func (s *Server) proveTo(id Identity, stream agentv1.Guards_AttachServer) error {
	asks := make(chan uint64, 1)
	received := make(chan error, 1)
	s.talkers.Go(func() { received <- receiveAsks(stream, asks) })
	group, ctx := errgroup.WithContext(stream.Context())
	group.Go(func() error {
		select {
		case err := <-received:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	group.Go(func() error {
		silence := time.NewTimer(s.config.Lease.TTL)
		defer silence.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-silence.C:
				return status.Error(codes.DeadlineExceeded, "the guard asks for nothing")
			case seq := <-asks:
				silence.Reset(s.config.Lease.TTL)
				if err := s.prove(ctx, id, seq, stream.Send); err != nil {
					return err
				}
			}
		}
	})
	return group.Wait()
}

func receiveAsks(stream agentv1.Guards_AttachServer, asks chan uint64) error {
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		ask := message.GetAsk()
		if ask == nil {
			continue
		}
		select { // only this goroutine fills it, so there is room after this
		case <-asks:
		default:
		}
		asks <- ask.GetSeq()
	}
}

// prove asks the leader and answers. A question that the leader does not answer
// is left open: the guard asks again, and counts from its own asking.
func (s *Server) prove(ctx context.Context, id Identity, seq uint64, send func(*agentv1.GuardOrder) error) error {
	guard := id.Guard
	if err := s.admitted(id, guard.Cluster); err != nil {
		return err
	}
	if s.config.Sealed() {
		return nil // as from a hub without a leader
	}
	grant, err := s.uplink.hear(ctx, guard.Cluster, &agentv1.Heartbeat{
		Seq: seq, Replica: guardReplica + guard.Namespace + "/" + guard.Dataset, Guard: true, Observable: true,
	}, 0)
	if err != nil || grant.GetSeq() == 0 {
		return ctx.Err()
	}
	proof := &agentv1.Proof{
		Seq: seq, RemainingMillis: grant.GetTtlMillis(), Incarnation: grant.GetIncarnation(), Revision: grant.GetRevision(),
	}
	for _, role := range grant.GetRoles() {
		if role.GetDataset().GetNamespace() == guard.Namespace && role.GetDataset().GetName() == guard.Dataset {
			proof.Role = role
		}
	}
	return send(&agentv1.GuardOrder{Kind: &agentv1.GuardOrder_Proof{Proof: proof}})
}

// guardService serves guards.
type guardService struct {
	agentv1.UnimplementedGuardsServer
	server *Server
}
