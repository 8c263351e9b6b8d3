package failover

import (
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// found is what an agent says whose driver claims a stop that it did not find.
const found = "dataset pay/ledger-db: driver shelf says that its copy in north-1 has stopped, which is not believed: 10.0.0.1:7000 accepts connections"

// lies plays a fleet in which the stops of north-1 that are in verbs are not found to be
// any, for as long as they are in it.
func (w *world) lies(verbs map[Verb]bool) {
	w.answer = func(c Command) (Result, bool) {
		if verbs[c.Verb] && c.Cluster == "north-1" {
			return Result{Outcome: Failed, Message: found}, true
		}
		return inOrder(c)
	}
}

// unguard has the copies say that no guard stops them, as a driver without one does.
func (w *world) unguard() {
	for c, o := range w.s.Observed {
		o.Guarded = v1alpha1.Unguarded
		w.s.Observed[c] = o
	}
	w.beats(2)
}

// S16: a fence that its agent does not find to be one promotes nobody, for however long,
// and whoever looks at the run reads why, at every moment. When it is one, the run goes
// on by itself.
func TestAFenceThatIsNoneIsWaitedForAndSaid(t *testing.T) {
	w := newWorld(t).steady()
	w.unguard()
	w.order("north-2")
	lying := map[Verb]bool{VerbFence: true}
	w.lies(lying)
	w.at(v1alpha1.DatasetFencing, 2)
	w.beats(4)
	for range 600 {
		w.beats(1)
		st := w.run().Status
		for _, want := range []string{"north-1 is not proven stopped", found, "tripodctl attest ordered"} {
			if !strings.Contains(st.Message, want) {
				t.Fatalf("the run is %s, and says %q, want %q", st.Phase, st.Message, want)
			}
		}
		if w.count(VerbPromote) != 0 || w.db().Status.Phase != v1alpha1.DatasetFencing || st.Phase != v1alpha1.RunFencing {
			t.Fatalf("%d promotions, the dataset is %s, the run %s", w.count(VerbPromote), w.db().Status.Phase, st.Phase)
		}
	}
	if n := w.count(VerbFence); n < quickFences || n > 25 {
		t.Errorf("it was fenced %d times in a minute: often at first, then every %v", n, slowFence*w.s.Config.Retry)
	}
	lying[VerbFence] = false
	w.beats(120)
	run := w.run()
	if run.Status.Phase != v1alpha1.RunCompleted || run.Status.Datasets[0].FenceProof != v1alpha1.FenceAcknowledged || run.Status.Message != "" {
		t.Errorf("the run is %s with the proof %q: %s", run.Status.Phase, run.Status.Datasets[0].FenceProof, run.Status.Message)
	}
}

// What nobody believes is no reason to swear: an attestation counts when nobody hears the
// cluster any more, and the run says how to make one when its power is off.
func TestAFenceThatIsNoneIsReplacedByTwoPeoplesWord(t *testing.T) {
	w := newWorld(t).steady()
	w.unguard()
	w.order("north-2")
	w.lies(map[Verb]bool{VerbFence: true})
	w.at(v1alpha1.DatasetFencing, 2)
	w.attest("cleo", "north-1")
	w.attest("ben", "north-1")
	w.beats(20)
	if w.count(VerbPromote) != 0 {
		t.Fatal("people's word counted of a cluster that is heard")
	}
	run := w.goOn("north-1")
	for range 3 {
		run = w.goOn("north-1")
	}
	if run.Status.Phase != v1alpha1.RunCompleted || run.Status.Datasets[0].FenceProof != v1alpha1.FenceAttested {
		t.Errorf("the run is %s (%s: %s), its proof %q", run.Status.Phase, run.Status.Reason, run.Status.Message, run.Status.Datasets[0].FenceProof)
	}
}

// A source that claims to be closed is not: nothing is moved, and it writes on. One that
// is closed and not fenced: nobody is promoted, and the run returns at its limit, with
// the agent's sentence.
func TestASwitchoverFromACopyThatOnlyClaimsToStop(t *testing.T) {
	for name, tc := range map[string]struct {
		lying  []Verb
		reason string
		epoch  int64
	}{
		"the close":                 {[]Verb{VerbClose}, ReasonNotClosed, 1},
		"the fence":                 {[]Verb{VerbFence}, ReasonPauseLimit, 3},
		"the close, then the fence": {[]Verb{VerbClose, VerbFence}, ReasonNotClosed, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.unguard()
			w.plan("north-2", 3)
			lying := map[Verb]bool{}
			for _, v := range tc.lying {
				lying[v] = true
			}
			w.lies(lying)
			w.beats(int(5 * time.Second / (100 * time.Millisecond)))
			w.atSource(tc.reason, tc.epoch)
			for _, c := range w.sent {
				if c.Verb == VerbPromote && c.Cluster == "north-2" {
					t.Errorf("north-2 is promoted by %s", c.ID)
				}
			}
			if message := w.planned().Status.Message; !strings.Contains(message, found) {
				t.Errorf("the run says %q", message)
			}
		})
	}
}
