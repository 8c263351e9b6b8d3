package failover

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// world is a committed store and a fleet in the simplest form: every write
// succeeds, every command is answered at once unless a test says otherwise.
type world struct {
	t        *testing.T
	s        Snapshot
	det      Detection
	revision int64
	renewed  map[string][]renewal     // of each cluster, oldest first
	since    map[string]time.Duration // uptime from which it is heard without a gap
	answer   func(Command) (Result, bool)
	sent     []Command
	notes    []Note
	drop     func(kind string) bool // loses one of the parallel writes
}

// renewal is one of a cluster's lease, and the store's revision when it was applied.
type renewal struct {
	revision int64
	at       time.Duration // uptime
}

const tick, ttl = time.Second, 5 * time.Second

var ledger = types.NamespacedName{Namespace: "pay", Name: "ledger-db"}

func newWorld(t *testing.T) *world {
	w := &world{t: t, renewed: map[string][]renewal{}, since: map[string]time.Duration{}}
	w.s = Snapshot{Config: DefaultConfig(tick, ttl), Now: time.Unix(1_800_000_000, 0), Uptime: time.Hour,
		Observed: map[Copy]Observed{}, Results: map[string]Result{}}
	w.s.Fleet.Sightings, w.s.Fleet.Watching, w.s.Fleet.Prompt = map[string]Sighting{}, time.Hour, time.Hour
	for _, place := range []string{"north-1", "north-2", "south-1"} {
		w.s.Fleet.Clusters = append(w.s.Fleet.Clusters, Cluster{Name: place, Region: place[:5], Center: place})
		w.s.Fleet.Members = append(w.s.Fleet.Members, HubMember{Name: "hub-" + place, Center: place})
		w.heard(place)
	}
	w.s.Fence = func(cluster string, _ int64) (bool, time.Duration) {
		return w.book(cluster, 0)
	}
	w.answer = func(Command) (Result, bool) { return Result{Outcome: Done, Position: "0/3000000", Timeline: 2}, true }
	w.drop = func(string) bool { return false }
	d := &v1alpha1.Dataset{ObjectMeta: metav1.ObjectMeta{Namespace: ledger.Namespace, Name: ledger.Name}}
	d.Spec = v1alpha1.DatasetSpec{Driver: "postgresql", Protection: v1alpha1.ZeroLoss, Members: []v1alpha1.DatasetMember{
		{Cluster: "north-1"}, {Cluster: "north-2"}, {Cluster: "south-1", Link: v1alpha1.LinkAsynchronous}}}
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger"}}
	app.Spec = v1alpha1.ApplicationSpec{Datasets: []string{"ledger-db"}, Services: []string{"ledger"},
		Failover: v1alpha1.FailoverPolicy{WithinRegion: v1alpha1.FailoverAutomatic, AcrossRegions: v1alpha1.FailoverApproval, HoldSeconds: 600}}
	g := &v1alpha1.GlobalService{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger"}}
	g.Spec = v1alpha1.GlobalServiceSpec{Host: "ledger.example.test", Mode: v1alpha1.ActiveOnly, Endpoints: []v1alpha1.ServiceEndpoint{
		{Cluster: "north-1", Address: "10.210.0.11"}, {Cluster: "north-2", Address: "10.210.0.12"}, {Cluster: "south-1", Address: "10.210.0.13"}}}
	w.s.Datasets, w.s.Applications, w.s.Services = []*v1alpha1.Dataset{d}, []*v1alpha1.Application{app}, []*v1alpha1.GlobalService{g}
	return w
}

// book answers as the lease book does. Most tests have the fence count every renewal,
// so that only a word of the old primary proves that one which is heard has stopped.
func (w *world) book(cluster string, revision int64) (over bool, age time.Duration) {
	age = w.s.Uptime
	for _, r := range slices.Backward(w.renewed[cluster]) {
		if revision == 0 || r.revision < revision {
			age -= r.at
			break
		}
	}
	return age >= ttl*26/25, age
}

func (w *world) heard(cluster string) {
	w.renewed[cluster] = append(w.renewed[cluster], renewal{w.revision, w.s.Uptime})
	by := map[string]time.Duration{}
	for _, m := range w.s.Fleet.Members {
		by[m.Name] = 0
	}
	w.s.Fleet.Sightings[cluster] = Sighting{HeardBy: by, Stable: w.s.Uptime - w.since[cluster]}
}

// pass lets time go by: all clusters but the silent ones are heard.
func (w *world) pass(d time.Duration, silent ...string) {
	w.s.Now, w.s.Uptime = w.s.Now.Add(d), w.s.Uptime+d
	for _, c := range w.s.Fleet.Clusters {
		if !slices.Contains(silent, c.Name) {
			w.heard(c.Name)
			continue
		}
		s := w.s.Fleet.Sightings[c.Name]
		s.LeaseOver, s.Silent = w.s.Fence(c.Name, 0)
		s.Stable, w.since[c.Name] = 0, w.s.Uptime
		by := map[string]time.Duration{}
		for m, age := range s.HeardBy {
			by[m] = age + d
		}
		s.HeardBy = by
		w.s.Fleet.Sightings[c.Name] = s
	}
	for c, o := range w.s.Observed {
		if slices.Contains(silent, c.Cluster) {
			o.Age += d
		}
		w.s.Observed[c] = o
	}
}

func (w *world) stamp(o metav1.Object) {
	w.revision++
	o.SetResourceVersion(fmt.Sprint(w.revision))
}

func replace[T metav1.Object](list []T, with T) {
	for i, o := range list {
		if key(o) == key(with) {
			list[i] = with
		}
	}
}

// turn runs one turn, commits what it wants and answers what it commands.
func (w *world) turn() Effects {
	w.s.Previous = w.det
	e := Turn(&w.s)
	w.det = e.Detection
	w.notes = append(w.notes, e.Notes...)
	for _, r := range e.Create {
		if w.s.run(r.Name) == nil {
			r.CreationTimestamp = metav1.NewTime(w.s.Now)
			w.stamp(r)
			w.s.Runs = append(w.s.Runs, r)
		}
	}
	for _, d := range e.Datasets {
		if !w.drop("dataset") {
			w.stamp(d)
			replace(w.s.Datasets, d)
		}
	}
	for _, r := range e.Runs {
		if !w.drop("run") {
			w.stamp(r)
			replace(w.s.Runs, r)
		}
	}
	for _, g := range e.Services {
		if !w.drop("service") {
			w.stamp(g)
			replace(w.s.Services, g)
		}
	}
	for _, a := range e.Applications {
		w.stamp(a)
		replace(w.s.Applications, a)
	}
	for _, c := range e.Commands {
		w.sent = append(w.sent, c)
		if r, ok := w.answer(c); ok {
			r.At = w.s.Uptime
			w.s.Results[c.ID] = r
		}
	}
	return e
}

func (w *world) turns(n int) {
	for range n {
		w.turn()
	}
}

func (w *world) db() *v1alpha1.Dataset         { return w.s.Datasets[0] }
func (w *world) app() *v1alpha1.Application    { return w.s.Applications[0] }
func (w *world) run() *v1alpha1.RecoveryRun    { return w.s.Runs[len(w.s.Runs)-1] }
func (w *world) name() *v1alpha1.GlobalService { return w.s.Services[0] }

// runs sets the observations of a healthy dataset at the committed epoch.
func (w *world) replicate() {
	st := w.db().Status
	zero := int64(0)
	var standbys []string
	for _, m := range w.db().Spec.Members {
		if m.Cluster == st.Primary {
			continue
		}
		standbys = append(standbys, m.Cluster)
		w.s.Observed[Copy{ledger, m.Cluster}] = Observed{Role: v1alpha1.RoleReplica, State: v1alpha1.StateStreaming, Epoch: st.Epoch,
			LagBytes: &zero, LagSeconds: &zero, Guarded: v1alpha1.Guarded}
	}
	w.s.Observed[Copy{ledger, st.Primary}] = Observed{Role: v1alpha1.RolePrimary, State: v1alpha1.StateRunning, Epoch: st.Epoch,
		Guarded: v1alpha1.Guarded, Streaming: standbys, CaughtUp: standbys, Acknowledges: st.SyncTarget}
}

// steady forms the dataset and grows its sync set.
func (w *world) steady() *world {
	w.turns(3)
	for range 6 {
		w.replicate()
		w.pass(100 * time.Millisecond)
		w.turn()
	}
	if got := strings.Join(w.db().Status.SyncSet, ","); got != "north-1,north-2" {
		w.t.Fatalf("sync set is %q, phase %q: want north-1,north-2", got, w.db().Status.Phase)
	}
	return w
}

// lose makes clusters silent until the lease is surely over.
func (w *world) lose(clusters ...string) {
	w.beats(55, clusters...)
}

func (w *world) approve(by string, seconds int64) {
	a := &v1alpha1.Approval{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("a%d", len(w.s.Approvals)), CreationTimestamp: metav1.NewTime(w.s.Now)}}
	a.Spec = v1alpha1.ApprovalSpec{Run: w.run().Name, Decision: v1alpha1.DecisionApprove, Approver: by, AcceptLoss: &v1alpha1.AcceptedLoss{Seconds: seconds}}
	if l := w.run().Status.Loss; l != nil {
		a.Spec.AcceptLoss.Extent = l.Extent
	}
	w.s.Approvals = append(w.s.Approvals, a)
}

func (w *world) count(v Verb) int {
	ids := map[string]bool{}
	for _, c := range w.sent {
		if c.Verb == v {
			ids[c.ID] = true
		}
	}
	return len(ids)
}
