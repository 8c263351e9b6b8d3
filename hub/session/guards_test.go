package session_test

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// attach makes a guard's stream to a member.
func (f *fleet) attach(member, commonName, organisation string) (agentv1.Guards_AttachClient, error) {
	f.t.Helper()
	conn, err := grpc.NewClient(f.address(member), grpc.WithTransportCredentials(credentials.NewTLS(f.ca.client(commonName, organisation))))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	f.t.Cleanup(cancel)
	stream, err := agentv1.NewGuardsClient(conn).Attach(ctx)
	if err != nil {
		return nil, err
	}
	_ = stream.Send(&agentv1.GuardMessage{Kind: &agentv1.GuardMessage_Hello{Hello: &agentv1.GuardHello{Pod: "db-0"}}})
	_, err = stream.Recv()
	return stream, err
}

func TestAGuardThatNoAgentAnswersAsksTheHub(t *testing.T) {
	f := newFleet(t)
	for _, name := range []string{"a", "b"} { // the leader, and one that relays
		stream, err := f.attach(name, "tripod:guard:north-1:pay:ledger", "tripod:guards")
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&agentv1.GuardMessage{Kind: &agentv1.GuardMessage_Ask{Ask: &agentv1.ProofRequest{Seq: 7}}}); err != nil {
			t.Fatal(err)
		}
		order, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		proof := order.GetProof()
		if proof.GetSeq() != 7 || proof.GetRemainingMillis() != times().TTL.Milliseconds() || proof.GetIncarnation() != 1 {
			t.Errorf("got %v", proof)
		}
		if proof.GetRole().GetDataset().GetName() != "ledger" || proof.GetRole().GetRole() != agentv1.Role_ROLE_PRIMARY {
			t.Errorf("the proof is of another dataset: %v", proof.GetRole())
		}
	}
	if f.members["a"].heardThrough("b") != 1 {
		t.Error("the question of a guard does not count as hearing its cluster")
	}
}

func TestOnlyGuardsMayAskForProofs(t *testing.T) {
	f := newFleet(t)
	if _, err := f.attach("a", "tripod:agent:north-1", "tripod:agents"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("an agent: %v", err)
	}
	// And a guard may have no session.
	conn, err := grpc.NewClient(f.address("a"), grpc.WithTransportCredentials(credentials.NewTLS(f.ca.client("tripod:guard:north-1:pay:ledger", "tripod:guards"))))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	stream, err := agentv1.NewSessionsClient(conn).Session(t.Context())
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("a guard opens a session: %v", err)
	}
}
