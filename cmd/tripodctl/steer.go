package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// steering is one of the words that a person says to a run under way.
type steering struct {
	step, short, long string
	decision          v1alpha1.Decision
	check             func(*v1alpha1.RecoveryRun) error
}

func steerings() []steering {
	return []steering{{
		step: v1alpha1.StepPause, decision: v1alpha1.DecisionReject, short: "Pause a run that is under way",
		long: `Pause a run that is under way.

Nothing new is begun until "tripodctl run resume". The run of a plan lets the
applications that are under way arrive. A switchover that keeps writes closed is
not paused: it arrives or returns within its limit. A failover that has fenced the
old primary is paused all the same, and nobody serves meanwhile.`,
		check: checkUnderWay,
	}, {
		step: v1alpha1.StepResume, decision: v1alpha1.DecisionApprove, short: "Let a paused run go on",
		long: `Let a paused run go on.

Who ordered a run may resume what a person has paused. A run that paused by
itself, because a side refused or the breaker opened, goes on when another person
says so.`,
		check: func(run *v1alpha1.RecoveryRun) error {
			if run.Status.Phase != v1alpha1.RunPaused {
				return fmt.Errorf("the run %s is %s, not paused", run.Name, phaseText(run))
			}
			return nil
		},
	}}
}

func newSteerCommand(door *connection, s steering) *cobra.Command {
	var comment string
	c := &cobra.Command{
		Use: s.step + " NAME", Short: s.short, Long: s.long, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, run, err := door.run(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := s.check(run); err != nil {
				return err
			}
			word, err := steer(cmd.Context(), api, run.Name, s, comment)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s of run %s recorded as %s by %s; see: tripodctl run %s\n", s.step, run.Name, word.Name, word.Spec.Approver, run.Name)
			return nil
		},
	}
	c.Flags().StringVar(&comment, "comment", "", "why, for the evidence")
	return c
}

// newRetryCommand tries again what a plan's run could not move, or orders a run
// that was aborted once more.
func newRetryCommand(door *connection) *cobra.Command {
	retry := steering{step: v1alpha1.StepRetry, decision: v1alpha1.DecisionApprove}
	var comment string
	c := &cobra.Command{
		Use: "retry NAME", Short: "Try again what a run could not do", Args: cobra.ExactArgs(1),
		Long: `Try again what a run could not do.

The run of a plan tries the applications again that have failed, then those that
they hold. A paused run of one application goes on, as with resume. One that was
aborted is ordered again, as a new run.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, run, err := door.run(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			switch {
			case run.Status.Phase == v1alpha1.RunAborted:
				again := orderAgain(run)
				if err := api.Create(cmd.Context(), again); err != nil {
					return fmt.Errorf("order the run %s again: %w", run.Name, err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "run %s\n", again.Name)
				return followRun(cmd.Context(), api, again.Name, cmd.OutOrStdout())
			case !run.Spec.ForPlan() && run.Status.Phase == v1alpha1.RunPaused:
				retry.step = v1alpha1.StepResume
			case !run.Spec.ForPlan() || run.Status.Phase == v1alpha1.RunCompleted:
				return fmt.Errorf("the run %s is %s: there is nothing to try again", run.Name, phaseText(run))
			}
			word, err := steer(cmd.Context(), api, run.Name, retry, comment)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s of run %s recorded as %s by %s; see: tripodctl run %s -w\n", retry.step, run.Name, word.Name, word.Spec.Approver, run.Name)
			return nil
		},
	}
	c.Flags().StringVar(&comment, "comment", "", "why, for the evidence")
	return c
}

// orderAgain is a new run of the same order. Who orders it is its requester.
func orderAgain(run *v1alpha1.RecoveryRun) *v1alpha1.RecoveryRun {
	again := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{GenerateName: run.Name + ".again-"}, Spec: *run.Spec.DeepCopy()}
	again.Spec.Requester, again.Spec.Parent = "", ""
	return again
}

func steer(ctx context.Context, api client.Client, run string, s steering, comment string) (*v1alpha1.Approval, error) {
	return record(ctx, api, s.step, v1alpha1.ApprovalSpec{Run: run, Step: s.step, Decision: s.decision, Comment: comment})
}

// record makes the Approval that is a person's word on a run; what is for the error.
func record(ctx context.Context, api client.Client, what string, spec v1alpha1.ApprovalSpec) (*v1alpha1.Approval, error) {
	word := &v1alpha1.Approval{ObjectMeta: metav1.ObjectMeta{GenerateName: spec.Run + "-"}, Spec: spec}
	if err := api.Create(ctx, word); err != nil {
		return nil, fmt.Errorf("record the %s of %s: %w", what, spec.Run, err)
	}
	return word, nil
}

func checkUnderWay(run *v1alpha1.RecoveryRun) error {
	switch run.Status.Phase {
	case v1alpha1.RunCompleted, v1alpha1.RunAborted:
		return fmt.Errorf("the run %s is %s: there is nothing to pause", run.Name, phaseText(run))
	case v1alpha1.RunClosing, v1alpha1.RunReturning:
		return fmt.Errorf("the run %s is %s, with writes closed: it arrives or returns within its limit; to go back at once: tripodctl run abort %s", run.Name, phaseText(run), run.Name)
	}
	return nil
}

func phaseText(run *v1alpha1.RecoveryRun) string {
	if run.Status.Phase == v1alpha1.RunPending {
		return "Pending"
	}
	return string(run.Status.Phase)
}
