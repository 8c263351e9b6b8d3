package failover

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// see sets what the agent of a cluster reports of its copy.
func (w *world) see(cluster string, role v1alpha1.Role, state v1alpha1.MemberState, epoch int64) {
	w.s.Observed[Copy{ledger, cluster}] = Observed{Role: role, State: state, Epoch: epoch, Guarded: v1alpha1.Guarded, Runs: time.Minute}
}

// A metro failover while the remote leg is being copied anew: neither then, nor
// after its cluster or the hub's leader was lost, does the part of a copy look as
// if it could take over.
func TestALegThatIsBeingCopiedIsNoTarget(t *testing.T) {
	w := newWorld(t).steady()
	w.see("south-1", v1alpha1.RoleNone, v1alpha1.StateCopying, 1)
	w.turn()
	w.lose("north-1")
	w.turns(4)
	if st := w.db().Status; st.Primary != "north-2" || st.Phase != v1alpha1.DatasetSteady {
		t.Fatalf("the metro failover: %+v", st)
	}
	for name, after := range map[string]func(){
		"while it is copied":                         func() {},
		"its copy was torn, it does not run":         func() { w.see("south-1", v1alpha1.RoleNone, v1alpha1.StateStopped, 1) },
		"its agent came back and saw nothing yet":    func() { w.see("south-1", v1alpha1.RoleNone, v1alpha1.StateUnknown, 0) },
		"a new leader has not heard its agent yet":   func() { delete(w.s.Observed, Copy{ledger, "south-1"}) },
		"it was fenced, as a copy of an old primary": func() { w.see("south-1", v1alpha1.RoleNone, v1alpha1.StateFenced, 2) },
	} {
		after()
		w.turn()
		if _, why := weigh(&w.s, w.det, w.app(), w.s.Datasets, "south-1"); !strings.Contains(why, "being made anew") {
			t.Errorf("%s: %q", name, why)
		}
		if c := checkOf(w.app(), "ReplicationLag", "south-1"); c.Result != v1alpha1.PreflightFailed {
			t.Errorf("%s: the preflight says %+v", name, c)
		}
	}
	w.ordered("north-2", "south-1")
	w.turns(2)
	if run := w.run(); run.Status.Phase != v1alpha1.RunPreflight || w.db().Status.Epoch != 2 {
		t.Errorf("an ordered failover to it is %s: %s", run.Status.Phase, run.Status.Message)
	}
}

// A heartbeat from before a copy was made anew comes late, when the copy is torn: a word
// that it runs makes a part of a copy whole only when it was surely said after that.
func TestALateWordDoesNotMakeAPartOfACopyWhole(t *testing.T) {
	streams := func(runs, age time.Duration) Observed {
		return Observed{Role: v1alpha1.RoleReplica, State: v1alpha1.StateStreaming, Epoch: 1, Guarded: v1alpha1.Guarded, Runs: runs, Age: age}
	}
	for name, tc := range map[string]struct {
		word     Observed
		watching time.Duration
		part     bool
	}{
		"one word":                         {streams(0, 0), time.Hour, true},
		"words of less than a lease's TTL": {streams(ttl-tick, 0), time.Hour, true},
		"words of a TTL":                   {streams(ttl, 0), time.Hour, false},
		"and this leader is new":           {streams(time.Minute, 0), ttl - tick, true},
		"and it has heard none itself":     {streams(time.Minute, ttl), ttl + tick, true},
	} {
		for _, made := range []Observed{{State: v1alpha1.StateCopying, Epoch: 1}, {State: v1alpha1.StateStopped, Copy: v1alpha1.CopyEmpty}} {
			w := newWorld(t).steady()
			w.s.Observed[Copy{ledger, "north-2"}] = made
			w.turn()
			w.s.Fleet.Watching = tc.watching
			w.s.Observed[Copy{ledger, "north-2"}] = tc.word
			w.turn()
			w.s.Fleet.Watching = time.Hour
			w.see("north-2", v1alpha1.RoleNone, v1alpha1.StateStopped, 1) // it is torn, and says nothing of that
			w.turn()
			if _, why := weigh(&w.s, w.det, w.app(), w.s.Datasets, "north-2"); (why != "") != tc.part {
				t.Errorf("%s after %s%s: %q", name, made.State, made.Copy, why)
			}
		}
	}
}

// The third leg follows the new primary as soon as that is proven by a write, and is
// a target again when its copy runs. It never is in the sync set.
func TestTheThirdLegIsProtectedAnewInOrder(t *testing.T) {
	w := newWorld(t).steady()
	w.see("south-1", v1alpha1.RoleNone, v1alpha1.StateCopying, 1)
	w.turn()
	w.lose("north-1")
	w.sent = nil
	w.turns(4)
	w.see("north-2", v1alpha1.RolePrimary, v1alpha1.StateRunning, 2)
	w.see("south-1", v1alpha1.RoleNone, v1alpha1.StateStopped, 1)
	w.pass(100*time.Millisecond, "north-1")
	w.turns(2)
	for _, c := range w.sent {
		if c.Verb == VerbFollow && (c.Epoch != 2 || c.Cluster != "south-1") {
			t.Errorf("told to follow before the new primary was proven: %+v", c)
		}
	}
	if w.count(VerbFollow) != 1 {
		t.Errorf("the third leg was told to follow %d times", w.count(VerbFollow))
	}
	zero := int64(0)
	w.s.Observed[Copy{ledger, "south-1"}] = Observed{Role: v1alpha1.RoleReplica, State: v1alpha1.StateStreaming, Epoch: 2, LagBytes: &zero, LagSeconds: &zero, Runs: time.Minute}
	w.s.Observed[Copy{ledger, "north-2"}] = Observed{Role: v1alpha1.RolePrimary, State: v1alpha1.StateRunning, Epoch: 2, Guarded: v1alpha1.Guarded,
		Streaming: []string{"south-1"}, CaughtUp: []string{"south-1"}}
	w.turns(2)
	if c, why := weigh(&w.s, w.det, w.app(), w.s.Datasets, "south-1"); why != "" || c.sync || c.NeedsApproval == "" {
		t.Errorf("the leg that runs again is %+v %q", c, why)
	}
}

// A synchronous standby whose volume was lost stays in the committed sync set under
// ZeroLoss, because no write is acknowledged without it; it is no target all the same.
func TestACopyOfTheSyncSetThatIsMadeAnewIsNotPromoted(t *testing.T) {
	w := newWorld(t).steady()
	w.see("north-2", v1alpha1.RoleNone, v1alpha1.StateCopying, 1)
	w.turn()
	w.lose("north-1")
	w.turns(3)
	if !inSyncSet(w.db(), "north-2") || w.db().Status.Epoch != 1 {
		t.Errorf("epoch %d, sync set %v, runs %d", w.db().Status.Epoch, w.db().Status.SyncSet, len(w.s.Runs))
	}
}

func (w *world) ordered(from, to string) {
	w.order(to)
	run := w.run()
	run.Spec.From = v1alpha1.Place{Cluster: from}
	run.CreationTimestamp = metav1.NewTime(w.s.Now)
}

func checkOf(app *v1alpha1.Application, check, target string) v1alpha1.PreflightCheck {
	for _, c := range app.Status.Preflight {
		if c.Check == check && c.Target == target {
			return c
		}
	}
	return v1alpha1.PreflightCheck{}
}

// The third leg has not followed the new primary: it is told to, and may be made
// anew while somebody orders the role to go there.
func TestACopyThatHasNotFollowedAHealthyPrimaryIsNoTarget(t *testing.T) {
	w := newWorld(t).steady()
	d := w.db().DeepCopy()
	d.Status.Primary, d.Status.Epoch = "north-2", 2
	w.stamp(d)
	replace(w.s.Datasets, d)
	w.replicate()
	old := w.s.Observed[Copy{ledger, "south-1"}]
	old.Epoch = 1
	w.s.Observed[Copy{ledger, "south-1"}] = old
	det := Detection{Classes: map[string]Class{"north-1": Healthy, "north-2": Healthy, "south-1": Healthy}}
	if _, why := weigh(&w.s, det, w.app(), w.s.Datasets, "south-1"); !strings.Contains(why, "has not followed north-2") {
		t.Errorf("it is a target: %q", why)
	}
	det.Classes["north-2"] = Lost
	if _, why := weigh(&w.s, det, w.app(), w.s.Datasets, "south-1"); why != "" {
		t.Errorf("the primary is lost, and what is left is no target: %s", why)
	}
}

// After a failover both other legs are made anew at once, and neither waits for the
// other. The one of the same city joins the sync set whatever the remote one is at,
// and is taken first; the remote one never joins, and needs a person.
func TestBothLegsAreProtectedAnewEachByItself(t *testing.T) {
	w := newWorld(t).steady()
	w.lose("north-1")
	w.turns(4)
	zero := int64(0)
	whole := Observed{Role: v1alpha1.RoleReplica, State: v1alpha1.StateStreaming, Epoch: 2, LagBytes: &zero, LagSeconds: &zero, Guarded: v1alpha1.Guarded, Runs: time.Minute}
	primary := func(streams ...string) {
		w.s.Observed[Copy{ledger, "north-2"}] = Observed{Role: v1alpha1.RolePrimary, State: v1alpha1.StateRunning, Epoch: 2,
			Guarded: v1alpha1.Guarded, Streaming: streams, CaughtUp: streams}
	}
	primary()
	w.see("north-1", v1alpha1.RoleNone, v1alpha1.StateCopying, 2)
	w.see("south-1", v1alpha1.RoleNone, v1alpha1.StateCopying, 2)
	w.pass(100 * time.Millisecond)
	w.turns(2)
	if c, why := Choose(&w.s, w.det, w.app(), w.s.Datasets); why == "" {
		t.Fatalf("while both are copied, %s is a target", c.Cluster)
	}

	w.s.Observed[Copy{ledger, "south-1"}] = whole
	primary("south-1")
	w.sent = nil
	w.turns(3)
	c, why := Choose(&w.s, w.det, w.app(), w.s.Datasets)
	if why != "" || c.Cluster != "south-1" || c.NeedsApproval == "" {
		t.Errorf("the remote leg is whole first: %+v %q", c, why)
	}
	if set := w.db().Status.SyncSet; len(set) != 1 || w.count(VerbSetSyncSet) != 0 {
		t.Errorf("the remote leg joined: %v, asked %d times", set, w.count(VerbSetSyncSet))
	}

	w.s.Observed[Copy{ledger, "north-1"}] = whole
	primary("north-1", "south-1")
	w.turns(2)
	for _, sent := range w.sent {
		if sent.Verb == VerbSetSyncSet && strings.Join(sent.SyncSet, ",") != "north-2,north-1" {
			t.Errorf("the primary is told to wait for %v", sent.SyncSet)
		}
	}
	o := w.s.Observed[Copy{ledger, "north-2"}]
	o.Acknowledges = []string{"north-1"}
	w.s.Observed[Copy{ledger, "north-2"}] = o
	w.pass(100 * time.Millisecond)
	w.turns(2)
	if !inSyncSet(w.db(), "north-1") || inSyncSet(w.db(), "south-1") {
		t.Errorf("the sync set is %v", w.db().Status.SyncSet)
	}
	if c, why := Choose(&w.s, w.det, w.app(), w.s.Datasets); why != "" || c.Cluster != "north-1" {
		t.Errorf("both are whole: %+v %q", c, why)
	}
}
