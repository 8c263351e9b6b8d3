package effector_test

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/member-agent/effector"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// counting is a driver that counts what it is told.
type counting struct {
	mu    sync.Mutex
	calls []string
	looks sync.Map      // how often each dataset was observed, by name: *atomic.Int64
	slow  chan struct{} // Resync waits for it
	held  atomic.Int64  // position of the replica
	state atomic.Value  // of the replica, a driver.State; Streaming if it has none
}

func (c *counting) note(verb string, call driver.Call) (driver.Observation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, fmt.Sprintf("%s %d %v", verb, call.Epoch, call.SyncSet))
	return driver.Observation{Role: driver.RolePrimary, State: driver.StateRunning, Epoch: call.Epoch}, nil
}
func (c *counting) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.calls, "; ")
}
func (c *counting) Identity() driver.Identity { return driver.Identity{Name: "counting"} }
func (c *counting) looked(name string) *atomic.Int64 {
	n, _ := c.looks.LoadOrStore(name, &atomic.Int64{})
	return n.(*atomic.Int64)
}
func (c *counting) Observe(_ context.Context, d driver.Dataset) driver.Observation {
	c.looked(d.Name).Add(1)
	state, ok := c.state.Load().(driver.State)
	if !ok {
		state = driver.StateStreaming
	}
	return driver.Observation{Role: driver.RoleReplica, State: state, Epoch: 1, Position: driver.Position{Text: "here", Bytes: c.held.Load()}}
}
func (c *counting) Promote(_ context.Context, call driver.Call) (driver.Observation, error) {
	return c.note("promote", call)
}
func (c *counting) Demote(_ context.Context, call driver.Call) (driver.Observation, error) {
	return c.note("demote", call)
}
func (c *counting) Fence(_ context.Context, call driver.Call) (driver.Observation, error) {
	return c.note("fence", call)
}
func (c *counting) Probe(_ context.Context, call driver.Call) (driver.Probed, error) {
	_, err := c.note("probe", call)
	return driver.Probed{Listening: true, Message: "read-only"}, err
}
func (c *counting) Resync(ctx context.Context, call driver.Call, _ bool) (driver.Resynced, error) {
	if c.slow != nil {
		select {
		case <-c.slow:
		case <-ctx.Done():
			_, _ = c.note("interrupted resync", call)
			return driver.Resynced{}, ctx.Err()
		}
	}
	o, err := c.note("resync", call)
	return driver.Resynced{Method: driver.MethodCopy, Observation: o}, err
}
func (c *counting) SetSyncSet(_ context.Context, call driver.Call) (driver.Observation, error) {
	return c.note("sync", call)
}

type agent struct {
	*effector.Effector
	driver *counting
	active atomic.Bool
	ca     hub
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	counting := &counting{}
	a := newAgentOf(t, counting)
	a.driver = counting
	return a
}

// newAgentOf has a tick that never comes.
func newAgentOf(t *testing.T, d driver.Driver) *agent {
	t.Helper()
	a := &agent{ca: newHub(t)}
	a.active.Store(true)
	var err error
	a.Effector, err = effector.New(effector.Config{Cluster: "north-1", Replica: "agent-0", Listen: "127.0.0.1:0",
		Identity: a.ca.agent(t, "north-1"), Certificates: a.ca, Secrets: &secrets{data: map[string]map[string][]byte{}, dir: t.TempDir()},
		Active: a.active.Load, Tick: time.Hour, Drivers: map[string]driver.Driver{"counting": d}})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); must(t, <-done) })
	return a
}

func (a *agent) grant(revision, epoch int64, role agentv1.Role) {
	a.Grant(&agentv1.Grant{Incarnation: 1, Revision: revision, Roles: []*agentv1.RoleGrant{{Dataset: dataset, Epoch: epoch, Role: role, Driver: "counting"}}},
		time.Now().Add(time.Minute))
}

func directive(id string, verb agentv1.Verb, epoch, revision int64) *agentv1.Directive {
	return &agentv1.Directive{Id: id, Incarnation: 1, Epoch: epoch, Revision: revision, Dataset: dataset, Verb: verb, DeadlineMillis: 200,
		Role: &agentv1.RoleGrant{Driver: "counting", Primary: "north-2", PrimaryAddress: "10.0.0.2:5432", SyncSet: []string{"north-1"}}}
}

func (a *agent) want(t *testing.T, d *agentv1.Directive, want agentv1.Outcome, said string) {
	t.Helper()
	if r := a.Carry(context.Background(), d); r.GetOutcome() != want {
		t.Errorf("%v: %v %s, want %v", d.GetVerb(), r.GetOutcome(), r.GetMessage(), want)
	}
	if got := a.driver.said(); got != said {
		t.Errorf("the driver was told %q, want %q", got, said)
	}
}

const (
	done    = agentv1.Outcome_OUTCOME_DONE
	refused = agentv1.Outcome_OUTCOME_REFUSED
	failed  = agentv1.Outcome_OUTCOME_FAILED
)

func TestADirectiveDoneTwiceIsDoneOnce(t *testing.T) {
	a := newAgent(t)
	a.want(t, directive("run/fence/1", agentv1.Verb_VERB_FENCE, 2, 0), done, "fence 2 [north-1]")
	a.want(t, directive("run/fence/1", agentv1.Verb_VERB_FENCE, 2, 0), done, "fence 2 [north-1]")
}

func TestOlderDecisionsAreRefused(t *testing.T) {
	a := newAgent(t)
	a.want(t, directive("1", agentv1.Verb_VERB_SET_SYNC_SET, 3, 40), done, "sync 3 [north-1]")
	a.want(t, directive("2", agentv1.Verb_VERB_SET_SYNC_SET, 2, 50), refused, "sync 3 [north-1]")
	a.want(t, directive("3", agentv1.Verb_VERB_SET_SYNC_SET, 3, 39), refused, "sync 3 [north-1]")
	old := directive("4", agentv1.Verb_VERB_FENCE, 3, 41)
	old.Incarnation = 0
	a.want(t, old, refused, "sync 3 [north-1]")
	a.want(t, directive("5", agentv1.Verb_VERB_SET_SYNC_SET, 4, 1), done, "sync 3 [north-1]; sync 4 [north-1]")
	// A hub that was restored from a backup counts its revisions from there.
	a.want(t, directive("6", agentv1.Verb_VERB_SET_SYNC_SET, 4, 30), done, "sync 3 [north-1]; sync 4 [north-1]; sync 4 [north-1]")
	restored := directive("7", agentv1.Verb_VERB_SET_SYNC_SET, 4, 20)
	restored.Incarnation++
	a.want(t, restored, done, "sync 3 [north-1]; sync 4 [north-1]; sync 4 [north-1]; sync 4 [north-1]")
}

func TestAReplicaOfTheAgentThatIsNotActiveDoesNothing(t *testing.T) {
	a := newAgent(t)
	a.active.Store(false)
	a.want(t, directive("1", agentv1.Verb_VERB_FENCE, 2, 0), failed, "")
}

func TestAProbeThatCouldNotWriteIsNoSuccess(t *testing.T) {
	a := newAgent(t)
	a.want(t, directive("1", agentv1.Verb_VERB_PROBE, 2, 0), failed, "probe 2 [north-1]")
}

func TestAPromotionWaitsForAGrantOfItsEpoch(t *testing.T) {
	a := newAgent(t)
	a.grant(1, 1, agentv1.Role_ROLE_REPLICA)
	a.want(t, directive("1", agentv1.Verb_VERB_PROMOTE, 2, 0), failed, "")
	a.grant(2, 2, agentv1.Role_ROLE_REPLICA)
	a.want(t, directive("1", agentv1.Verb_VERB_PROMOTE, 2, 0), done, "promote 2 [north-1]")
	a.grant(3, 3, agentv1.Role_ROLE_REPLICA)
	a.want(t, directive("2", agentv1.Verb_VERB_PROMOTE, 2, 0), refused, "promote 2 [north-1]")
}

func TestAReplicaCatchesUpWithAPosition(t *testing.T) {
	a := newAgent(t)
	ask := func(id string, position int64) *agentv1.DirectiveResult {
		d := directive(id, agentv1.Verb_VERB_CATCH_UP, 2, 0)
		d.PositionBytes = position
		return a.Carry(context.Background(), d)
	}
	a.driver.held.Store(99)
	if r := ask("1", 100); r.GetOutcome() != failed || !strings.Contains(r.GetMessage(), "99") {
		t.Errorf("behind: %v %s", r.GetOutcome(), r.GetMessage())
	}
	answered := make(chan *agentv1.DirectiveResult)
	go func() { answered <- ask("2", 100) }()
	a.driver.held.Store(100)
	if r := <-answered; r.GetOutcome() != done || r.GetObservation().GetPositionBytes() != 100 {
		t.Errorf("caught up: %v %s", r.GetOutcome(), r.GetMessage())
	}
	// What a guard remembers of an earlier stop is no word about now.
	a.driver.state.Store(driver.StateUnknown)
	if r := ask("3", 100); r.GetOutcome() != failed {
		t.Errorf("a copy that does not answer: %v %s", r.GetOutcome(), r.GetMessage())
	}
	if r := ask("4", 0); r.GetOutcome() != refused {
		t.Errorf("no position: %v %s", r.GetOutcome(), r.GetMessage())
	}
	a.driver.state.Store(driver.StateStreaming)
	if r := a.Carry(context.Background(), directive("5", agentv1.Verb_VERB_SET_SYNC_SET, 3, 0)); r.GetOutcome() != done {
		t.Fatal(r)
	}
	if r := ask("6", 100); r.GetOutcome() != refused {
		t.Errorf("at an epoch that is over: %v %s", r.GetOutcome(), r.GetMessage())
	}
}

func TestAPrimaryIsClosedAtItsOwnEpochAndInTheOrderOfDecisions(t *testing.T) {
	a := newAgent(t)
	a.want(t, directive("1", agentv1.Verb_VERB_CLOSE, 2, 10), done, "demote 2 [north-1]")
	a.want(t, directive("2", agentv1.Verb_VERB_SET_SYNC_SET, 2, 11), done, "demote 2 [north-1]; sync 2 [north-1]")
	a.want(t, directive("3", agentv1.Verb_VERB_CLOSE, 2, 10), refused, "demote 2 [north-1]; sync 2 [north-1]")
	a.want(t, directive("4", agentv1.Verb_VERB_CLOSE, 1, 12), refused, "demote 2 [north-1]; sync 2 [north-1]")
}

func TestACopyGoesOnAfterItsDirectiveAndAFenceEndsIt(t *testing.T) {
	a := newAgent(t)
	a.driver.slow = make(chan struct{})
	a.want(t, directive("1", agentv1.Verb_VERB_FOLLOW, 2, 0), failed, "")
	if r := a.Carry(context.Background(), directive("2", agentv1.Verb_VERB_SET_SYNC_SET, 2, 0)); r.GetOutcome() != failed ||
		!strings.Contains(r.GetMessage(), "work under way") {
		t.Errorf("beside the copy: %v %s", r.GetOutcome(), r.GetMessage())
	}
	if r := a.Carry(context.Background(), directive("3", agentv1.Verb_VERB_FENCE, 3, 0)); r.GetOutcome() != done {
		t.Errorf("the fence waited: %v %s", r.GetOutcome(), r.GetMessage())
	}
	wait(t, 5*time.Second, "the copy has ended", func() bool { return strings.Contains(a.driver.said(), "interrupted resync 2") })
}

func TestAGuardOfAnotherClusterIsTurnedAway(t *testing.T) {
	a := newAgent(t)
	other := newHub(t)
	tests := map[string]struct {
		ca   hub
		name pkix.Name
		want codes.Code
	}{
		"a guard of this cluster":              {a.ca, pkix.Name{CommonName: "tripod:guard:north-1:pay:ledger-db", Organization: []string{"tripod:guards"}}, codes.OK},
		"a guard of another cluster":           {a.ca, pkix.Name{CommonName: "tripod:guard:north-2:pay:ledger-db", Organization: []string{"tripod:guards"}}, codes.PermissionDenied},
		"an agent is no guard":                 {a.ca, pkix.Name{CommonName: "tripod:agent:north-1", Organization: []string{"tripod:agents"}}, codes.PermissionDenied},
		"a guard's name from another hub's CA": {other, pkix.Name{CommonName: "tripod:guard:north-1:pay:ledger-db", Organization: []string{"tripod:guards"}}, codes.Unavailable},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			pair := tt.ca.Issue(t, tt.name.CommonName, tt.name.Organization...)
			conn, err := grpc.NewClient(a.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
				Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true})))
			must(t, err)
			defer conn.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			stream, err := agentv1.NewGuardsClient(conn).Attach(ctx)
			if err == nil {
				_ = stream.Send(&agentv1.GuardMessage{Kind: &agentv1.GuardMessage_Hello{Hello: &agentv1.GuardHello{Address: "127.0.0.1:1"}}})
				_, err = stream.Recv()
			}
			if got := status.Code(err); got != tt.want {
				t.Errorf("got %v (%v), want %v", got, err, tt.want)
			}
		})
	}
}
