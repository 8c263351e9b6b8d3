package failover

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// held says that a copy surely held everything some time ago.
func (w *world) held(cluster string, ago time.Duration) {
	o := w.s.Observed[Copy{ledger, cluster}]
	o.Held = &ago
	w.s.Observed[Copy{ledger, cluster}] = o
}

// silence lets time go by for a copy that receives nothing any more.
func (w *world) silence(d time.Duration, silent ...string) {
	for ; d > 0; d -= 100 * time.Millisecond {
		w.held("south-1", *w.s.Observed[Copy{ledger, "south-1"}].Held+100*time.Millisecond)
		w.pass(100*time.Millisecond, silent...)
		w.turn()
	}
}

func TestTheLossIsBoundedByWhatTheTargetSurelyHolds(t *testing.T) {
	for name, tc := range map[string]struct {
		held, silent time.Duration
		change       func(w *world)
		want         int64 // a lease bound of 7.5 s, and 5 s for a heartbeat under way
		message      string
	}{
		"a primary that is heard":                        {time.Second, 0, func(*world) {}, 15, "in 15 s"},
		"one that fell silent with the copy's stream":    {20 * time.Second, 20 * time.Second, func(*world) {}, 14, "in 14 s"},
		"one that was cut off from the copy before":      {50 * time.Second, 20 * time.Second, func(*world) {}, 44, "in 44 s"},
		"one that pledges may keep":                      {20 * time.Second, 20 * time.Second, (*world).livesOnPledges, 334, "in 26 s so far, and what is until north-1 is proven stopped"},
		"one that nothing guards":                        {20 * time.Second, 20 * time.Second, (*world).unguarded, 334, "not every process"},
		"one that pledges may keep, and that is heard":   {2 * time.Second, 0, (*world).livesOnPledges, 16, "in 16 s"},
		"one that nobody has seen level with the target": {-1, 20 * time.Second, (*world).livesOnPledges, unknownLoss, "unknown, because north-1 is not heard"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			tc.change(w)
			w.pass(tc.silent, "north-1")
			if tc.held >= 0 {
				w.held("south-1", tc.held)
			}
			loss := EstimateLoss(&w.s, w.db(), "south-1")
			if loss.Seconds != tc.want || !strings.Contains(loss.Message, tc.message) || (loss.Extent == v1alpha1.LossUnknown) != (tc.held < 0) {
				t.Errorf("%+v, want %d s and %q", loss, tc.want, tc.message)
			}
		})
	}
}

// unguarded makes the primary one that time does not stop.
func (w *world) unguarded() {
	d := w.db().DeepCopy()
	memberStatus(d, "north-1").Guarded = v1alpha1.Unguarded
	w.s.Datasets[0] = d
}

// S3: the city falls silent, and the remote copy takes over. What is lost is bounded,
// however long the city may have gone on, and asked about again if it is more than was
// accepted.
func TestWhatASilentCityWritesIsNotMoreThanWasAccepted(t *testing.T) {
	for name, tc := range map[string]struct {
		until time.Duration // the fence is proven
		asks  bool
	}{
		"when its stop is proven in time": {time.Minute, false},
		"when that takes too long":        {7 * time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.livesOnPledges()
			w.answer = func(c Command) (Result, bool) {
				if c.Verb == VerbFence || c.Verb == VerbWithhold {
					return Result{Outcome: Unreachable}, true
				}
				return Result{Outcome: Done, Position: "0/3000000", Timeline: 2}, true
			}
			w.held("south-1", time.Second)
			city := []string{"north-1", "north-2"}
			w.silence(20*time.Second, city...)
			w.order("south-1")
			w.silence(time.Second, city...)
			shown := *w.run().Status.Loss
			if shown.Extent == v1alpha1.LossUnknown || shown.Seconds < 300 || shown.Seconds > 400 {
				t.Fatalf("shown: %+v", shown)
			}
			w.approve("ben", shown.Seconds)
			w.silence(2*time.Second, city...)
			if w.run().Status.Phase != v1alpha1.RunPaused || w.run().Status.Reason != ReasonFenceUnproven {
				t.Fatalf("run is %s %s: %s", w.run().Status.Phase, w.run().Status.Reason, w.run().Status.Message)
			}
			w.silence(tc.until, city...)
			w.attest("ben", "north-1")
			w.attest("cat", "north-1")
			w.silence(2*time.Second, city...)
			if !tc.asks {
				run := w.run()
				if run.Status.Phase != v1alpha1.RunCompleted {
					t.Fatalf("run is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
				}
				// 86 s without the city, one before it fell silent, and 5 s for a heartbeat.
				if rpo := run.Status.Measured.RPO; !strings.HasPrefix(rpo, "at most 9") || !strings.Contains(rpo, fmt.Sprintf("; %d s accepted", shown.Seconds)) {
					t.Errorf("the run reports RPO %q, %d s were accepted", rpo, shown.Seconds)
				}
				return
			}
			run := w.run()
			if run.Status.Reason != ReasonLossGrown || run.Status.Loss.Seconds <= shown.Seconds || !strings.Contains(run.Status.Message, "--accept-loss 4") || w.count(VerbPromote) != 0 {
				t.Fatalf("run is %s %s: %s, loss %+v", run.Status.Phase, run.Status.Reason, run.Status.Message, run.Status.Loss)
			}
			w.approve("ben", shown.Seconds) // what was shown before
			w.s.Approvals[len(w.s.Approvals)-1].Spec.Step = stepResume
			w.silence(2*time.Second, city...)
			if w.run().Status.Phase != v1alpha1.RunPaused {
				t.Fatalf("run is %s on an approval of less", w.run().Status.Phase)
			}
			w.approve("cat", run.Status.Loss.Seconds)
			w.s.Approvals[len(w.s.Approvals)-1].Spec.Step = stepResume
			w.silence(2*time.Second, city...)
			if w.run().Status.Phase != v1alpha1.RunCompleted {
				t.Errorf("run is %s %s: %s", w.run().Status.Phase, w.run().Status.Reason, w.run().Status.Message)
			}
		})
	}
}

// A move to the remote copy is accepted while the primary is heard. Then the copy is
// away, the primary goes on, and is lost: the leader that finds it stopped has seen
// nothing of that itself.
func TestWhatWasWrittenAfterAnApprovalIsNotMoreThanWasAccepted(t *testing.T) {
	seconds := func(n int64) *int64 { return &n }
	for name, tc := range map[string]struct {
		lag   *int64 // that the copy tells, when it is back
		sworn bool   // that the primary is off, when its lease is over: two proofs at once
		want  string
	}{
		"the copy says that it lacks little":            {seconds(5), false, ""},
		"the copy says that it lacks more":              {seconds(60), false, "is 6"},
		"the copy says nothing":                         {nil, false, "is unknown, because north-1 may have gone on"},
		"the copy says that it lacks more, two proofs":  {seconds(60), true, "is 6"},
		"the copy says nothing, and there are two, too": {nil, true, "is unknown, because north-1 may have gone on"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			answer := w.answer
			w.answer = func(c Command) (Result, bool) {
				if c.Verb == VerbFence {
					return Result{Outcome: Unreachable}, true
				}
				return answer(c)
			}
			w.held("south-1", time.Second)
			w.order("south-1")
			w.turns(2)
			shown := *w.run().Status.Loss
			if shown.Seconds != 15 {
				t.Fatalf("shown: %+v", shown)
			}
			w.approve("ben", shown.Seconds)
			w.turns(2)
			w.silence(30*time.Second, "south-1")
			o := w.s.Observed[Copy{ledger, "south-1"}]
			o.Held, o.LagSeconds, o.Age = nil, tc.lag, 0
			w.s.Observed[Copy{ledger, "south-1"}] = o
			d := w.db().DeepCopy()
			memberStatus(d, "south-1").LagSeconds = nil
			w.s.Datasets[0] = d
			if tc.sworn {
				w.attest("ben", "north-1")
				w.attest("cat", "north-1")
			}
			for range 100 {
				w.pass(100*time.Millisecond, "north-1")
				w.turn()
			}
			run := w.run()
			if tc.want == "" {
				if run.Status.Phase == v1alpha1.RunPaused || run.Status.Phase == v1alpha1.RunFencing {
					t.Errorf("run is %s: %s", run.Status.Phase, run.Status.Message)
				}
				return
			}
			if run.Status.Reason != ReasonLossGrown || !strings.Contains(run.Status.Message, tc.want) || w.count(VerbPromote) != 0 {
				t.Errorf("run is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
			}
		})
	}
}

// A copy that says that it lacks nothing lacks what is under way to it. People are shown
// that, and the run reports it; what is reported is covered by what was shown.
func TestWhatACopySaysOfItselfIsNotTheWholeLoss(t *testing.T) {
	w := newWorld(t).steady()
	w.lose("north-1", "north-2") // nobody has seen the copies level
	w.order("south-1")
	w.turns(3)
	if l := w.run().Status.Loss; l == nil || l.Seconds != 14 { // a lease bound of 7.5 s and 5 s under way
		t.Fatalf("shown: %+v", l)
	}
	w.approve("ben", 14)
	for range 40 {
		w.pass(100*time.Millisecond, "north-1", "north-2")
		w.turn()
	}
	run := w.run()
	if run.Status.Phase != v1alpha1.RunCompleted {
		t.Fatalf("run is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
	}
	if rpo := run.Status.Measured.RPO; !strings.HasPrefix(rpo, "at most 6 s") {
		t.Errorf("the run reports RPO %q", rpo)
	}
	told := 0
	for _, n := range w.notes {
		if strings.Contains(n.Text, "lacks at most what north-1 acknowledged in 6 s") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the evidence says %d times what is lost", told)
	}
}

func TestAnUnknownLossIsAcceptedInWords(t *testing.T) {
	w := newWorld(t).steady()
	w.livesOnPledges()
	w.answer = func(Command) (Result, bool) { return Result{}, false }
	for range 300 {
		w.pass(100*time.Millisecond, "north-1", "north-2")
		w.turn()
	}
	w.order("south-1")
	w.turns(3)
	if l := w.run().Status.Loss; l == nil || l.Extent != v1alpha1.LossUnknown || !strings.Contains(w.run().Status.Message, "possible loss (unknown)") {
		t.Fatalf("shown: %+v, %s", l, w.run().Status.Message)
	}
	w.approve("ben", unknownLoss)
	w.s.Approvals[0].Spec.AcceptLoss.Extent = ""
	w.turns(3)
	if w.run().Status.Phase != v1alpha1.RunAwaitingApproval {
		t.Fatalf("run is %s on an approval that does not say it", w.run().Status.Phase)
	}
	w.approve("cat", unknownLoss)
	w.turns(3)
	if w.run().Status.Phase == v1alpha1.RunAwaitingApproval {
		t.Errorf("run is %s", w.run().Status.Phase)
	}
}
