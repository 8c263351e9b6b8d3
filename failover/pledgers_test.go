package failover

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func TestPledgers(t *testing.T) {
	for name, tc := range map[string]struct {
		syncSet []string
		primary string
		want    string
	}{
		"the rest of the sync set":                               {[]string{"north-1", "north-2"}, "north-1", "north-2"},
		"also when it is elsewhere":                              {[]string{"north-1", "south-1"}, "north-1", "south-1"},
		"all of it":                                              {[]string{"north-1", "north-2", "south-1"}, "north-2", "north-1,south-1"},
		"a primary that is alone in it asks its region":          {[]string{"north-1"}, "north-1", "north-2"},
		"an asynchronous one too":                                {nil, "north-1", "north-2"},
		"one that is alone in its region asks all other members": {[]string{"south-1"}, "south-1", "north-1,north-2"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := w.db().DeepCopy()
			d.Status.Primary, d.Status.SyncSet = tc.primary, tc.syncSet
			for _, m := range d.Spec.Members {
				d.Status.Members = append(d.Status.Members, v1alpha1.DatasetMemberStatus{Cluster: m.Cluster})
			}
			d.Spec.Members = append(d.Spec.Members, v1alpha1.DatasetMember{Cluster: "north-9"}) // not reported yet
			if got := strings.Join(Pledgers(w.s.Fleet, d), ","); got != tc.want {
				t.Errorf("pledgers are %s, want %s", got, tc.want)
			}
		})
	}
}

func TestWhoMustWithholdPledgesBeforeTimeIsAProof(t *testing.T) {
	for name, tc := range map[string]struct {
		syncSet []string
		target  string
		off     bool
		want    string
	}{
		"nobody, when the target's own pledge is needed":           {[]string{"north-1", "north-2"}, "north-2", false, ""},
		"nor when it is one of several":                            {[]string{"north-1", "north-2", "south-1"}, "south-1", false, ""},
		"every pledger, when the target is none":                   {[]string{"north-1", "north-2"}, "south-1", false, "north-2"},
		"all others, when it was alone: nobody knows whom it asks": {[]string{"north-1"}, "south-1", false, "north-2"},
		"also when the target is near":                             {[]string{"north-1"}, "north-2", false, "south-1"},
		"and without a sync set":                                   {nil, "south-1", false, "north-2"},
		"nobody where agents do not live on pledges":               {[]string{"north-1", "north-2"}, "south-1", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := w.db().DeepCopy()
			d.Status.Failsafe = !tc.off
			d.Status.Primary, d.Status.SyncSet = tc.target, tc.syncSet
			if got := strings.Join(w.s.withholders(d, "north-1"), ","); got != tc.want {
				t.Errorf("%q must withhold, want %q", got, tc.want)
			}
		})
	}
}

// Whatever sync sets the primary may have been told of, and whoever is promoted:
// it needs a pledge of the target or of one that must withhold. A member of the
// committed sync set is always among those whose pledge it needs, and at least one
// is; nothing else is known.
func TestWhoeverThePrimaryAsksIsTheTargetOrWithholds(t *testing.T) {
	w := newWorld(t)
	d := w.db().DeepCopy()
	d.Status.Failsafe = true
	d.Spec.Members = append(d.Spec.Members, v1alpha1.DatasetMember{Cluster: "south-2"})
	others := []string{"north-2", "south-1", "south-2"}
	subset := func(bits int) []string {
		var names []string
		for i, name := range others {
			if bits&(1<<i) != 0 {
				names = append(names, name)
			}
		}
		return names
	}
	for committed := range 8 {
		for asked := 1; asked < 8; asked++ {
			if asked&committed != committed {
				continue
			}
			for _, target := range others {
				d.Status.Primary, d.Status.SyncSet = target, append([]string{"north-1"}, subset(committed)...)
				stops := append(w.s.withholders(d, "north-1"), target)
				if !slices.ContainsFunc(subset(asked), func(name string) bool { return slices.Contains(stops, name) }) {
					t.Errorf("sync set %v, target %s: the primary lives on pledges of %v, and only %v stop", d.Status.SyncSet, target, subset(asked), stops)
				}
			}
		}
	}
}

// livesOnPledges has the fleet's agents reach each other, and the primary's last
// grant offer pledges.
func (w *world) livesOnPledges() {
	for i := range w.s.Fleet.Clusters {
		w.s.Fleet.Clusters[i].AgentAddress = w.s.Fleet.Clusters[i].Name + ":7443"
	}
	w.turn()
	if !w.db().Status.Failsafe {
		w.t.Fatal("agents reach each other, and pledges are not offered")
	}
}

// What a grant may offer is committed before, and stays until a stop is proven.
func TestPledgesAreOfferedWhenAllPledgersCanBeAsked(t *testing.T) {
	w := newWorld(t).steady()
	w.turns(3)
	if w.db().Status.Failsafe {
		t.Error("pledges are offered although no agent has an address")
	}
	w.livesOnPledges()
	w.s.Fleet.Clusters[1].AgentAddress = ""
	w.turns(3)
	if !w.db().Status.Failsafe {
		t.Error("a grant that was given may still be lived on")
	}
}

// A member that has left may be the one whose pledge keeps the primary.
func TestAFormerMemberMustWithholdToo(t *testing.T) {
	w := newWorld(t).steady()
	w.livesOnPledges()
	d := w.db().DeepCopy()
	d.Spec.Members = slices.DeleteFunc(d.Spec.Members, func(m v1alpha1.DatasetMember) bool { return m.Cluster == "north-2" })
	d.Status.SyncSet = []string{"north-1"}
	w.s.Datasets[0] = d
	w.turn()
	if got := w.db().Status.FormerMembers; !slices.Equal(got, []string{"north-2"}) {
		t.Fatalf("former members %v", got)
	}
	d = w.db().DeepCopy()
	d.Status.Primary = "south-1"
	if got := w.s.withholders(d, "north-1"); !slices.Equal(got, []string{"north-2"}) {
		t.Errorf("%v must withhold, want the member that has left", got)
	}
}

// remote orders a failover of a silent primary to the remote center, which is in
// no sync set, with the given ones silent too, and has the loss approved.
func (w *world) remote(silent ...string) {
	w.livesOnPledges()
	answer := w.answer
	w.answer = func(c Command) (Result, bool) {
		if c.Verb == VerbFence {
			return Result{Outcome: Unreachable}, true
		}
		return answer(c)
	}
	w.order("south-1")
	w.s.Previous = w.det
	for range 30 { // silent, and nobody has decided by itself yet
		w.pass(100*time.Millisecond, silent...)
	}
	for range 60 {
		w.pass(100*time.Millisecond, silent...)
		w.turn()
		if w.run().Status.Phase == v1alpha1.RunAwaitingApproval && len(w.s.Approvals) == 0 {
			w.approve("ben", w.run().Status.Loss.Seconds)
		}
	}
}

func (w *world) withheldBy() []string {
	var names []string
	for _, c := range w.sent {
		if c.Verb == VerbWithhold && !slices.Contains(names, c.Cluster) {
			names = append(names, c.Cluster)
		}
	}
	return names
}

func TestTheTargetsOwnPledgeNeedsNoOthers(t *testing.T) {
	w := newWorld(t).steady()
	w.livesOnPledges()
	w.lose("north-1")
	w.turns(4)
	if run := w.run(); run.Status.Phase != v1alpha1.RunCompleted || run.Status.Datasets[0].FenceProof != v1alpha1.FenceElapsed {
		t.Fatalf("run is %s (%s)", run.Status.Phase, run.Status.Message)
	}
	if got := w.withheldBy(); got != nil {
		t.Errorf("%v were asked for nothing", got)
	}
}

func TestARemoteTargetWaitsUntilThePledgersWithhold(t *testing.T) {
	w := newWorld(t).steady()
	answered := false
	w.answer = func(c Command) (Result, bool) {
		if c.Verb == VerbWithhold && !answered {
			return Result{Outcome: Failed, Message: "the last pledge is not over"}, true
		}
		return Result{Outcome: Done, Position: "0/3000000", Timeline: 2}, true
	}
	w.remote("north-1")
	if got := w.withheldBy(); !slices.Equal(got, []string{"north-2"}) || w.count(VerbPromote) != 0 {
		t.Fatalf("%v were asked to withhold, %d promotions, run %+v", got, w.count(VerbPromote), w.run().Status)
	}
	if loss := w.run().Status.Loss; loss == nil || loss.Seconds != unknownLoss || !strings.Contains(loss.Message, "when last observed") {
		t.Errorf("the approver was shown %+v, but pledges may have kept the primary writing", loss)
	}
	answered = true
	for range 20 {
		w.pass(100*time.Millisecond, "north-1")
		w.turn()
	}
	if run := w.run(); run.Status.Phase != v1alpha1.RunCompleted || run.Status.Datasets[0].FenceProof != v1alpha1.FenceElapsed || w.db().Status.Primary != "south-1" {
		t.Fatalf("run is %s (%s), primary %s", run.Status.Phase, run.Status.Message, w.db().Status.Primary)
	}
}

func TestASilentCityIsNotReplacedByTimeAlone(t *testing.T) {
	w := newWorld(t).steady()
	w.remote("north-1", "north-2")
	for range 600 {
		w.pass(100*time.Millisecond, "north-1", "north-2")
		w.turn()
	}
	run := w.run()
	if run.Status.Phase != v1alpha1.RunPaused || run.Status.Reason != ReasonFenceUnproven || !strings.Contains(run.Status.Message, "north-2") || w.count(VerbPromote) != 0 {
		t.Fatalf("run is %s (%s: %s), %d promotions", run.Status.Phase, run.Status.Reason, run.Status.Message, w.count(VerbPromote))
	}
	for range 20 {
		w.pass(100*time.Millisecond, "north-1")
		w.turn()
	}
	if run = w.run(); run.Status.Phase != v1alpha1.RunCompleted || w.db().Status.Primary != "south-1" {
		t.Fatalf("run is %s (%s: %s) although north-2 is heard again", run.Status.Phase, run.Status.Reason, run.Status.Message)
	}
}

func TestAPledgerThatRefusesStopsTheRun(t *testing.T) {
	w := newWorld(t).steady()
	w.answer = func(c Command) (Result, bool) {
		if c.Verb == VerbWithhold {
			return Result{Outcome: Refused, Message: "a newer epoch was seen"}, true
		}
		return Result{Outcome: Done}, true
	}
	w.remote("north-1")
	if run := w.run(); run.Status.Phase != v1alpha1.RunPaused || run.Status.Reason != ReasonRefused || w.count(VerbPromote) != 0 {
		t.Fatalf("run is %s (%s: %s), %d promotions", run.Status.Phase, run.Status.Reason, run.Status.Message, w.count(VerbPromote))
	}
}

// The loss was approved when the primary was heard; then it fell silent, and
// pledges may have kept it writing for longer than its lease.
func TestALossThatGrewOnPledgesIsAskedForAgain(t *testing.T) {
	t.Run("when time and acknowledgements prove that it stopped", func(t *testing.T) { lossGrows(t, "north-1") })
	t.Run("when it is heard again and says so itself", func(t *testing.T) { lossGrows(t) })
}

// lossGrows plays it with the clusters that are silent at the end.
func lossGrows(t *testing.T, atEnd ...string) {
	w := newWorld(t).steady()
	w.livesOnPledges()
	fence, named := w.s.Fence, w.s.Uptime // of the last renewal that named the role
	w.s.Fence = func(cluster string, revision int64) (bool, time.Duration) {
		over, age := fence(cluster, 0)
		if revision != 0 && cluster == "north-1" {
			age = w.s.Uptime - named
		}
		return over, age
	}
	w.answer = func(c Command) (Result, bool) {
		if c.Verb == VerbFence && len(atEnd) > 0 || w.s.Uptime < time.Hour+20*time.Second && (c.Verb == VerbFence || c.Verb == VerbWithhold) {
			return Result{Outcome: Unreachable}, true
		}
		return Result{Outcome: Done, Position: "0/3000000", Timeline: 2}, true
	}
	w.order("south-1")
	w.turns(3)
	w.approve("ben", w.run().Status.Loss.Seconds)
	w.beats(3) // what pledges let the primary write after that, no leader has seen
	for range 200 {
		w.pass(100*time.Millisecond, "north-1")
		w.turn()
	}
	for range 50 {
		w.pass(100*time.Millisecond, atEnd...)
		w.turn()
	}
	run := w.run()
	if run.Status.Phase != v1alpha1.RunPaused || run.Status.Reason != ReasonLossGrown || w.count(VerbPromote) != 0 {
		t.Fatalf("run is %s (%s: %s), %d promotions", run.Status.Phase, run.Status.Reason, run.Status.Message, w.count(VerbPromote))
	}
	w.approve("ben", w.run().Status.Loss.Seconds)
	w.s.Approvals[len(w.s.Approvals)-1].Spec.Step = stepResume
	for range 20 {
		w.pass(100*time.Millisecond, atEnd...)
		w.turn()
	}
	if run = w.run(); run.Status.Phase != v1alpha1.RunCompleted || w.db().Status.Primary != "south-1" {
		t.Fatalf("run is %s (%s: %s) after the approval", run.Status.Phase, run.Status.Reason, run.Status.Message)
	}
}
