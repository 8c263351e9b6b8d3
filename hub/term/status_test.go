package term

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

type facts map[string]*agentv1.ClusterFacts

func (f facts) Facts(cluster string) *agentv1.ClusterFacts { return f[cluster] }

// writer puts what is written back into the store, as the API server does.
type writer struct {
	t      *testing.T
	store  *store
	writes atomic.Int64
}

func (w *writer) UpdateStatus(_ context.Context, c *v1alpha1.Cluster) error {
	w.writes.Add(1)
	w.store.put(w.t, "clusters", c.Name, c)
	return nil
}

func TestClusterStatusFollowsTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.store.kvs = nil
		d.store.put(t, "clusters", "north-1", cluster("north-1"))
		defer d.lead(t)()
		f := facts{}
		w := &writer{t: t, store: d.store}
		status := NewClusterStatus(ClusterStatusConfig{Fleet: d.committed, Leases: d.leases, Vantages: d.vantages, Facts: f, Writer: w}, time.Second)
		defer runStatus(t, status)()
		seq := uint64(0)
		pass := func(heard bool, d_ time.Duration, change func(*agentv1.Heartbeat)) {
			for range int(d_ / time.Second) {
				if heard {
					seq++
					request := beat("a", "north-1", seq)
					if change != nil {
						change(request.Heartbeats[0].Heartbeat)
					}
					if _, err := d.leaser.Hear(t.Context(), request); err != nil {
						t.Fatal(err)
					}
				}
				elapse(time.Second)
			}
		}
		expect := func(what string, want map[string]string) {
			t.Helper()
			list, _, err := d.committed.Clusters(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, c := range list[0].Status.Conditions {
				got[c.Type] = c.Reason
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
		}
		f["north-1"] = &agentv1.ClusterFacts{Version: "v1.36.3", Nodes: 2, ReadyNodes: 2, AllocatableCpu: "8", AllocatableMemory: "16Gi"}
		pass(true, 10*time.Second, nil)
		expect("heard", map[string]string{"Leased": "Renewed", "Connected": "AllMembers", "Observable": "Observed", "Ready": "Serving"})
		before := w.writes.Load()
		pass(true, 50*time.Second, nil)
		if n := w.writes.Load() - before; n > 1 {
			t.Errorf("%d writes in 50 s without a change", n)
		}
		pass(true, 6*time.Second, func(h *agentv1.Heartbeat) { h.Observable, h.UnobservableReason = false, "401 Unauthorized" })
		expect("blind", map[string]string{"Leased": "Renewed", "Connected": "AllMembers", "Observable": "AgentCannotObserve", "Ready": "ApiServerUnreachable"})
		pass(false, 12*time.Second, nil)
		expect("silent", map[string]string{"Leased": "Expired", "Connected": "Silent", "Observable": "Silent", "Ready": "Silent"})
		list, _, _ := d.committed.Clusters(t.Context())
		if v := list[0].Status.Vantages; len(v) != 1 || v[0].Connected || v[0].LastHeard.IsZero() {
			t.Errorf("vantages are %+v", v)
		}
		if !meta.IsStatusConditionFalse(list[0].Status.Conditions, v1alpha1.ConditionLeased) {
			t.Error("a silent cluster is leased")
		}
	})
}

func TestAClusterThatOneMemberDoesNotHearIsConnectedInPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.store.kvs = nil
		known := cluster("north-1")
		known.Status.Vantages = []v1alpha1.Vantage{{Member: "gone", Center: "b", Connected: true, LastHeard: metav1.NowMicro()}}
		d.store.put(t, "clusters", "north-1", known)
		defer d.lead(t)()
		var hub atomic.Pointer[[]string]
		hub.Store(&[]string{"a", "b"})
		status := NewClusterStatus(ClusterStatusConfig{Fleet: d.committed, Leases: d.leases, Vantages: d.vantages, Facts: facts{},
			Writer: &writer{t: t, store: d.store}, Members: func() []string { return *hub.Load() }}, time.Second)
		defer runStatus(t, status)()
		seq := uint64(0)
		expect := func(status metav1.ConditionStatus, reason string, through ...string) {
			t.Helper()
			for range 10 {
				for _, member := range through {
					seq++
					if _, err := d.leaser.Hear(t.Context(), beat(member, "north-1", seq)); err != nil {
						t.Fatal(err)
					}
				}
				elapse(time.Second)
			}
			list, _, err := d.committed.Clusters(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c := meta.FindStatusCondition(list[0].Status.Conditions, v1alpha1.ConditionConnected)
			if c == nil || c.Status != status || c.Reason != reason {
				t.Errorf("heard through %q the condition is %+v, want %s, %s", through, c, status, reason)
			}
			for _, v := range list[0].Status.Vantages {
				if v.Member == "gone" {
					t.Error("a member that left the hub is still a vantage")
				}
			}
		}
		expect(metav1.ConditionTrue, "AllMembers", "a", "b")
		expect(metav1.ConditionFalse, "Partial", "b")
		expect(metav1.ConditionTrue, "AllMembers", "a", "b")
		hub.Store(&[]string{"a", "b", "c"}) // joins, and nobody reaches it yet
		expect(metav1.ConditionFalse, "Partial", "a", "b")
	})
}

// What the last leader saw stays until a new one has listened: otherwise every
// cluster would be unknown for a moment whenever the leader changes.
func TestANewLeaderListensBeforeItCallsAClusterSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.store.kvs = nil
		known := cluster("north-1")
		known.Status.Vantages = []v1alpha1.Vantage{{Member: "a", Center: "a", Connected: true, LastHeard: metav1.NowMicro()}}
		meta.SetStatusCondition(&known.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Serving"})
		d.store.put(t, "clusters", "north-1", known)
		defer d.lead(t)()
		w := &writer{t: t, store: d.store}
		status := NewClusterStatus(ClusterStatusConfig{Fleet: d.committed, Leases: d.leases, Vantages: d.vantages, Facts: facts{}, Writer: w}, time.Second)
		defer runStatus(t, status)()
		elapse(2 * time.Second)
		if w.writes.Load() != 0 {
			t.Error("a leader that has listened for two ticks wrote a status")
		}
		elapse(4 * time.Second)
		list, _, err := d.committed.Clusters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c := meta.FindStatusCondition(list[0].Status.Conditions, v1alpha1.ConditionReady); c.Reason != "Silent" {
			t.Errorf("a cluster that nobody hears is %s", c.Reason)
		}
	})
}

// A cluster that was announced and never came was listed as heard by nobody, and
// was then taken for a lost one: with it every loss of a center spanned two.
func TestAClusterThatNeverJoinedHasNoVantage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.store.kvs = nil
		d.store.put(t, "clusters", "north-1", cluster("north-1"))
		d.store.put(t, "clusters", "north-2", cluster("north-2"))
		defer d.lead(t)()
		w := &writer{t: t, store: d.store}
		status := NewClusterStatus(ClusterStatusConfig{Fleet: d.committed, Leases: d.leases, Vantages: d.vantages, Facts: facts{}, Writer: w}, time.Second)
		defer runStatus(t, status)()
		for seq := range uint64(12) {
			if _, err := d.leaser.Hear(t.Context(), beat("a", "north-1", seq+1)); err != nil {
				t.Fatal(err)
			}
			elapse(time.Second)
		}
		list, _, err := d.committed.Clusters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, c := range list {
			got[c.Name] = c.HasJoined()
		}
		if diff := cmp.Diff(map[string]bool{"north-1": true, "north-2": false}, got); diff != "" {
			t.Errorf("joined (-want +got):\n%s", diff)
		}
		for _, c := range list {
			if c.Name == "north-2" && (len(c.Status.Vantages) > 0 || meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady).Reason != "NotJoined") {
				t.Errorf("status of a cluster that never joined: %+v", c.Status)
			}
		}
	})
}

// runStatus has a leader keep the status of clusters until it is told to stop.
func runStatus(t *testing.T, status *ClusterStatus) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = status.Run(ctx, 7)
	}()
	return func() { cancel(); <-done }
}
