package session_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	agentsession "tripod.dev/tripod/member-agent/session"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

func TestHeartbeatsReachTheLeaderThroughAnotherMember(t *testing.T) {
	f := newFleet(t)
	r := f.join("north-1", "r1", func(c *agentsession.Config, r *replica) { r.cut[f.address("a")] = true })
	eventually(t, "a grant although the leader cannot be reached directly", func() bool { return r.granted() > 3 })
	leader := f.members["a"]
	if n := leader.heardThrough("a"); n != 0 {
		t.Errorf("the leader heard %d heartbeats itself; the cut does not work", n)
	}
	eventually(t, "both other members relay", func() bool { return leader.heardThrough("b") > 0 && leader.heardThrough("c") > 0 })
}

func TestANewLeaderAnswersAtOnce(t *testing.T) {
	f := newFleet(t)
	r := f.join("north-1", "r1", nil)
	eventually(t, "a first grant", func() bool { return r.granted() > 0 })
	f.crown("")
	f.crown("c")
	eventually(t, "the new leader hears through every member", func() bool {
		c := f.members["c"]
		return c.heardThrough("a") > 0 && c.heardThrough("b") > 0 && c.heardThrough("c") > 0
	})
}

func TestMembersTellTheLeaderThatTheyAreThere(t *testing.T) {
	f := newFleet(t)
	eventually(t, "presence of all vantages without any agent", func() bool {
		a := f.members["a"]
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.presences["a"] > 1 && a.presences["b"] > 1 && a.presences["c"] > 1
	})
}

func TestLateGrantsDoNotExtend(t *testing.T) {
	f := newFleet(t)
	leader := f.members["a"]
	hold := make(chan struct{})
	leader.mu.Lock()
	leader.hold = hold
	leader.mu.Unlock()
	var mu sync.Mutex
	var asked []time.Time // by number, from 1
	r := f.join("north-1", "r1", func(c *agentsession.Config, r *replica) {
		c.Heartbeat = func() *agentv1.Heartbeat {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, time.Now())
			return &agentv1.Heartbeat{Observable: true}
		}
	})
	late := times().Tick / 2
	eventually(t, "a heartbeat waits at the leader", func() bool { return leader.heardThrough("a") > 0 })
	<-time.After(late)
	close(hold)
	eventually(t, "the grant", func() bool { return r.granted() > 0 })
	r.mu.Lock()
	defer r.mu.Unlock()
	mu.Lock()
	defer mu.Unlock()
	question := asked[r.grants[0].GetSeq()-1]
	if over := r.first.Sub(question.Add(times().TTL)); over >= late {
		t.Errorf("the deadline is %v later than a TTL after the question, which was answered at least %v late", over, late)
	}
}

func TestALowerIncarnationIsRefused(t *testing.T) {
	f := newFleet(t)
	f.members["a"].incarnation.Store(2)
	remembered := make(chan uint64, 16)
	r := f.join("north-1", "r1", func(c *agentsession.Config, r *replica) {
		c.Remember = func(incarnation uint64) { remembered <- incarnation }
	})
	eventually(t, "a grant of incarnation 2", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.grants) > 0 && r.grants[len(r.grants)-1].GetIncarnation() == 2
	})
	for got := uint64(0); got != 2; got = <-remembered {
	}
	// The old members take over; nothing they say counts.
	f.crown("b")
	r.cutOff(f.address("a"))
	eventually(t, "the new leader is asked or nobody can ask it", func() bool { return r.sessions.Connected() < 3 })
	before := r.granted()
	<-time.After(5 * times().Tick)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.grants[before:] {
		if g.GetIncarnation() < 2 {
			t.Fatalf("a grant of incarnation %d was used", g.GetIncarnation())
		}
	}
	// And a session that starts afresh with what was remembered is refused.
	late := f.join("north-1", "r2", func(c *agentsession.Config, r *replica) {
		c.Incarnation = 2
		r.cut[f.address("a")] = true
	})
	<-time.After(5 * times().Tick)
	if late.sessions.Connected() != 0 || late.granted() != 0 {
		t.Errorf("a replica that remembers incarnation 2 has %d sessions and %d grants of a hub of incarnation 1",
			late.sessions.Connected(), late.granted())
	}
}

func TestAClusterThatIsNotAcceptedIsToldWhy(t *testing.T) {
	f := newFleet(t)
	f.refuse("north-9", errors.New("cluster \"north-9\" is Pending: accept it"))
	_, err := open(t, f, "north-9", "r1")
	if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != "cluster \"north-9\" is Pending: accept it" {
		t.Errorf("got %v", err)
	}
	// And one that was accepted ends when it no longer is.
	r := f.join("north-1", "r1", nil)
	eventually(t, "sessions", func() bool { return r.sessions.Connected() == 3 })
	f.refuse("north-1", errors.New("gone"))
	eventually(t, "no session", func() bool { return r.sessions.Connected() == 0 && len(f.members["a"].server.Presence()) == 0 })
}

// open makes one bare session, to see what the server says.
func open(t *testing.T, f *fleet, cluster, name string) (agentv1.Sessions_SessionClient, error) {
	t.Helper()
	conn, err := grpc.NewClient(f.address("a"), grpc.WithTransportCredentials(credentials.NewTLS(f.ca.agent(cluster))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience) // what waits for an end waits less
	t.Cleanup(cancel)
	stream, err := agentv1.NewSessionsClient(conn).Session(ctx)
	if err != nil {
		return nil, err
	}
	_ = stream.Send(&agentv1.AgentMessage{Kind: &agentv1.AgentMessage_Hello{Hello: &agentv1.Hello{Replica: name}}})
	_, err = stream.Recv()
	return stream, err
}

func TestOnlyMembersMayRelay(t *testing.T) {
	f := newFleet(t)
	conn, err := grpc.NewClient(f.address("a"), grpc.WithTransportCredentials(credentials.NewTLS(f.ca.agent("north-1"))))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := hubv1.NewPeerClient(conn).Relay(ctx, &hubv1.RelayRequest{Member: "b"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("an agent relays: %v", err)
	}
	if _, err := hubv1.NewPeerClient(conn).Direct(ctx, &hubv1.DirectRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("an agent directs: %v", err)
	}
}

func TestADirectiveIsDoneOnceAndItsResultComesBack(t *testing.T) {
	f := newFleet(t)
	release := make(chan struct{})
	r := f.join("north-1", "r1", func(c *agentsession.Config, r *replica) {
		r.active.Store(true)
		r.carry = func(ctx context.Context, d *agentv1.Directive) *agentv1.DirectiveResult {
			<-release
			return &agentv1.DirectiveResult{Outcome: agentv1.Outcome_OUTCOME_DONE, Message: d.GetStep()}
		}
	})
	eventually(t, "active everywhere", func() bool {
		for _, m := range f.members {
			if p := m.server.Presence(); len(p) != 1 || !p[0].Active {
				return false
			}
		}
		return true
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	directive := &agentv1.Directive{Id: "run/promote/1", Step: "promote", Incarnation: 1}
	results := make(chan *agentv1.DirectiveResult, 6)
	for _, name := range []string{"a", "b", "c", "a", "b", "c"} {
		go func() {
			result, err := f.members[name].server.Direct(ctx, "north-1", directive)
			if err != nil {
				t.Error(err)
			}
			results <- result
		}()
	}
	close(release)
	for range 6 {
		if result := <-results; result.GetOutcome() != agentv1.Outcome_OUTCOME_DONE || result.GetMessage() != "promote" {
			t.Errorf("got %v", result)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.carried != 1 {
		t.Errorf("the directive was carried out %d times", r.carried)
	}
}

// A replica that lost its part may hang in what it began for as long as the directive
// lasts, which for a drill is a quarter of an hour.
func TestADirectiveDoesNotOutliveTheTenureOfItsReplica(t *testing.T) {
	f := newFleet(t)
	begun := make(chan struct{}, 3)
	r := f.join("north-1", "r1", func(_ *agentsession.Config, r *replica) {
		r.active.Store(true)
		r.carry = func(ctx context.Context, _ *agentv1.Directive) *agentv1.DirectiveResult {
			begun <- struct{}{}
			<-ctx.Done()
			return &agentv1.DirectiveResult{Outcome: agentv1.Outcome_OUTCOME_FAILED}
		}
	})
	eventually(t, "active at a", func() bool {
		p := f.members["a"].server.Presence()
		return len(p) == 1 && p[0].Active
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go func() {
		<-begun
		r.active.Store(false)
	}()
	result, err := f.members["a"].server.Direct(ctx, "north-1", &agentv1.Directive{Id: "run/drill/1", Incarnation: 1, DeadlineMillis: time.Hour.Milliseconds()})
	if err != nil || result.GetOutcome() != agentv1.Outcome_OUTCOME_UNREACHABLE || !strings.Contains(result.GetMessage(), "stopped being the active one") {
		t.Errorf("got %v, %v", result, err)
	}
}

func TestADirectiveGoesThroughTheMemberThatHearsTheAgent(t *testing.T) {
	f := newFleet(t)
	f.join("north-1", "r1", func(c *agentsession.Config, r *replica) {
		r.active.Store(true)
		r.cut[f.address("a")], r.cut[f.address("b")] = true, true
	})
	eventually(t, "active at c", func() bool {
		p := f.members["c"].server.Presence()
		return len(p) == 1 && p[0].Active
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	result, err := f.members["a"].server.Direct(ctx, "north-1", &agentv1.Directive{Id: "run/fence/1", Incarnation: 1})
	if err != nil || result.GetOutcome() != agentv1.Outcome_OUTCOME_DONE {
		t.Errorf("got %v, %v", result, err)
	}
	result, err = f.members["a"].server.Direct(ctx, "south-1", &agentv1.Directive{Id: "run/fence/2", Incarnation: 1})
	if err != nil || result.GetOutcome() != agentv1.Outcome_OUTCOME_UNREACHABLE {
		t.Errorf("a cluster that nobody hears: got %v, %v", result, err)
	}
}

func TestTheActiveReplicaStreamsTheView(t *testing.T) {
	f := newFleet(t)
	r1 := f.join("north-1", "r1", nil)
	a := f.members["a"]
	eventually(t, "the only replica streams", func() bool { return a.saw("north-1/r1 pods") })
	r2 := f.join("north-1", "r2", func(c *agentsession.Config, r *replica) { r.active.Store(true) })
	eventually(t, "the active one takes over", func() bool { return a.saw("north-1/r1 gone") && a.saw("north-1/r2 pods") })
	r2.stop()
	r1.active.Store(true)
	eventually(t, "and back", func() bool { return a.saw("north-1/r2 gone") })
}

func TestDesiredStateGoesToEverySession(t *testing.T) {
	f := newFleet(t)
	f.desired["north-1"] = make(chan *agentv1.DesiredState)
	r := f.join("north-1", "r1", nil)
	for range 3 { // one for each member's session: they take from one channel here
		f.desired["north-1"] <- &agentv1.DesiredState{Incarnation: 1, Revision: 7}
	}
	eventually(t, "desired state", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.desired == 3
	})
}

func TestAnAgentThatDoesNotReadHoldsUpNobody(t *testing.T) {
	f := newFleet(t)
	f.stuck("north-9")
	r := f.join("north-1", "r1", nil)
	eventually(t, "grants for the other cluster", func() bool { return r.granted() > 3 })
}

// stuck is an agent of which member a waits to send more.
func (f *fleet) stuck(cluster string) {
	f.t.Helper()
	f.desired[cluster] = make(chan *agentv1.DesiredState)
	if _, err := open(f.t, f, cluster, "stuck"); err != nil { // and never reads again
		f.t.Fatal(err)
	}
	// Fill its window, its outbox and its source.
	big := &agentv1.DesiredState{Incarnation: 1, Objects: []*agentv1.DesiredObject{{Manifest: make([]byte, 1<<20)}}}
	for {
		select {
		case f.desired[cluster] <- big:
		case <-time.After(500 * time.Millisecond):
			return
		}
	}
}

func TestASilentSessionEnds(t *testing.T) {
	f := newFleet(t)
	a := f.members["a"].server
	eventually(t, "an end for its silence", func() bool {
		begun := time.Now() // before the member begins to count
		stream, err := open(t, f, "north-1", "mute")
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = stream.Recv()
		}
		// On a machine that stands still gRPC's own pings are late, and end it first.
		if status.Code(err) != codes.DeadlineExceeded {
			t.Log(err)
			return false
		}
		if lived := time.Since(begun); lived < times().TTL {
			t.Errorf("a session ended after %v, before a TTL without heartbeats", lived)
		}
		return true
	})
	eventually(t, "the member has forgotten it", func() bool { return len(a.Presence()) == 0 })
}
