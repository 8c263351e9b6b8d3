package failover

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

const final = 0x3000110

// plan orders a switchover, in a fleet whose copies answer as they should.
func (w *world) plan(to string, limit int32) {
	r := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: "planned", CreationTimestamp: metav1.NewTime(w.s.Now)}}
	r.Spec = v1alpha1.RecoveryRunSpec{Application: v1alpha1.ApplicationReference{Namespace: "pay", Name: "ledger"}, Action: v1alpha1.ActionSwitchover,
		From: v1alpha1.Place{Cluster: "north-1"}, To: v1alpha1.Place{Cluster: to}, Requester: "ann", PauseLimitSeconds: limit}
	w.stamp(r)
	w.s.Runs = append(w.s.Runs, r)
	w.sent, w.answer = nil, inOrder
}

func inOrder(c Command) (Result, bool) {
	return Result{Outcome: Done, Position: "0/3000110", PositionBytes: final, Timeline: 2}, true
}

// unanswered is a fleet in which commands of a verb get no answer.
func unanswered(verbs ...Verb) func(Command) (Result, bool) {
	return func(c Command) (Result, bool) {
		if slices.Contains(verbs, c.Verb) {
			return Result{}, false
		}
		return inOrder(c)
	}
}

func (w *world) abort(by string) {
	w.approve(by, 0)
	a := w.s.Approvals[len(w.s.Approvals)-1]
	a.Spec.Decision, a.Spec.Step, a.Spec.Run, a.Spec.AcceptLoss = v1alpha1.DecisionReject, v1alpha1.StepAbort, "planned", nil
}

// verbs are the commands of the run in the order in which they were first sent.
func (w *world) verbs() string {
	var out []string
	seen := map[string]bool{}
	for _, c := range w.sent {
		if c.Run == "planned" && !seen[c.ID] {
			seen[c.ID] = true
			out = append(out, fmt.Sprintf("%s %s@%d", c.Verb, c.Cluster, c.Epoch))
		}
	}
	return strings.Join(out, ", ")
}

// at lets turns go by until the dataset is in a phase.
func (w *world) at(phase v1alpha1.DatasetPhase, epoch int64) {
	w.t.Helper()
	for range 20 {
		if w.db().Status.Phase == phase && w.db().Status.Epoch == epoch {
			return
		}
		w.beats(1)
	}
	w.t.Fatalf("the dataset is %s at epoch %d, never %s at %d; run %+v", w.db().Status.Phase, w.db().Status.Epoch, phase, epoch, w.run().Status)
}

func (w *world) planned() *v1alpha1.RecoveryRun { return w.s.run("planned") }

// atSource fails the test unless production is open where it was.
func (w *world) atSource(reason string, epoch int64) {
	w.t.Helper()
	run, st := w.planned(), w.db().Status
	if run.Status.Phase != v1alpha1.RunAborted || run.Status.Reason != reason {
		w.t.Errorf("run is %s %s: %s, want Aborted %s", run.Status.Phase, run.Status.Reason, run.Status.Message, reason)
	}
	if st.Phase != v1alpha1.DatasetSteady || st.Primary != "north-1" || st.Epoch != epoch || st.Run != "" || st.CatchUp != nil {
		w.t.Errorf("dataset %+v, want Steady in north-1 at epoch %d", st, epoch)
	}
	if got := w.name().Status.Answers; len(got) != 1 || got[0] != "10.210.0.11" {
		w.t.Errorf("the name leads to %v", got)
	}
}

func TestASwitchoverClosesProvesMovesAndOpens(t *testing.T) {
	for _, to := range []string{"north-2", ""} { // named, or the best
		t.Run(to, func(t *testing.T) { switchOver(t, to) })
	}
}

func switchOver(t *testing.T, to string) {
	w := newWorld(t).steady()
	w.plan(to, 0)
	w.beats(20)
	run, st := w.planned(), w.db().Status
	if run.Status.Phase != v1alpha1.RunCompleted || run.Status.Measured.RPO != "0" || run.Status.Measured.PauseSeconds == "" {
		t.Fatalf("run is %s (%s), measured %+v", run.Status.Phase, run.Status.Message, run.Status.Measured)
	}
	if st.Primary != "north-2" || st.Epoch != 2 || st.Phase != v1alpha1.DatasetSteady || st.CatchUp != nil || w.name().Status.Answers[0] != "10.210.0.12" {
		t.Errorf("dataset %+v, name %+v", st, w.name().Status)
	}
	const want = "CLOSE north-1@1, CATCH_UP north-2@1, FENCE north-1@2, PROMOTE north-2@2, SET_SYNC_SET north-2@2, PROBE north-2@2"
	if got := w.verbs(); got != want {
		t.Errorf("commanded %s\n   want %s", got, want)
	}
	for _, c := range w.sent {
		waits := strings.Join(c.SyncSet, ",")
		switch {
		case c.Verb == VerbCatchUp && c.PositionBytes != final,
			c.Verb == VerbPromote && waits != "north-2,north-1",
			c.Step == "open.ledger-db" && waits != "north-2":
			t.Errorf("%s to %s waits for %s at %d", c.Verb, c.Cluster, waits, c.PositionBytes)
		}
	}
}

func TestNoEpochWithoutTheCatchUpProof(t *testing.T) {
	w := newWorld(t).steady()
	w.plan("north-2", 3)
	w.answer = func(c Command) (Result, bool) {
		r, ok := inOrder(c)
		if c.Verb == VerbCatchUp {
			r.PositionBytes--
		}
		return r, ok
	}
	w.beats(25)
	if w.db().Status.Phase != v1alpha1.DatasetClosing || w.db().Status.Epoch != 1 {
		t.Fatalf("dataset %+v", w.db().Status)
	}
	w.beats(30)
	w.atSource(ReasonPauseLimit, 1)
	if got := w.verbs(); got != "CLOSE north-1@1, CATCH_UP north-2@1, PROMOTE north-1@1" {
		t.Errorf("commanded %s", got)
	}
}

// places in a switchover where something happens, by the verb whose answer is
// still to come.
var interruptions = map[string]struct {
	waits Verb
	phase v1alpha1.DatasetPhase
	epoch int64 // of the dataset then
	home  int64 // after the return
	moved string
}{
	"while the source closes":         {VerbClose, v1alpha1.DatasetClosing, 1, 1, "PROMOTE north-1@1"},
	"while the target catches up":     {VerbCatchUp, v1alpha1.DatasetClosing, 1, 1, "PROMOTE north-1@1"},
	"while the source is fenced":      {VerbFence, v1alpha1.DatasetFencing, 2, 3, "PROMOTE north-1@3"},
	"while the target is promoted":    {VerbPromote, v1alpha1.DatasetPromoting, 2, 3, "FENCE north-2@3, PROMOTE north-1@3"},
	"when the promotion was answered": {VerbSetSyncSet, v1alpha1.DatasetSteady, 2, 0, ""},
}

func TestAnAbortReturnsToTheSourceAtEveryStep(t *testing.T) {
	for name, tc := range interruptions {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.plan("north-2", 0)
			w.answer = unanswered(tc.waits)
			w.at(tc.phase, tc.epoch)
			w.beats(3)
			w.abort("ann") // who ordered it may
			w.beats(1)
			w.answer = inOrder
			w.beats(15)
			if tc.home == 0 {
				if run := w.planned(); run.Status.Phase != v1alpha1.RunCompleted || run.Status.Reason != ReasonTooLate ||
					!strings.Contains(run.Status.Message, "tripodctl switchover pay/ledger --to north-1") {
					t.Errorf("run is %s %s: %s", run.Status.Phase, run.Status.Reason, run.Status.Message)
				}
				return
			}
			w.atSource(ReasonAborted, tc.home)
			if got := w.verbs(); !strings.HasSuffix(got, tc.moved) {
				t.Errorf("commanded %s, want %s at the end", got, tc.moved)
			}
		})
	}
}

// On the way back a directive may be refused, because one that a deposed leader sent
// has overtaken it: nobody else would open the writes again.
func TestARefusalOnTheWayBackIsAskedAgain(t *testing.T) {
	w := newWorld(t).steady()
	w.plan("north-2", 0)
	w.answer = unanswered(VerbPromote)
	w.at(v1alpha1.DatasetPromoting, 2)
	w.beats(3)
	w.abort("ann")
	refused := map[Verb]bool{}
	w.answer = func(c Command) (Result, bool) {
		if c.Epoch == 3 && !refused[c.Verb] {
			refused[c.Verb] = true
			return Result{Outcome: Refused, Message: "overtaken while in work"}, true
		}
		return inOrder(c)
	}
	w.beats(30)
	if !refused[VerbFence] || !refused[VerbPromote] {
		t.Fatalf("refused were %v", refused)
	}
	w.atSource(ReasonAborted, 3)
}

func TestALostTargetReturnsToTheSource(t *testing.T) {
	for name, tc := range interruptions {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.plan("north-2", 3600)
			w.answer = unanswered(tc.waits)
			w.at(tc.phase, tc.epoch)
			w.answer = func(c Command) (Result, bool) {
				if c.Cluster == "north-2" {
					return Result{Outcome: Unreachable}, true
				}
				return inOrder(c)
			}
			w.lose("north-2")
			for range 20 {
				w.pass(100*time.Millisecond, "north-2")
				w.turn()
			}
			if tc.home == 0 { // it had taken over: an ordinary loss
				if run := w.planned(); run.Status.Phase != v1alpha1.RunAborted || run.Status.Reason != ReasonTargetLost || len(w.s.Runs) != 2 {
					t.Errorf("run is %s %s, %d runs", run.Status.Phase, run.Status.Reason, len(w.s.Runs))
				}
				return
			}
			if tc.waits == VerbFence || tc.waits == VerbClose {
				// These were unanswered by the source when the target went: once it
				// answers again, the run goes on to where the loss is seen.
				w.atHome(tc.home)
				return
			}
			w.atSource(ReasonTargetLost, tc.home)
		})
	}
}

// atHome is atSource for a return at any epoch from one on.
func (w *world) atHome(least int64) {
	w.t.Helper()
	if got := w.db().Status.Epoch; got < least {
		w.t.Errorf("epoch %d, want at least %d", got, least)
	}
	w.atSource(ReasonTargetLost, w.db().Status.Epoch)
}

func TestALostSourceBecomesAFailover(t *testing.T) {
	for name, tc := range interruptions {
		if tc.waits == VerbSetSyncSet {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.plan("north-2", 4)
			w.answer = unanswered(tc.waits)
			w.at(tc.phase, tc.epoch)
			w.answer = func(c Command) (Result, bool) {
				if c.Cluster == "north-1" || c.Verb == VerbCatchUp {
					return Result{Outcome: Unreachable}, true
				}
				return inOrder(c)
			}
			w.lose("north-1")
			for range 20 {
				w.pass(100*time.Millisecond, "north-1")
				w.turn()
			}
			last := w.run()
			if last.Status.Phase != v1alpha1.RunCompleted || w.db().Status.Primary != "north-2" || w.name().Status.Answers[0] != "10.210.0.12" {
				t.Fatalf("run %s is %s (%s), primary %s", last.Name, last.Status.Phase, last.Status.Message, w.db().Status.Primary)
			}
			if closing := tc.phase == v1alpha1.DatasetClosing; closing != (last.Name != "planned") {
				t.Errorf("run %s made the failover", last.Name)
			}
		})
	}
}

func TestAStepThatTakesTooLongReturns(t *testing.T) {
	for name, tc := range interruptions {
		if tc.home == 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.plan("north-2", 2)
			w.answer = unanswered(tc.waits)
			w.at(tc.phase, tc.epoch)
			w.beats(12)
			if w.db().Status.Phase != tc.phase {
				t.Fatalf("left %s before the limit", tc.phase)
			}
			w.beats(10)
			w.answer = inOrder
			w.beats(10)
			w.atSource(ReasonPauseLimit, tc.home)
		})
	}
}

// TestEveryLostWriteOfASwitchoverIsMadeUp loses each parallel write of a turn in
// turn, as the death of a leader does, with and without an abort on the way.
func TestEveryLostWriteOfASwitchoverIsMadeUp(t *testing.T) {
	for i, abort := range []v1alpha1.DatasetPhase{"", v1alpha1.DatasetClosing, v1alpha1.DatasetFencing, v1alpha1.DatasetPromoting} {
		for n := range 30 {
			for _, also := range []int{n, n + 1} {
				w := newWorld(t).steady()
				w.plan([]string{"", "north-2"}[i%2], 0)
				writes := 0
				w.drop = func(string) bool { writes++; return writes-1 == n || writes-1 == also }
				for range 60 {
					if abort != "" && w.db().Status.Phase == abort && len(w.s.Approvals) == 0 {
						w.abort("bob")
					}
					w.beats(1)
				}
				run, st := w.planned(), w.db().Status
				where := map[v1alpha1.RunPhase]string{v1alpha1.RunCompleted: "north-2", v1alpha1.RunAborted: "north-1"}[run.Status.Phase]
				if st.Primary != where || st.Phase != v1alpha1.DatasetSteady || st.Run != "" {
					t.Fatalf("abort %q, without writes %d and %d: run %s (%s), dataset %+v", abort, n, also, run.Status.Phase, run.Status.Message, st)
				}
				if abort == "" && run.Status.Phase != v1alpha1.RunCompleted {
					t.Fatalf("without writes %d and %d the run is %s (%s)", n, also, run.Status.Phase, run.Status.Message)
				}
			}
		}
	}
}

func TestASwitchoverWhoseRunIsDeletedIsOpenedAgain(t *testing.T) {
	w := newWorld(t).steady()
	w.plan("north-2", 0)
	w.answer = unanswered(VerbCatchUp)
	w.at(v1alpha1.DatasetClosing, 1)
	w.beats(3)
	w.s.Runs = nil
	o := w.s.Observed[Copy{ledger, "north-1"}]
	o.Role, o.State = v1alpha1.RoleNone, v1alpha1.StateClosed
	w.s.Observed[Copy{ledger, "north-1"}] = o
	w.sent = nil
	w.beats(3)
	if st := w.db().Status; st.Phase != v1alpha1.DatasetSteady || st.Run != "" || st.Epoch != 1 {
		t.Errorf("dataset %+v", st)
	}
	if !slices.ContainsFunc(w.sent, func(c Command) bool {
		return c.Verb == VerbPromote && c.Cluster == "north-1" && c.Epoch == 1 && slices.Equal(c.SyncSet, []string{"north-1", "north-2"})
	}) {
		t.Errorf("the source was not opened: %+v", w.sent)
	}
}

func TestASwitchoverToAnAsynchronousCopyLosesNothingAndAsksOnlyForThePolicy(t *testing.T) {
	for name, tc := range map[string]struct {
		policy v1alpha1.FailoverMode
		want   v1alpha1.RunPhase
	}{
		"a policy that lets regions be crossed": {v1alpha1.FailoverAutomatic, v1alpha1.RunCompleted},
		"a policy that asks another person":     {v1alpha1.FailoverApproval, v1alpha1.RunAwaitingApproval},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			w.app().Spec.Failover.AcrossRegions = tc.policy
			w.plan("south-1", 0)
			w.beats(20)
			run := w.planned()
			if run.Status.Phase != tc.want {
				t.Fatalf("run is %s: %s", run.Status.Phase, run.Status.Message)
			}
			if tc.want == v1alpha1.RunCompleted {
				return
			}
			w.approve("bob", 0)
			w.beats(20)
			if run := w.planned(); run.Status.Phase != v1alpha1.RunCompleted || w.db().Status.Primary != "south-1" || run.Status.Measured.RPO != "0" {
				t.Fatalf("run is %s: %s", run.Status.Phase, run.Status.Message)
			}
		})
	}
}

func TestASwitchoverChangesNothingUntilItsPauseWouldBeShort(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(w *world)
		want  string
	}{
		"a target that does not stream": {func(w *world) {
			o := w.s.Observed[Copy{ledger, "north-1"}]
			o.Streaming = []string{"south-1"}
			w.s.Observed[Copy{ledger, "north-1"}] = o
		}, "does not receive the log"},
		"another replica that is far behind": {func(w *world) {
			o := w.s.Observed[Copy{ledger, "south-1"}]
			lag := int64(1 << 30)
			o.LagBytes = &lag
			w.s.Observed[Copy{ledger, "south-1"}] = o
		}, "south-1 is 1073741824 bytes behind"},
		"a source that does not run": {func(w *world) {
			o := w.s.Observed[Copy{ledger, "north-1"}]
			o.State = v1alpha1.StateStopped
			w.s.Observed[Copy{ledger, "north-1"}] = o
		}, "does not report a running primary"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t).steady()
			tc.spoil(w)
			w.plan("north-2", 0)
			w.beats(10)
			if run := w.planned(); run.Status.Phase != v1alpha1.RunPreflight || !strings.Contains(run.Status.Message, tc.want) ||
				!strings.Contains(run.Status.Message, "tripodctl run abort planned") || w.verbs() != "" {
				t.Fatalf("run is %s: %s; commanded %s", run.Status.Phase, run.Status.Message, w.verbs())
			}
			w.abort("ann")
			w.beats(3)
			w.atSource(ReasonAborted, 1)
		})
	}
}

func TestASourceThatCannotCloseInOrderIsOpenedAtOnce(t *testing.T) {
	for _, outcome := range []Outcome{Failed, Refused} {
		w := newWorld(t).steady()
		w.plan("north-2", 0)
		w.answer = func(c Command) (Result, bool) {
			if c.Verb == VerbClose {
				return Result{Outcome: outcome, Message: "planted"}, true
			}
			return inOrder(c)
		}
		w.beats(10)
		w.atSource(ReasonNotClosed, 1)
	}
}

// A leader that has died may leave the approval answered on the dataset only.
func TestAnApprovedRunWhoseJournalWasLostGoesOn(t *testing.T) {
	w := newWorld(t).steady()
	w.order("south-1")
	w.beats(5)
	w.approve("bob", 1000)
	lost := false
	w.drop = func(kind string) bool {
		drop := kind == "run" && !lost && w.db().Status.Phase == v1alpha1.DatasetFencing
		lost = lost || drop
		return drop
	}
	w.beats(15)
	if !lost || w.run().Status.Phase != v1alpha1.RunCompleted || w.db().Status.Primary != "south-1" {
		t.Fatalf("lost %v; run is %s: %s; dataset %+v", lost, w.run().Status.Phase, w.run().Status.Message, w.db().Status)
	}
}
