package session_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/rest"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// TestADeniedAgentLosesWhatIsOpen: its sessions, also one that is kept open and says
// nothing, its tunnels and the streams in them; and none of them comes again.
// Everything is asked once a tick, which with the list's way here is under 5 s.
func TestADeniedAgentLosesWhatIsOpen(t *testing.T) {
	f := newFleet(t)
	api := apiServer(t, nil)
	backend := &rest.Config{Host: api.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	denied, other := f.join("north-1", "r1", nil), f.join("north-2", "r1", nil)
	f.tunnel("north-1", "r1", backend)
	f.tunnel("north-2", "r1", backend)
	f.reachable("north-1")
	f.reachable("north-2")
	eventually(t, "sessions", func() bool { return denied.sessions.Connected() == 3 && other.sessions.Connected() == 3 })
	silent, err := open(t, f, "north-1", "r2")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := f.members["b"].server.Dial(t.Context(), "north-1")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()

	f.deny("tripod:agent:north-1")
	for err = nil; err == nil; {
		_, err = silent.Recv()
	}
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("a session that says nothing ended with %v, want that it is denied", err)
	}
	if _, err := stream.Read(make([]byte, 1)); err == nil {
		t.Error("a stream in the tunnel goes on")
	}
	eventually(t, "nothing open", func() bool {
		for _, m := range f.members {
			if conn, err := m.server.Dial(context.Background(), "north-1"); err == nil {
				_ = conn.Close()
				return false
			}
		}
		return denied.sessions.Connected() == 0
	})
	if _, err := open(t, f, "north-1", "r3"); status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != `user "tripod:agent:north-1" is denied` {
		t.Errorf("it comes again and is told %v", err)
	}
	if other.sessions.Connected() != 3 {
		t.Error("another agent lost its sessions")
	}
	f.reachable("north-2")
}

// TestADeniedAgentThatReadsNothingLosesItsSession: what the member cannot send must not
// keep the session.
func TestADeniedAgentThatReadsNothingLosesItsSession(t *testing.T) {
	f := newFleet(t)
	f.stuck("north-9")
	a := f.members["a"].server
	if p := a.Presence(); len(p) != 1 {
		t.Fatalf("sessions before it is denied: %v", p)
	}
	f.deny("tripod:agent:north-9")
	eventually(t, "an end of the session", func() bool { return len(a.Presence()) == 0 })
}

// TestADeniedGuardGetsNoProof: neither on the stream that it has nor on another.
func TestADeniedGuardGetsNoProof(t *testing.T) {
	const name = "tripod:guard:north-1:pay:ledger"
	f := newFleet(t)
	stream, err := f.attach("a", name, "tripod:guards")
	if err != nil {
		t.Fatal(err)
	}
	f.deny(name)
	if err := stream.Send(&agentv1.GuardMessage{Kind: &agentv1.GuardMessage_Ask{Ask: &agentv1.ProofRequest{Seq: 7}}}); err != nil {
		t.Fatal(err)
	}
	if order, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v, %v", order, err)
	}
	if _, err := f.attach("a", name, "tripod:guards"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("it comes again and is told %v", err)
	}
}
