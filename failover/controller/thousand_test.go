package controller

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

var (
	applications = flag.Int("applications", 100, "of TestACenterWithManyApplicationsIsLost; make bench-engine sets 1000")
	writeTakes   = flag.Duration("write", time.Millisecond, "that the store of TestACenterWithManyApplicationsIsLost takes; make bench-engine sets 5ms")
	driverTakes  = flag.Duration("driver", 5*time.Millisecond, "that each command of its simulated drivers takes; make bench-engine sets 1s")
)

// layers of applications, each of which depends on two of the layer before.
const layers = 5

// TestACenterWithManyApplicationsIsLost is S22 in one process: the order of the
// dependencies is kept, and the one failure isolates itself. With -v it prints how
// long it took.
func TestACenterWithManyApplicationsIsLost(t *testing.T) {
	m := newMany(t, *applications)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	c := m.controller(t)
	begin := time.Now()
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	await := func(count func() int) {
		deadline := time.Now().Add(5 * time.Minute)
		for count() < m.expected() {
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d applications were moved: %+v", count(), m.expected(), m.plan(t).Status.Progress)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	await(m.moved)
	took := time.Since(begin)
	await(func() int { return m.told(t) })
	chain := layers * 2 * *driverTakes // each is promoted and probed
	row := map[string]any{"bench": fmt.Sprintf("failover/plan/%d-applications", *applications), "unit": "s", "better": "lower",
		"ours": took.Seconds(), "beyondSlowestChain": (took - chain).Seconds(), "writes": m.store.writes}
	text, err := json.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	if testing.Verbose() {
		fmt.Fprintln(os.Stdout, string(text))
	}
	m.judge(t)
}

// many plays the drivers of many datasets with a primary in a center that is lost.
type many struct {
	*fleet
	store   *memory
	n       int
	reports map[client.ObjectKey]*agentv1.DatasetObservation
	needs   map[string][]string
	failing string
	began   []string // promotions, in the order in which they were commanded
	ended   map[string]int
}

func appName(i int) string { return fmt.Sprintf("app%04d", i) }

func newMany(t testing.TB, n int) *many {
	f := newFleet("north-1", "north-2", "south-1")
	f.t = t
	m := &many{fleet: f, store: newMemory(), n: n, reports: map[client.ObjectKey]*agentv1.DatasetObservation{}, needs: map[string][]string{}, ended: map[string]int{}}
	create := func(o client.Object) {
		if err := m.store.Create(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range f.centers {
		create(&v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: c}, Spec: v1alpha1.ClusterSpec{Region: c[:5], Center: c, Admission: v1alpha1.AdmissionAccepted},
			Status: v1alpha1.ClusterStatus{Vantages: []v1alpha1.Vantage{{Member: "hub-" + c, Center: c, LastHeard: metav1.NowMicro()}}}})
	}
	create(&v1alpha1.RecoveryPlan{ObjectMeta: metav1.ObjectMeta{Name: "city"}, Spec: v1alpha1.RecoveryPlanSpec{Use: v1alpha1.PlanAutomatic}})
	width := n / layers
	m.failing = appName(width / 2)
	for i := range n {
		name := appName(i)
		app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: name}, Spec: v1alpha1.ApplicationSpec{Datasets: []string{name + "-db"},
			Failover: v1alpha1.FailoverPolicy{WithinRegion: v1alpha1.FailoverAutomatic, AcrossRegions: v1alpha1.FailoverApproval}}}
		if i >= width {
			for _, k := range []int{i - width, i - width - i%width + (i+1)%width} {
				m.needs[name] = append(m.needs[name], appName(k))
				app.Spec.DependsOn = append(app.Spec.DependsOn, v1alpha1.ApplicationReference{Namespace: "pay", Name: appName(k)})
			}
		}
		create(app)
		create(manyDataset(name))
		m.observe(name+"-db", "north-1", agentv1.Role_ROLE_PRIMARY, "Running", 1)
		m.observe(name+"-db", "north-2", agentv1.Role_ROLE_REPLICA, "Streaming", 1)
	}
	f.lose("north-1")
	m.store.takes = *writeTakes
	return m
}

func manyDataset(name string) *v1alpha1.Dataset {
	return &v1alpha1.Dataset{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: name + "-db"},
		Spec: v1alpha1.DatasetSpec{Driver: "postgresql", Protection: v1alpha1.ZeroLoss, Members: []v1alpha1.DatasetMember{{Cluster: "north-1"}, {Cluster: "north-2"}}},
		Status: v1alpha1.DatasetStatus{Phase: v1alpha1.DatasetSteady, Primary: "north-1", Epoch: 1, SyncSet: []string{"north-1", "north-2"}, SyncTarget: []string{"north-2"},
			Members: []v1alpha1.DatasetMemberStatus{{Cluster: "north-1", Guarded: v1alpha1.Guarded}, {Cluster: "north-2", Guarded: v1alpha1.Guarded}}}}
}

func (m *many) observe(dataset, cluster string, role agentv1.Role, state string, epoch int64) {
	m.reports[client.ObjectKey{Namespace: cluster, Name: dataset}] = &agentv1.DatasetObservation{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: dataset},
		Role: role, State: state, Epoch: epoch, Guarded: true, GuardKnown: true, LagBytes: new(int64), LagSeconds: new(int64)}
}

func (m *many) Reports() []Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Report, 0, len(m.reports))
	for at, o := range m.reports {
		age := time.Duration(0)
		if m.lost[at.Namespace] {
			age = 6 * time.Second
		}
		all = append(all, Report{Cluster: at.Namespace, Age: age, Dataset: o})
	}
	return all
}

// Direct takes the time of a driver and answers.
func (m *many) Direct(ctx context.Context, cluster string, d *agentv1.Directive) (*agentv1.DirectiveResult, error) {
	result := &agentv1.DirectiveResult{Id: d.GetId(), Outcome: agentv1.Outcome_OUTCOME_DONE, Position: "0/3000148", Timeline: 2}
	name := d.GetDataset().GetName()
	app := name[:len(name)-len("-db")]
	m.mu.Lock()
	lost := m.lost[cluster]
	if d.GetVerb() == agentv1.Verb_VERB_PROMOTE && !lost {
		m.began = append(m.began, app)
		for _, dep := range m.needs[app] {
			if m.ended[dep] == 0 {
				m.t.Errorf("%s was promoted before %s, which it depends on, was proven", app, dep)
			}
		}
	}
	m.mu.Unlock()
	if lost {
		result.Outcome = agentv1.Outcome_OUTCOME_UNREACHABLE
		return result, nil
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(*driverTakes):
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch d.GetVerb() {
	case agentv1.Verb_VERB_PROMOTE:
		if app == m.failing {
			result.Outcome, result.Message = agentv1.Outcome_OUTCOME_REFUSED, "no"
			return result, nil
		}
		m.observe(name, cluster, agentv1.Role_ROLE_PRIMARY, "Running", d.GetEpoch())
	case agentv1.Verb_VERB_PROBE:
		m.ended[app]++
	}
	return result, nil
}

func (m *many) controller(t testing.TB) *Controller {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Member: "hub-north-2", Incarnation: func() uint64 { return 1 }, Term: func() uint64 { return 7 }, Applied: func() int64 { return 1 << 40 }, HubPledges: func() bool { return true }, Leases: m, Vantages: m,
		Observations: m, Directives: m, Statuses: judged{throughClient{m.store}, t}, Signer: key, Tick: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	cfg.Engine = failover.DefaultConfig(time.Second, 5*time.Second)
	cfg.Engine.Suspect, cfg.Engine.Grace = 10*time.Millisecond, time.Nanosecond
	return newController(cfg, m.store, m.store)
}

func (m *many) plan(t *testing.T) *v1alpha1.RecoveryRun {
	var r v1alpha1.RecoveryRun
	if err := m.store.Get(context.Background(), client.ObjectKey{Name: "city.north-1.1"}, &r); client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	return &r
}

// moved is how many applications' own runs are Completed: the plan's run tells of them a
// little later.
func (m *many) moved() int {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	n := 0
	for _, r := range itemsLocked[v1alpha1.RecoveryRun](m.store) {
		if !r.Spec.ForPlan() && r.Status.Phase == v1alpha1.RunCompleted {
			n++
		}
	}
	return n
}

func (m *many) told(t *testing.T) int {
	if p := m.plan(t).Status.Progress; p != nil {
		return int(p.Completed)
	}
	return 0
}

// held are the applications that depend on the failing one, directly or not.
func (m *many) held() map[string]bool {
	out := map[string]bool{}
	for i := range m.n {
		for _, dep := range m.needs[appName(i)] {
			if dep == m.failing || out[dep] {
				out[appName(i)] = true
			}
		}
	}
	return out
}

func (m *many) expected() int { return m.n - 1 - len(m.held()) }

func (m *many) judge(t *testing.T) {
	held := m.held()
	run := m.plan(t)
	for i := range run.Status.Applications {
		a := &run.Status.Applications[i]
		want := v1alpha1.ApplicationCompleted
		switch {
		case a.Name == m.failing:
			want = v1alpha1.ApplicationStuck
		case held[a.Name]:
			want = v1alpha1.ApplicationHeld
		}
		if a.State != want {
			t.Errorf("%s is %s (%s), want %s", a.Name, a.State, a.Message, want)
		}
	}
	if len(held) == 0 || len(run.Status.Applications) != m.n {
		t.Errorf("%d applications, %d held: the test tests nothing", len(run.Status.Applications), len(held))
	}
}
