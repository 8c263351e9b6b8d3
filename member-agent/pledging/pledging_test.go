package pledging

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"tripod.dev/tripod/failover/lease"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

const db = "pay/db"

var dbKey = &agentv1.DatasetKey{Namespace: "pay", Name: "db"}

// shelf is a Record in memory, for all replicas of a cluster.
type shelf struct {
	mu    sync.Mutex
	held  Promises
	err   error
	delay time.Duration
	kept  int
}

func (s *shelf) Promises(context.Context) (Promises, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held, s.err
}

func (s *shelf) Keep(_ context.Context, p Promises) (Promises, error) {
	if s.delay > 0 {
		<-time.After(s.delay)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return Promises{}, s.err
	}
	s.kept++
	s.held, _ = s.held.with(p)
	return s.held, nil
}

// replica is one pledger of cluster b, on a clock that the test moves.
type replica struct {
	*pledger
	now    time.Duration
	tenure bool
}

func newReplica(record Record) *replica {
	r := &replica{now: time.Hour, tenure: true}
	c := Config{Cluster: "b", Record: record, Tenure: func() bool { return r.tenure }, Clock: func() time.Duration { return r.now }}.withDefaults()
	r.pledger = newPledger(c)
	return r
}

// grant is what the hub gives cluster b: a is the primary of epoch.
func grant(epoch int64, changes ...func(*agentv1.Grant)) *agentv1.Grant {
	g := &agentv1.Grant{Incarnation: 1, Revision: 100 + epoch, TtlMillis: 5000, Roles: []*agentv1.RoleGrant{{
		Dataset: dbKey, Epoch: epoch, Role: agentv1.Role_ROLE_REPLICA, Primary: "a",
		Peers: []*agentv1.DatasetPeer{{Cluster: "a"}, {Cluster: "c"}},
	}}}
	for _, change := range changes {
		change(g)
	}
	return g
}

// begin makes a replica active with a book.
func (r *replica) begin(t *testing.T) {
	t.Helper()
	r.setActive(true)
	if err := r.open(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// asks is the refusal of a question, empty for a pledge.
func (r *replica) asks(cluster string, epoch int64) string {
	response, err := r.answer(cluster, &agentv1.PledgeRequest{TtlMillis: 5000, Roles: []*agentv1.PledgedRole{{Dataset: dbKey, Incarnation: 1, Epoch: epoch}}})
	switch {
	case err != nil:
		return err.Error()
	case response.GetAnswers()[0].GetPledged():
		return ""
	}
	return response.GetAnswers()[0].GetReason()
}

func TestWhoIsPledgedTo(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*replica)
		cluster string
		epoch   int64
		want    string
	}{
		"the primary of the newest epoch":                {func(*replica) {}, "a", 3, ""},
		"one of a newer epoch than was heard of":         {func(*replica) {}, "c", 4, ""},
		"one that is not it":                             {func(*replica) {}, "c", 3, "a is the primary of epoch 3"},
		"a cluster without a copy":                       {func(*replica) {}, "d", 3, "d holds no copy"},
		"the primary of an older epoch":                  {func(r *replica) { r.granted(grant(4)) }, "a", 3, "RefusedEpoch"},
		"an epoch older than a guard's volume has":       {func(r *replica) { r.saw(db, 4) }, "a", 3, "RefusedEpoch"},
		"a dataset that is not granted here any more":    {func(r *replica) { r.granted(grant(3, func(g *agentv1.Grant) { g.Roles = nil })) }, "a", 3, "this cluster holds no copy"},
		"a role of an older hub":                         {func(r *replica) { r.granted(grant(3, func(g *agentv1.Grant) { g.Incarnation = 2 })) }, "a", 3, "RefusedIncarnation"},
		"nobody, when it is not active any more":         {func(r *replica) { r.setActive(false) }, "a", 3, errInactive.Error()},
		"nobody, when another may be active":             {func(r *replica) { r.tenure = false }, "a", 3, errInactive.Error()},
		"nobody, before the record was read again":       {func(r *replica) { r.setActive(false); r.setActive(true) }, "a", 3, errInactive.Error()},
		"nobody, before it starts anew for a longer TTL": {func(r *replica) { r.granted(grant(3, func(g *agentv1.Grant) { g.TtlMillis = 15000 })) }, "a", 3, errInactive.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReplica(&shelf{})
			r.granted(grant(3))
			r.begin(t)
			tc.change(r)
			if got := r.asks(tc.cluster, tc.epoch); got != tc.want && (tc.want == "" || !strings.Contains(got, tc.want)) {
				t.Errorf("refused with %q, want %q", got, tc.want)
			}
		})
	}
}

func TestALongerTTLIsDurableBeforeItIsPledgedFor(t *testing.T) {
	record := &shelf{}
	r := newReplica(record)
	r.granted(grant(3))
	r.begin(t)
	r.granted(grant(3, func(g *agentv1.Grant) { g.TtlMillis = 15000 }))
	if err := r.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if record.held.TTL != 15*time.Second || r.asks("a", 3) != "" {
		t.Fatalf("stored TTL %v, refused with %q", record.held.TTL, r.asks("a", 3))
	}
	// The next replica knows only the default TTL, and counts the longer one.
	next := newReplica(record)
	next.granted(grant(3))
	next.begin(t)
	if free, err := next.free(1, db); err != nil || free <= 15*time.Second {
		t.Errorf("the next replica may be promoted in %v (%v): a pledge for 15 s may be running", free, err)
	}
}

func TestWhatAReplicaAcknowledgesBindsTheNext(t *testing.T) {
	record := &shelf{}
	first, next := newReplica(record), newReplica(record)
	for _, r := range []*replica{first, next} {
		r.granted(grant(3))
	}
	first.begin(t)
	first.now += time.Minute
	if err := first.yield(t.Context(), 1, db, 4); err != nil {
		t.Fatal(err)
	}
	if why := first.asks("a", 3); why != "RefusedEpoch" {
		t.Errorf("after the acknowledgement the same replica answers %q", why)
	}
	next.begin(t)
	if why := next.asks("a", 3); why != "RefusedEpoch" {
		t.Errorf("after the acknowledgement the next replica answers %q", why)
	}
}

func TestNothingIsAcknowledgedThatIsNotDurable(t *testing.T) {
	for name, tc := range map[string]struct {
		breaks func(*replica, *shelf)
		want   string
	}{
		"the record cannot be written":         {func(_ *replica, s *shelf) { s.err = errors.New("no API server") }, "no API server"},
		"it is not the active replica":         {func(r *replica, _ *shelf) { r.setActive(false) }, "not the active one"},
		"another may have become active since": {func(r *replica, _ *shelf) { r.tenure = false }, "not the active one any more"},
	} {
		t.Run(name, func(t *testing.T) {
			record := &shelf{}
			r := newReplica(record)
			r.granted(grant(3))
			r.begin(t)
			r.now += time.Minute
			tc.breaks(r, record)
			if err := r.yield(t.Context(), 1, db, 4); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("acknowledged: %v, want %q", err, tc.want)
			}
		})
	}
}

// A replica is deposed while it writes: the one that is active then may have read
// the record before.
func TestAReplicaThatIsDeposedMeanwhileAcknowledgesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		record := &shelf{}
		r := newReplica(record)
		r.granted(grant(3))
		r.begin(t)
		r.now += time.Minute
		record.delay = time.Second
		done := make(chan error, 1)
		go func() { done <- r.yield(t.Context(), 1, db, 4) }()
		synctest.Wait()
		r.setActive(false)
		r.setActive(true)
		if err := <-done; err == nil {
			t.Error("acknowledged by a replica that was not active throughout")
		}
	})
}

func TestAPromotionWaitsForTheLastPledge(t *testing.T) {
	over := lease.LAN().OverAfter()
	for name, tc := range map[string]struct {
		before func(*replica)
		want   time.Duration
	}{
		"one that has just become active counts from its start": {func(*replica) {}, over},
		"a pledge runs": {func(r *replica) {
			r.advance(time.Minute)
			r.asks("a", 3)
			r.advance(time.Second)
		}, over - time.Second},
		"none runs": {func(r *replica) { r.advance(time.Minute) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReplica(&shelf{})
				origin := time.Now()
				r.config.Clock = func() time.Duration { return r.now + time.Since(origin) }
				r.granted(grant(3))
				r.begin(t)
				tc.before(r)
				began := time.Now()
				if err := r.yield(t.Context(), 1, db, 4); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != tc.want {
					t.Errorf("waited %v, want %v", took, tc.want)
				}
			})
		})
	}
}

func (r *replica) advance(d time.Duration) { r.now += d }

func TestTheRecordOnlyGrows(t *testing.T) {
	r := ClusterRecord{Client: fake.NewClientset(), Namespace: "tripod-system"}
	for _, p := range []Promises{{Epochs: map[string]int64{db: 4}, TTL: 5 * time.Second}, {Epochs: map[string]int64{db: 3, "pay/other": 1}, TTL: time.Second}} {
		if _, err := r.Keep(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	all, err := r.Promises(t.Context())
	if err != nil || all.Epochs[db] != 4 || all.Epochs["pay/other"] != 1 || all.TTL != 5*time.Second {
		t.Errorf("stored %+v, %v", all, err)
	}
	maps := r.Client.CoreV1().ConfigMaps(r.Namespace)
	stored, _ := maps.Get(t.Context(), PromisesConfigMap, metav1.GetOptions{})
	stored.Data[entryEpochs] = "not JSON"
	if _, err := maps.Update(t.Context(), stored, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Keep(t.Context(), Promises{}); err == nil || !strings.Contains(err.Error(), "restore it") {
		t.Errorf("a record that cannot be read was taken for an empty one: %v", err)
	}
}

// primary is what the hub grants cluster a.
func primary(epoch int64, pledgers ...string) *agentv1.Grant {
	return &agentv1.Grant{Incarnation: 1, TtlMillis: 5000, Roles: []*agentv1.RoleGrant{{
		Dataset: dbKey, Epoch: epoch, Role: agentv1.Role_ROLE_PRIMARY, Failsafe: &agentv1.Failsafe{Pledgers: pledgers},
		Peers: []*agentv1.DatasetPeer{{Cluster: "b", AgentAddress: "192.0.2.2:1"}, {Cluster: "c", AgentAddress: "192.0.2.3:1"}, {Cluster: "d"}},
	}}}
}

func yes(n int) *agentv1.PledgeResponse {
	r := &agentv1.PledgeResponse{}
	for range n {
		r.Answers = append(r.Answers, &agentv1.PledgeAnswer{Pledged: true})
	}
	return r
}

func TestAPrimaryNeedsThePledgesOfAllWhomItsCopyWaitsFor(t *testing.T) {
	now := time.Hour
	a := newAsker(Config{Cluster: "a", Clock: func() time.Duration { return now }}.withDefaults())
	ask := func() []string {
		var asked []string
		for _, q := range a.due(false) {
			asked = append(asked, q.cluster)
			a.answered(q, yes(len(q.request.GetRoles())), nil)
		}
		slices.Sort(asked)
		return asked
	}
	a.granted(primary(3, "b"), 5*time.Second)
	now += 4 * time.Second
	if asked := ask(); asked != nil {
		t.Fatalf("%v are asked before the guard has told whom the copy waits for", asked)
	}
	if kept := a.kept(db, 3, nil); kept != 0 {
		t.Fatalf("kept for %v without a pledge", kept)
	}
	if asked := ask(); !slices.Equal(asked, []string{"b"}) || a.kept(db, 3, nil) != 5*time.Second {
		t.Fatalf("asked %v, kept for %v", asked, a.kept(db, 3, nil))
	}
	// The copy has begun to wait for c, which no grant has named yet.
	if kept := a.kept(db, 3, []string{"c"}); kept != 0 {
		t.Errorf("kept for %v without the pledge of c", kept)
	}
	if asked := ask(); !slices.Equal(asked, []string{"b", "c"}) || a.kept(db, 3, []string{"c"}) != 5*time.Second {
		t.Errorf("asked %v, kept for %v", asked, a.kept(db, 3, []string{"c"}))
	}
	now += 2 * time.Second
	if kept := a.kept(db, 3, []string{"c"}); kept != 3*time.Second {
		t.Errorf("kept for %v, two seconds after the question", kept)
	}
	if kept := a.kept(db, 2, nil); kept != 0 {
		t.Errorf("a copy of an older epoch is kept for %v", kept)
	}
	// d has no address: it can never be asked.
	if kept := a.kept(db, 3, []string{"c", "d"}); kept != 0 {
		t.Errorf("kept for %v without the pledge of d", kept)
	}
	ask()
	if needed, missing, _ := a.pledgers(db); !slices.Equal(needed, []string{"b", "c", "d"}) || !slices.Equal(missing, []string{"d"}) {
		t.Errorf("needs %v, misses %v", needed, missing)
	}
	// A refusal is no pledge.
	now += 4 * time.Second
	for _, q := range a.due(false) {
		a.answered(q, &agentv1.PledgeResponse{Answers: []*agentv1.PledgeAnswer{{Reason: "no"}}}, nil)
	}
	if kept := a.kept(db, 3, nil); kept != time.Second {
		t.Errorf("kept for %v after a refusal, want what an earlier pledge leaves", kept)
	}
	// Another epoch is another role; its end is no role at all.
	a.granted(primary(4, "b"), 0)
	if kept := a.kept(db, 4, nil); kept != 0 {
		t.Errorf("pledges went over to another epoch, for %v", kept)
	}
	ask()
	a.granted(grant(5), 0)
	if kept := a.kept(db, 4, nil); kept != 0 || len(a.due(true)) != 0 {
		t.Errorf("a role that was taken away is kept for %v", kept)
	}
}

func TestAHealthyFleetAsksForNothing(t *testing.T) {
	now := time.Hour
	a := newAsker(Config{Cluster: "a", Clock: func() time.Duration { return now }}.withDefaults())
	for range 10 {
		a.granted(primary(3, "b"), 5*time.Second)
		a.kept(db, 3, nil)
		for _, q := range a.due(true) {
			if len(q.request.GetRoles()) != 0 {
				t.Fatal("a pledge was asked for, although the lease is renewed: a promotion would wait for it")
			}
			a.answered(q, nil, errors.New("not reached"))
		}
		now += time.Second
	}
	if _, missing, _ := a.pledgers(db); !slices.Equal(missing, []string{"b"}) {
		t.Errorf("%v are known to be missing, want b: the probe shows it beforehand", missing)
	}
}

func TestPromisesOfNobody(t *testing.T) {
	if _, err := New(Config{Cluster: "a"}); err == nil {
		t.Error("pledges without a record or an identity")
	}
}
