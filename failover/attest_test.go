package failover

import (
	"strings"
	"testing"
	"time"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// attest has someone swear that cluster is without power.
func (w *world) attest(by, cluster string, changes ...func(*v1alpha1.Approval)) {
	w.approve(by, 0)
	a := w.s.Approvals[len(w.s.Approvals)-1]
	a.Spec.Step, a.Spec.PoweredOff, a.Spec.AcceptLoss = v1alpha1.StepAttest, cluster, nil
	for _, change := range changes {
		change(a)
	}
}

// unproven plays a failover out of a city that is silent as a whole: a pledge of
// north-2 may keep north-1, and nobody can ask it.
func unproven(t *testing.T) *world {
	t.Helper()
	w := newWorld(t).steady()
	w.livesOnPledges()
	w.remote("north-1", "north-2")
	if run := w.run(); run.Status.Phase != v1alpha1.RunPaused || run.Status.Reason != ReasonFenceUnproven || !strings.Contains(run.Status.Message, "tripodctl attest "+run.Name) {
		t.Fatalf("run is %s (%s: %s)", run.Status.Phase, run.Status.Reason, run.Status.Message)
	}
	return w
}

func (w *world) goOn(silent ...string) *v1alpha1.RecoveryRun {
	for range 20 {
		w.pass(100*time.Millisecond, silent...)
		w.turn()
	}
	return w.run()
}

func TestTwoPeopleMayAttestThatAPrimaryHasNoPower(t *testing.T) {
	w := unproven(t)
	w.attest("cleo", "north-1")
	w.attest("ben", "north-1")
	run := w.goOn("north-1", "north-2")
	if run.Status.Phase == v1alpha1.RunPaused && run.Status.Reason == ReasonLossGrown {
		t.Fatalf("the loss was shown as unknown, and is asked for again: %s", run.Status.Message)
	}
	if run.Status.Phase != v1alpha1.RunCompleted || run.Status.Datasets[0].FenceProof != v1alpha1.FenceAttested {
		t.Fatalf("run is %s (%s: %s) with proof %q", run.Status.Phase, run.Status.Reason, run.Status.Message, run.Status.Datasets[0].FenceProof)
	}
	said := ""
	for _, n := range w.notes {
		said += n.Subject + ": " + n.Text + "\n"
	}
	for _, want := range []string{"cleo: attests in ", "ben: attests in ", "by Attested: ben and cleo attest that every machine of north-1"} {
		if !strings.Contains(said, want) {
			t.Errorf("the evidence does not hold %q:\n%s", want, said)
		}
	}
}

func TestWhoseAttestationDoesNotCount(t *testing.T) {
	for name, does := range map[string]func(*world){
		"one alone":             func(w *world) { w.attest("cleo", "north-1") },
		"the same person twice": func(w *world) { w.attest("cleo", "north-1"); w.attest("cleo", "north-1") },
		"the requester":         func(w *world) { w.attest("cleo", "north-1"); w.attest(w.run().Spec.Requester, "north-1") },
		"one that has expired": func(w *world) {
			w.attest("cleo", "north-1")
			w.attest("ben", "north-1", func(a *v1alpha1.Approval) { a.CreationTimestamp.Time = w.s.Now.Add(-time.Hour) })
		},
		"one whom the server did not stamp": func(w *world) { w.attest("cleo", "north-1"); w.attest("", "north-1") },
		"one about another cluster":         func(w *world) { w.attest("cleo", "north-1"); w.attest("ben", "north-2") },
		"an approval that swears nothing": func(w *world) {
			w.attest("cleo", "north-1")
			w.attest("ben", "", func(a *v1alpha1.Approval) { a.Spec.Step = stepResume })
		},
		"two, when a third doubts it": func(w *world) {
			w.attest("cleo", "north-1")
			w.attest("ben", "north-1")
			w.attest("eve", "north-1", func(a *v1alpha1.Approval) { a.Spec.Decision = v1alpha1.DecisionReject })
		},
		"one of nobody's group": func(w *world) {
			plan := &v1alpha1.RecoveryPlan{Spec: v1alpha1.RecoveryPlanSpec{Approvals: v1alpha1.ApprovalPolicy{Required: 1, Groups: []string{"dba"}}}}
			w.s.Plans = append(w.s.Plans, plan) // runs without a plan's name have this one's policy
			w.attest("cleo", "north-1", func(a *v1alpha1.Approval) { a.Spec.ApproverGroups = []string{"dba"} })
			w.attest("ben", "north-1")
		},
		"two of three that a plan asks for": func(w *world) {
			w.s.Plans = append(w.s.Plans, &v1alpha1.RecoveryPlan{Spec: v1alpha1.RecoveryPlanSpec{Approvals: v1alpha1.ApprovalPolicy{Required: 3}}})
			w.attest("cleo", "north-1")
			w.attest("ben", "north-1")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := unproven(t)
			does(w)
			if run := w.goOn("north-1", "north-2"); run.Status.Reason != ReasonFenceUnproven || w.count(VerbPromote) != 0 {
				t.Errorf("run is %s (%s: %s)", run.Status.Phase, run.Status.Reason, run.Status.Message)
			}
		})
	}
}

// Whoever is heard has power, whatever anybody swears: it is fenced.
func TestNobodyIsSwornDeadWhoIsHeard(t *testing.T) {
	w := unproven(t)
	w.attest("cleo", "north-1")
	w.attest("ben", "north-1")
	for range 20 {
		w.pass(100*time.Millisecond, "north-2")
		w.turn()
	}
	if run := w.run(); len(run.Status.Datasets) > 0 && run.Status.Datasets[0].FenceProof == v1alpha1.FenceAttested {
		t.Errorf("a cluster that is heard was taken for one without power")
	}
}

// Who ordered a plan's run has ordered the runs that it makes, and swears in none.
func TestWhoOrderedAPlanIsTheRequesterOfItsRuns(t *testing.T) {
	w := newPlanWorld(t)
	w.add("ledger")
	w.start("out", v1alpha1.RecoveryRunSpec{Action: v1alpha1.ActionFailover, From: v1alpha1.Place{Center: "north-1"}})
	w.until("out", v1alpha1.RunWaves)
	w.beat(2)
	child := w.s.run("out.1.pay.ledger")
	if child == nil || child.Spec.Requester != "ann" {
		t.Fatalf("the run of the application: %+v", child)
	}
	swears := func(by string) Approved {
		w.say(child.Name, v1alpha1.StepAttest, v1alpha1.DecisionApprove, by)
		w.s.Approvals[len(w.s.Approvals)-1].Spec.PoweredOff = "north-1"
		return CountAttestations(&w.s, v1alpha1.ApprovalPolicy{}, child.Name, "north-1", child.Spec.Requester, time.Time{})
	}
	swears("ann")
	if word := swears("bob"); word.Enough || strings.Join(word.By, " ") != "bob" {
		t.Errorf("ann, who ordered the plan, counts: %+v", word)
	}
	if word := swears("carl"); !word.Enough {
		t.Errorf("two who did not order it are not enough: %+v", word)
	}
}
