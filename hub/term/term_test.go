package term

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/failover/lease"
	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
	hubv1 "tripod.dev/tripod/proto/hub/v1"
	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store plays the replicated store of one member.
type store struct {
	mu        sync.Mutex
	kvs       []mvccpb.KeyValue
	revision  int64
	ranges    int
	proposals [][]string
	fail      error
	delay     time.Duration
	leases    *Leases
}

func (s *store) put(t *testing.T, kind, name string, object any) {
	t.Helper()
	value, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	key := DefaultPrefix + kind + "/" + name
	for i := range s.kvs {
		if string(s.kvs[i].Key) == key {
			s.kvs[i].Value, s.kvs[i].ModRevision = value, s.revision
			return
		}
	}
	s.kvs = append(s.kvs, mvccpb.KeyValue{Key: []byte(key), Value: value, CreateRevision: s.revision, ModRevision: s.revision})
}

func (s *store) Decrypt(_ context.Context, kv mvccpb.KeyValue) ([]byte, error) { return kv.Value, nil }

func (s *store) Range(_ context.Context, prefix string) ([]mvccpb.KeyValue, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ranges++
	var found []mvccpb.KeyValue
	for _, kv := range s.kvs {
		if len(kv.Key) > len(prefix) && string(kv.Key[:len(prefix)]) == prefix {
			found = append(found, kv)
		}
	}
	return found, s.revision, nil
}

func (s *store) Revision() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision
}

func (s *store) ProposeRenewal(ctx context.Context, r *raftlogv1.LeaseRenewal) (Applied, error) {
	if s.delay > 0 {
		<-time.After(s.delay)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return Applied{}, s.fail
	}
	s.proposals = append(s.proposals, r.GetClusters())
	if s.leases != nil {
		s.leases.Renewed(r.GetClusters(), s.revision, time.Duration(r.GetSteadyMillis())*time.Millisecond)
	}
	return Applied{Term: 7, Revision: s.revision}, nil
}

func (s *store) proposed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.proposals)
}

func cluster(name string) *v1alpha1.Cluster {
	return &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.ClusterSpec{Region: "north", Center: name, Admission: v1alpha1.AdmissionAccepted}}
}

func dataset(phase v1alpha1.DatasetPhase, primary, previous string, epoch int64) *v1alpha1.Dataset {
	return &v1alpha1.Dataset{
		ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger"},
		Spec: v1alpha1.DatasetSpec{Driver: "postgresql", Members: []v1alpha1.DatasetMember{
			{Cluster: "north-1", Address: "10.0.0.1:5432", Parameters: map[string]string{"statefulSet": "db"}},
			{Cluster: "north-2", Address: "10.0.0.2:5432"},
			{Cluster: "south-1", Address: "10.0.0.3:5432", Link: v1alpha1.LinkAsynchronous},
		}},
		Status: v1alpha1.DatasetStatus{Phase: phase, Primary: primary, PreviousPrimary: previous, Epoch: epoch, SyncSet: []string{"north-1", "north-2"}},
	}
}

func TestRoles(t *testing.T) {
	none, replica, primary := agentv1.Role_ROLE_NONE, agentv1.Role_ROLE_REPLICA, agentv1.Role_ROLE_PRIMARY
	unopened := dataset(v1alpha1.DatasetPromoting, "north-2", "north-1", 4)
	unopened.Status.CatchUp = &v1alpha1.CatchUp{Target: "north-2"}
	if got := Roles([]*v1alpha1.Dataset{unopened}, Terms{})["north-2"][0]; got.GetRole() != primary || got.GetPrimary() != "north-2" {
		t.Errorf("the target of a switchover is granted %v", got)
	}
	unopened.Spec.Members = append(unopened.Spec.Members[:1], unopened.Spec.Members[2])
	for cluster, want := range map[string]agentv1.Role{"north-1": none, "south-1": replica} {
		if got := Roles([]*v1alpha1.Dataset{unopened}, Terms{})[cluster][0]; got.GetRole() != want || got.GetPrimary() != "" {
			t.Errorf("before the target of a switchover is open %s is granted %v", cluster, got)
		}
	}
	for name, tc := range map[string]struct {
		dataset *v1alpha1.Dataset
		want    []agentv1.Role // north-1, north-2, south-1
		leader  string
	}{
		"a dataset that was never formed has no role":                       {dataset(v1alpha1.DatasetForming, "", "", 0), []agentv1.Role{none, none, none}, ""},
		"a steady one has a primary and replicas":                           {dataset(v1alpha1.DatasetSteady, "north-1", "", 3), []agentv1.Role{primary, replica, replica}, "north-1"},
		"a primary that is being closed keeps its role":                     {dataset(v1alpha1.DatasetClosing, "north-1", "", 3), []agentv1.Role{primary, replica, replica}, "north-1"},
		"while fencing nobody is primary and the old one has no role":       {dataset(v1alpha1.DatasetFencing, "north-2", "north-1", 4), []agentv1.Role{none, replica, replica}, ""},
		"while promoting the coming primary has the role":                   {dataset(v1alpha1.DatasetPromoting, "north-2", "north-1", 4), []agentv1.Role{replica, primary, replica}, "north-2"},
		"a phase that is not known gives nothing":                           {dataset("Later", "north-2", "north-1", 4), []agentv1.Role{none, none, none}, ""},
		"a steady one without a primary, which is a mistake, gives nothing": {dataset(v1alpha1.DatasetSteady, "", "", 4), []agentv1.Role{none, none, none}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			table := Roles([]*v1alpha1.Dataset{tc.dataset}, Terms{})
			var got []agentv1.Role
			for _, c := range []string{"north-1", "north-2", "south-1"} {
				grant := table[c][0]
				got = append(got, grant.GetRole())
				if grant.GetPrimary() != tc.leader || grant.GetEpoch() != tc.dataset.Status.Epoch || len(grant.GetPeers()) != 2 {
					t.Errorf("grant of %s is %v", c, grant)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if len(table) != 3 {
				t.Errorf("roles for %d clusters", len(table))
			}
		})
	}
}

// desk is a Leaser with everything around it.
type desk struct {
	store        *store
	leases       *Leases
	vantages     *Vantages
	observations *Observations
	committed    *Committed
	leaser       *Leaser
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{store: &store{}}
	clock := Monotonic()
	config := lease.LAN()
	d.leases = NewLeases(config, clock)
	d.store.leases = d.leases
	d.store.put(t, "clusters", "north-1", cluster("north-1"))
	d.store.put(t, "clusters", "north-2", cluster("north-2"))
	pending := cluster("north-9")
	pending.Spec.Admission = v1alpha1.AdmissionPending
	d.store.put(t, "clusters", "north-9", pending)
	d.store.put(t, "datasets", "pay/ledger", dataset(v1alpha1.DatasetSteady, "north-1", "", 3))
	d.vantages = NewVantages(3*config.Tick, clock)
	d.observations = NewObservations(2*config.Tick, clock)
	d.committed = NewCommitted(d.store, DefaultPrefix, clock, nil)
	d.leaser = NewLeaser(LeaserConfig{
		Steady: d.leases.Steady,
		Lease:  config, Incarnation: func() uint64 { return 1 }, Proposer: d.store, Roster: d.committed,
		Vantages: d.vantages, Observations: d.observations, Clock: clock, Logger: slog.New(slog.DiscardHandler),
	})
	return d
}

func (d *desk) lead(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = d.leaser.Run(ctx, 7)
	}()
	synctest.Wait()
	return func() { cancel(); <-done }
}

func beat(member, cluster string, seq uint64) *hubv1.RelayRequest {
	return &hubv1.RelayRequest{Member: member, Center: member, Heartbeats: []*hubv1.RelayedHeartbeat{
		{Cluster: cluster, Heartbeat: &agentv1.Heartbeat{Seq: seq, Replica: "r1", Observable: true}},
	}}
}

func TestAGrantComesAfterTheRenewalWithTheRolesOfThatState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		if _, err := d.leaser.Hear(t.Context(), beat("a", "north-1", 1)); err == nil {
			t.Fatal("a member that does not lead answers")
		}
		defer d.lead(t)()
		response, err := d.leaser.Hear(t.Context(), beat("a", "north-1", 1))
		if err != nil {
			t.Fatal(err)
		}
		grant := response.GetGrants()[0]
		if grant.GetSeq() != 1 || grant.GetTerm() != 7 || grant.GetRevision() != d.store.Revision() || grant.GetTtlMillis() != 5000 || grant.GetIncarnation() != 1 {
			t.Errorf("got %v", grant)
		}
		if grant.GetRoles()[0].GetRole() != agentv1.Role_ROLE_PRIMARY {
			t.Errorf("got %v", grant.GetRoles())
		}
		// The commit of a fence takes the role out of the very next grant.
		d.store.put(t, "datasets", "pay/ledger", dataset(v1alpha1.DatasetFencing, "north-2", "north-1", 4))
		fencing := d.store.Revision()
		response, err = d.leaser.Hear(t.Context(), beat("a", "north-1", 2))
		if err != nil {
			t.Fatal(err)
		}
		if got := response.GetGrants()[0]; got.GetRevision() < fencing || got.GetRoles()[0].GetRole() == agentv1.Role_ROLE_PRIMARY {
			t.Errorf("got %v", got)
		}
		// The lease goes on, the fenced role runs out.
		elapse(lease.LAN().OverAfter() - time.Second)
		if d.leases.OverBefore("north-1", fencing) {
			t.Error("the role is called over before its time")
		}
		_, _ = d.leaser.Hear(t.Context(), beat("a", "north-1", 3))
		elapse(time.Second)
		if !d.leases.OverBefore("north-1", fencing) || d.leases.SurelyOver("north-1") {
			t.Error("the fenced role must be over and the lease not")
		}
	})
}

func TestHeartbeatsOfOneTickShareOneProposal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.store.delay = 10 * time.Millisecond
		defer d.lead(t)()
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				response, err := d.leaser.Hear(t.Context(), beat("b", fmt.Sprintf("north-%d", 1+i%2), uint64(i+1)))
				if err != nil || response.GetGrants()[0].GetSeq() != uint64(i+1) {
					t.Errorf("heartbeat %d: %v, %v", i, response, err)
				}
			})
		}
		all.Wait()
		if n := d.store.proposed(); n > 2 { // the first goes at once, the rest together
			t.Errorf("%d proposals for 40 heartbeats", n)
		}
	})
}

func TestTheFirstHeartbeatDoesNotWaitForATick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		defer d.lead(t)()
		asked := time.Now()
		if _, err := d.leaser.Hear(t.Context(), beat("a", "north-1", 1)); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(asked); waited > 0 {
			t.Errorf("answered after %v", waited)
		}
		// The next one waits for the batch, not for a tick.
		asked = time.Now()
		if _, err := d.leaser.Hear(t.Context(), beat("a", "north-1", 2)); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(asked); waited > lease.LAN().Tick/4 {
			t.Errorf("answered after %v", waited)
		}
	})
}

func TestAFailedProposalGrantsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.store.fail = errors.New("no quorum")
		stop := d.lead(t)
		if response, err := d.leaser.Hear(t.Context(), beat("a", "north-1", 1)); err == nil {
			t.Errorf("granted %v", response)
		}
		// Who waits when the term ends is told so.
		d.store.mu.Lock()
		d.store.fail = nil
		d.store.mu.Unlock()
		done := make(chan error, 1)
		go func() {
			_, err := d.leaser.Hear(t.Context(), beat("a", "north-1", 2))
			done <- err
		}()
		synctest.Wait()
		stop()
		if err := <-done; err == nil {
			t.Error("a grant after the term")
		}
	})
}

func TestAClusterThatIsNotAcceptedGetsNoGrantAndNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		defer d.lead(t)()
		for _, name := range []string{"north-9", "unheard-of"} {
			response, err := d.leaser.Hear(t.Context(), beat("a", name, 1))
			if err != nil || response.GetGrants()[0].GetSeq() != 0 {
				t.Errorf("%s: %v, %v", name, response, err)
			}
			if d.committed.Admitted(name) == nil {
				t.Errorf("%s is admitted", name)
			}
		}
		if d.store.proposed() != 0 {
			t.Error("a lease was renewed")
		}
	})
}

func TestVantages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		defer d.lead(t)()
		_, _ = d.leaser.Hear(t.Context(), &hubv1.RelayRequest{Member: "c", Center: "south-1"})
		_, _ = d.leaser.Hear(t.Context(), beat("a", "north-1", 1))
		elapse(2 * time.Second)
		silent := beat("b", "north-1", 2)
		silent.Heartbeats[0].Heartbeat.Observable = false
		silent.Heartbeats[0].Heartbeat.UnobservableReason = "the API server is away"
		_, _ = d.leaser.Hear(t.Context(), silent)
		want := []Vantage{{"a", "a", 2 * time.Second}, {"b", "b", 0}, {"c", "south-1", 2 * time.Second}}
		if diff := cmp.Diff(want, d.vantages.Members()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string]time.Duration{"a": 2 * time.Second, "b": 0}, d.vantages.HeardBy("north-1")); diff != "" {
			t.Error(diff)
		}
		if got := d.vantages.Unobservable("north-1"); got != "the API server is away" {
			t.Error(got)
		}
		if got := d.vantages.Stable("north-1"); got != 2*time.Second {
			t.Errorf("stable for %v", got)
		}
		elapse(4 * time.Second)
		guard := beat("a", "north-1", 9)
		guard.Heartbeats[0].Heartbeat.Guard = true
		_, _ = d.leaser.Hear(t.Context(), guard)
		if got := d.vantages.Unobservable("north-1"); !strings.Contains(got, "only guards") {
			t.Errorf("a cluster of which only a guard is heard: %q", got)
		}
		elapse(4 * time.Second)
		if got := d.vantages.Stable("north-1"); got != 0 {
			t.Errorf("stable for %v while silent", got)
		}
	})
}

func TestObservationsAreTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewObservations(2*time.Second, Monotonic())
		report := func(seq uint64, active bool, state string, age int64) {
			o.Note("north-1", &agentv1.Heartbeat{Seq: seq, Replica: "r1", Active: active, Datasets: []*agentv1.DatasetObservation{
				{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: "ledger"}, State: state, AgeMillis: age},
			}})
		}
		key := CopyKey{types.NamespacedName{Namespace: "pay", Name: "ledger"}, "north-1"}
		expect := func(what, state string, age time.Duration) {
			t.Helper()
			if got, ok := o.Get(key); !ok || got.GetState() != state || got.Age != age {
				t.Errorf("%s: got %v, age %v", what, got.GetState(), got.Age)
			}
		}
		report(5, true, "Running", 300)
		expect("the age is the agent's plus ours", "Running", 300*time.Millisecond)
		elapse(time.Second)
		report(4, true, "Stopped", 0)
		expect("a late heartbeat changes nothing", "Running", 1300*time.Millisecond)
		report(6, false, "Stopped", 0)
		expect("a passive replica has no say", "Running", 1300*time.Millisecond)
		elapse(2 * time.Second)
		report(1, true, "Streaming", 0)
		expect("a replica that started anew is heard", "Streaming", 0)
	})
}

// For how long a copy runs is counted from the first word in a row, to the newest.
func TestObservationsTellForHowLongACopyRuns(t *testing.T) {
	now := time.Duration(0)
	o := NewObservations(3*time.Second, func() time.Duration { return now })
	key := CopyKey{types.NamespacedName{Namespace: "pay", Name: "ledger"}, "north-1"}
	for i, tc := range []struct {
		state string
		want  time.Duration
	}{
		{"Streaming", 0}, {"CatchingUp", time.Second}, {"Streaming", 2 * time.Second}, {"Copying", 0}, {"Stopped", 0},
		{"Detached", 0}, {"Running", time.Second},
	} {
		now += time.Second
		o.Note("north-1", &agentv1.Heartbeat{Seq: uint64(i + 1), Replica: "r1", Active: true, Datasets: []*agentv1.DatasetObservation{
			{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: "ledger"}, State: tc.state}}})
		if got, _ := o.Get(key); got.Runs != tc.want {
			t.Errorf("word %d, %s: %v, want %v", i, tc.state, got.Runs, tc.want)
		}
	}
}

func TestWhatDidNotChangeIsNotDecodedAgain(t *testing.T) {
	s := &store{}
	c := NewCommitted(s, DefaultPrefix, Monotonic(), nil)
	s.put(t, "datasets", "pay/ledger", dataset(v1alpha1.DatasetSteady, "north-1", "", 3))
	first, _, err := c.Datasets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, "clusters", "x", cluster("x"))
	second, revision, err := c.Datasets(t.Context())
	if err != nil || revision != 2 || first[0] != second[0] || first[0].ResourceVersion != "1" {
		t.Errorf("revision %d, same object %v, %v", revision, first[0] == second[0], err)
	}
	before := s.ranges
	_, _, _ = c.Datasets(t.Context())
	if s.ranges != before {
		t.Error("a revision that was read is read again")
	}
	s.put(t, "datasets", "pay/ledger", dataset(v1alpha1.DatasetFencing, "north-2", "north-1", 4))
	third, _, _ := c.Datasets(t.Context())
	if third[0].Status.Epoch != 4 {
		t.Error("a change is not seen")
	}
}

// elapse lets time pass in a synctest bubble.
func elapse(d time.Duration) { <-time.After(d) }

// A copy holds what was acknowledged until the primary said where its log ended.
func TestObservationsTellUpToWhenACopyIsWhole(t *testing.T) {
	now := time.Duration(0)
	o := NewObservations(3*time.Second, func() time.Duration { return now })
	name := &agentv1.DatasetKey{Namespace: "pay", Name: "ledger-db"}
	seq := uint64(0)
	note := func(cluster string, role agentv1.Role, state string, position int64) {
		seq++
		o.Note(cluster, &agentv1.Heartbeat{Seq: seq, Replica: "a", Active: true, Datasets: []*agentv1.DatasetObservation{
			{Dataset: name, Role: role, State: state, Epoch: 1, Timeline: 1, PositionBytes: position, AgeMillis: 500}}})
	}
	held := func() time.Duration {
		got, _ := o.Get(CopyKey{types.NamespacedName{Namespace: "pay", Name: "ledger-db"}, "south-1"})
		if got.Held == nil {
			return -1
		}
		return *got.Held
	}
	now = time.Second
	note("north-1", agentv1.Role_ROLE_PRIMARY, "Running", 100)
	note("south-1", agentv1.Role_ROLE_REPLICA, "Detached", 100)
	if got := held(); got != -1 {
		t.Errorf("a copy that receives nothing is said to be whole: %v", got)
	}
	note("south-1", agentv1.Role_ROLE_REPLICA, "Streaming", 150)
	now = 10 * time.Second
	note("north-1", agentv1.Role_ROLE_PRIMARY, "Running", 200)
	note("south-1", agentv1.Role_ROLE_REPLICA, "Detached", 150)
	if got := held(); got != 9500*time.Millisecond {
		t.Errorf("held everything %v ago, want 9.5 s", got)
	}
}
