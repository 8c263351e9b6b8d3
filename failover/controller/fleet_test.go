package controller

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/failover/evidence"
	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet plays the hub's senses and the agents, one healthy dataset copy each.
type fleet struct {
	mu       sync.Mutex
	centers  []string
	lost     map[string]bool
	ends     time.Time // of the leases of the lost
	copies   map[string]*agentv1.DatasetObservation
	also     []string      // datasets beside ledger-db
	promoted map[int64]int // promotions by epoch
	carried  []*agentv1.Directive
	refuse   func(*agentv1.Directive) *agentv1.DirectiveResult
	t        testing.TB
}

// finalBytes is where the log of a closed copy ends.
const finalBytes = 0x3000148

func newFleet(centers ...string) *fleet {
	f := &fleet{centers: centers, lost: map[string]bool{}, copies: map[string]*agentv1.DatasetObservation{}, promoted: map[int64]int{}}
	for _, c := range centers {
		f.copies[c] = &agentv1.DatasetObservation{Dataset: &agentv1.DatasetKey{Namespace: "pay", Name: "ledger-db"},
			Role: agentv1.Role_ROLE_NONE, State: "Stopped", Guarded: true, GuardKnown: true, LagBytes: new(int64), LagSeconds: new(int64)}
	}
	return f
}

func (f *fleet) Fence(cluster string, _ int64) (bool, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost[cluster] && time.Now().After(f.ends) {
		return true, 5200 * time.Millisecond
	}
	return false, 0
}

func (f *fleet) FenceIn(cluster string, _ int64) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost[cluster] {
		return max(0, time.Until(f.ends))
	}
	return 5200 * time.Millisecond
}

// Steady: this hub was never out.
func (f *fleet) Steady() time.Duration { return time.Hour }
func (f *fleet) Prompt() time.Duration { return time.Hour }

// Lapsed: no cluster was lost before.
func (f *fleet) Lapsed(string) time.Duration { return 0 }

func (f *fleet) Members() []failover.HubMember {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []failover.HubMember
	for _, c := range f.centers {
		m := failover.HubMember{Name: "hub-" + c, Center: c}
		if f.lost[c] {
			m.Reported = time.Hour
		}
		all = append(all, m)
	}
	return all
}

func (f *fleet) Sight(cluster string) Sight {
	f.mu.Lock()
	defer f.mu.Unlock()
	age := time.Duration(0)
	if f.lost[cluster] {
		age = 6 * time.Second
	}
	by := map[string]time.Duration{}
	for _, c := range f.centers {
		by["hub-"+c] = age
	}
	return Sight{HeardBy: by, Stable: time.Hour}
}

func (f *fleet) Reports() []Report {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []Report
	for _, c := range f.centers {
		age := time.Duration(0)
		if f.lost[c] {
			age = 6 * time.Second
		}
		all = append(all, Report{Cluster: c, Age: age, Dataset: f.copies[c]})
		for _, name := range f.also {
			if o := f.copies[at(c, name)]; o != nil {
				all = append(all, Report{Cluster: c, Age: age, Dataset: o})
			}
		}
	}
	return all
}

func (f *fleet) Direct(_ context.Context, cluster string, d *agentv1.Directive) (*agentv1.DirectiveResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	result := &agentv1.DirectiveResult{Id: d.GetId(), Outcome: agentv1.Outcome_OUTCOME_DONE, Position: "0/3000148", Timeline: 2}
	if f.lost[cluster] {
		result.Outcome = agentv1.Outcome_OUTCOME_UNREACHABLE
		return result, nil
	}
	if f.refuse != nil {
		if r := f.refuse(d); r != nil {
			return r, nil
		}
	}
	f.carried = append(f.carried, d)
	// Replaced, not changed: what was handed out is being read.
	o := &agentv1.DatasetObservation{Dataset: d.GetDataset(), Epoch: d.GetEpoch(), Guarded: true, GuardKnown: true, LagBytes: new(int64), LagSeconds: new(int64)}
	switch d.GetVerb() {
	case agentv1.Verb_VERB_PROMOTE:
		// An agent that is asked again by the next leader answers what it answered the first.
		if !slices.ContainsFunc(f.carried[:len(f.carried)-1], func(c *agentv1.Directive) bool { return c.GetId() == d.GetId() }) {
			f.promoted[d.GetEpoch()]++
		}
		o.Role, o.State = agentv1.Role_ROLE_PRIMARY, "Running"
	case agentv1.Verb_VERB_FOLLOW:
		o.Role, o.State = agentv1.Role_ROLE_REPLICA, "Streaming"
		f.streamLocked(at(d.GetRole().GetPrimary(), d.GetDataset().GetName()), cluster)
	case agentv1.Verb_VERB_CLOSE:
		o.State, o.PositionBytes = "Closed", finalBytes
		result.Observation = o
	case agentv1.Verb_VERB_CATCH_UP:
		if d.GetPositionBytes() != finalBytes {
			f.t.Errorf("asked to catch up with %d", d.GetPositionBytes())
		}
		result.Observation = &agentv1.DatasetObservation{PositionBytes: finalBytes}
		return result, nil
	case agentv1.Verb_VERB_SET_SYNC_SET:
		o = clone(f.copies[at(cluster, d.GetDataset().GetName())])
		o.Acknowledges = slices.DeleteFunc(slices.Clone(d.GetRole().GetSyncSet()), func(n string) bool { return n == cluster })
	default:
		return result, nil
	}
	f.copies[at(cluster, d.GetDataset().GetName())] = o
	return result, nil
}

// at is where the copy of a dataset is in copies.
func at(cluster, dataset string) string {
	if dataset == "ledger-db" {
		return cluster
	}
	return cluster + "/" + dataset
}

func (f *fleet) streamLocked(primary, standby string) {
	p := clone(f.copies[primary])
	if !slices.Contains(p.Streaming, standby) {
		p.Streaming = append(slices.Clone(p.Streaming), standby)
		p.CaughtUp = p.Streaming
	}
	f.copies[primary] = p
}

func clone(o *agentv1.DatasetObservation) *agentv1.DatasetObservation {
	return &agentv1.DatasetObservation{Dataset: o.Dataset, Role: o.Role, State: o.State, Epoch: o.Epoch, Guarded: o.Guarded, GuardKnown: o.GuardKnown,
		Streaming: o.Streaming, CaughtUp: o.CaughtUp, Acknowledges: o.Acknowledges, LagBytes: o.LagBytes, LagSeconds: o.LagSeconds}
}

func (f *fleet) lose(cluster string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost[cluster] = true
}

// hub is the committed state behind the controllers of a test.
type hub struct {
	client.Client
	t     *testing.T
	fleet *fleet
	key   *ecdsa.PrivateKey
}

func newHub(t *testing.T) *hub {
	f := newFleet("north-1", "north-2", "south-1")
	f.t = t
	var objects []client.Object
	for _, c := range f.centers {
		objects = append(objects, &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: c},
			Spec:   v1alpha1.ClusterSpec{Region: c[:5], Center: c, Admission: v1alpha1.AdmissionAccepted},
			Status: v1alpha1.ClusterStatus{Vantages: []v1alpha1.Vantage{{Member: "hub-" + c, Center: c, LastHeard: metav1.NowMicro()}}}})
	}
	at := metav1.ObjectMeta{Namespace: "pay", Name: "ledger-db"}
	objects = append(objects,
		&v1alpha1.Dataset{ObjectMeta: at, Spec: v1alpha1.DatasetSpec{Driver: "postgresql", Protection: v1alpha1.ZeroLoss, Members: []v1alpha1.DatasetMember{
			{Cluster: "north-1", Address: "10.0.0.1:5432"}, {Cluster: "north-2", Address: "10.0.0.2:5432"}, {Cluster: "south-1", Link: v1alpha1.LinkAsynchronous}}}},
		&v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger"}, Spec: v1alpha1.ApplicationSpec{
			Datasets: []string{"ledger-db"}, Services: []string{"ledger"}, Failover: v1alpha1.FailoverPolicy{WithinRegion: v1alpha1.FailoverAutomatic, AcrossRegions: v1alpha1.FailoverApproval, HoldSeconds: 1}}},
		&v1alpha1.GlobalService{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "ledger"}, Spec: v1alpha1.GlobalServiceSpec{Host: "ledger.example.test", Mode: v1alpha1.ActiveOnly,
			Endpoints: []v1alpha1.ServiceEndpoint{{Cluster: "north-1", Address: "10.210.0.11"}, {Cluster: "north-2", Address: "10.210.0.12"}}}})
	cl := fake.NewClientBuilder().WithScheme(Scheme()).WithObjects(objects...).WithStatusSubresource(
		&v1alpha1.Dataset{}, &v1alpha1.Application{}, &v1alpha1.GlobalService{}, &v1alpha1.RecoveryRun{}, &v1alpha1.Cluster{}).Build()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &hub{Client: cl, t: t, fleet: f, key: key}
}

func (h *hub) member(name string, cl client.Client) *Controller {
	cfg := Config{Member: name, Incarnation: func() uint64 { return 1 }, Term: func() uint64 { return 7 }, Applied: func() int64 { return 1 << 40 }, HubPledges: func() bool { return true }, Leases: h.fleet, Vantages: h.fleet,
		Observations: h.fleet, Directives: h.fleet, Statuses: judged{throughClient{cl}, h.t}, Signer: h.key, Tick: 5 * time.Millisecond, Log: slog.New(slog.DiscardHandler)}
	// Long in office: no outage to wait for.
	cfg.Engine = failover.DefaultConfig(time.Second, 5*time.Second)
	cfg.Engine.Suspect, cfg.Engine.Grace = 10*time.Millisecond, time.Nanosecond
	if err := func() error { c := cfg; c.defaults(); return c.Validate() }(); err != nil {
		h.t.Fatal(err)
	}
	return newController(cfg, cl, cl)
}

// lead runs a controller until the returned function is called.
func (h *hub) lead(c *Controller) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	}
}

func (h *hub) until(what string, ok func() bool) {
	h.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			h.t.Fatalf("did not happen: %s; dataset %+v; runs %+v", what, h.dataset().Status, h.runs())
		}
		<-time.After(2 * time.Millisecond)
	}
}

func (h *hub) dataset() *v1alpha1.Dataset {
	var d v1alpha1.Dataset
	if err := h.Get(context.Background(), client.ObjectKey{Namespace: "pay", Name: "ledger-db"}, &d); err != nil {
		h.t.Fatal(err)
	}
	return &d
}

func (h *hub) runs() []v1alpha1.RecoveryRun {
	var l v1alpha1.RecoveryRunList
	if err := h.List(context.Background(), &l); err != nil {
		h.t.Fatal(err)
	}
	return l.Items
}

func (h *hub) completed() bool {
	runs := h.runs()
	return len(runs) == 1 && runs[0].Status.Phase == v1alpha1.RunCompleted
}

func (h *hub) protected() bool {
	d := h.dataset()
	return len(d.Status.SyncSet) == 2 && d.Status.Phase == v1alpha1.DatasetSteady
}

// chain is the evidence of a run, wherever it is now; it holds up to the signed head.
func (h *hub) chain(t *testing.T, run string) []evidence.Record {
	t.Helper()
	var r v1alpha1.RecoveryRun
	if err := h.Get(context.Background(), client.ObjectKey{Name: run}, &r); err != nil {
		t.Fatal(err)
	}
	var cm corev1.ConfigMap
	if err := h.Get(context.Background(), client.ObjectKey{Namespace: Namespace, Name: evidence.ConfigMap(run, 1)}, &cm); client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	archived, err1 := evidence.Decode([]byte(cm.Data[evidence.ConfigMapKey]))
	recent, err2 := evidence.Decode([]byte(r.Status.Evidence.Recent))
	chain, err3 := evidence.Join(run, archived, recent)
	err4 := evidence.Verify(chain, run, r.Status.Evidence.Head)
	err5 := evidence.VerifySignature(h.key.Public(), run, r.Status.Evidence.Head, r.Status.Evidence.Signature)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		t.Error(err)
	}
	return chain
}

// archived is true when nothing of the evidence is in journals any more.
func (h *hub) archived() bool {
	return !slices.ContainsFunc(h.runs(), func(r v1alpha1.RecoveryRun) bool { return r.Status.Evidence.Recent != "" })
}
