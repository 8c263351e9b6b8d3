package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newSwitchoverCommand(door *connection) *cobra.Command {
	var to string
	var detach bool
	var limit time.Duration
	var place moveFlags
	c := &cobra.Command{
		Use:   "switchover NAMESPACE/APPLICATION | --from-center CENTER | --from-region REGION [--to PLACE] [--plan PLAN] [--pause-limit 10s]",
		Short: "Move a healthy application, or a place, as planned, without losing a write",
		Long: `Move a healthy application, or everything in a place, as planned, without losing a
write, and follow the run.

Writes are closed, the source stops in order, the target proves that it holds
everything, takes over and is opened: users notice a pause of about a second. Any
copy that receives the log can be the target, an asynchronous one too; without
--to the engine takes the best. If the pause takes longer than the limit, a side
is lost, or somebody aborts the run, the source is opened again. Once the target
is open there is no way back but another switchover.

Exit code 2 means that the run ended without the move: the source is the primary.`,
		Example: "  tripodctl switchover pay/ledger --to north-2\n  tripodctl switchover --from-center north-1 --to north-2\n  tripodctl run abort RUN",
		Args:    place.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			seconds, err := pauseLimit(limit)
			if err != nil {
				return err
			}
			api, err := door.client()
			if err != nil {
				return err
			}
			run, err := place.order(cmd.Context(), api, args, to, v1alpha1.RecoveryRunSpec{
				Action: v1alpha1.ActionSwitchover, PauseLimitSeconds: seconds})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "run %s\n", run)
			if detach {
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "to go back while it is under way: tripodctl run abort %s\n", run)
			return endsAs(cmd.Context(), api, run, v1alpha1.RunCompleted, cmd.OutOrStdout())
		},
	}
	place.add(c, "move")
	c.Flags().StringVar(&to, "to", "", "the cluster that takes over, for a place also a center or region; empty lets the engine choose")
	c.Flags().DurationVar(&limit, "pause-limit", 10*time.Second, "the longest that writes may be closed before the run returns to the source")
	c.Flags().BoolVar(&detach, "detach", false, "do not follow the run")
	return c
}

// pauseLimit turns the flag into the whole seconds that a run's spec has.
func pauseLimit(limit time.Duration) (int32, error) {
	if limit < time.Second || limit > time.Hour || limit%time.Second != 0 {
		return 0, fmt.Errorf("--pause-limit %s: give whole seconds from 1s to 1h", limit)
	}
	return int32(limit / time.Second), nil
}

// announced tells the run's name and, unless it is detached, follows it to its end.
func announced(cmd *cobra.Command, api client.WithWatch, run string, detach bool) error {
	fmt.Fprintf(cmd.OutOrStdout(), "run %s\n", run)
	if detach {
		return nil
	}
	return endsAs(cmd.Context(), api, run, v1alpha1.RunCompleted, cmd.OutOrStdout())
}

// endsAs follows a run, and is errNotReady when it ended as something else.
func endsAs(ctx context.Context, api client.WithWatch, name string, phase v1alpha1.RunPhase, w io.Writer) error {
	if err := followRun(ctx, api, name, w); err != nil {
		return err
	}
	run, err := getRun(ctx, api, name)
	if err != nil {
		return err
	}
	if run.Status.Phase != phase {
		return errNotReady
	}
	return nil
}

func newAbortCommand(door *connection) *cobra.Command {
	var comment string
	c := &cobra.Command{
		Use:   "abort NAME",
		Short: "Abort a run that is under way, and wait until everything is as before",
		Long: `Abort a run that is under way, and wait until everything is as before.

A run that has changed nothing yet just ends. A switchover or failback returns to its source,
which writes again, until its target is open; from then on only another
switchover leads back. A failover is not undone: its source may be lost. The run
of a plan begins nothing new, aborts the runs of its applications where that is
possible, and waits for the others; what was moved stays where it is. Who ordered the run may abort it; others need the right to approve runs.

Exit code 2 means that the run was completed all the same.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, run, err := door.run(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := checkAbort(run); err != nil {
				return err
			}
			word, err := record(cmd.Context(), api, "abort", v1alpha1.ApprovalSpec{Run: run.Name, Step: v1alpha1.StepAbort,
				Decision: v1alpha1.DecisionReject, Comment: comment})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "abort of run %s recorded as %s by %s\n", args[0], word.Name, word.Spec.Approver)
			return endsAs(cmd.Context(), api, args[0], v1alpha1.RunAborted, cmd.OutOrStdout())
		},
	}
	c.Flags().StringVar(&comment, "comment", "", "why, for the evidence")
	return c
}

// checkAbort says what would make the abort useless.
func checkAbort(run *v1alpha1.RecoveryRun) error {
	if run.Spec.ForPlan() {
		if run.Status.Phase == v1alpha1.RunCompleted || run.Status.Phase == v1alpha1.RunAborted {
			return fmt.Errorf("the run %s is %s already: %s", run.Name, run.Status.Phase, run.Status.Message)
		}
		return nil
	}
	back := fmt.Sprintf("to go back: tripodctl switchover %s/%s --to %s",
		run.Spec.Application.Namespace, run.Spec.Application.Name, run.Spec.From.Cluster)
	switch run.Status.Phase {
	case v1alpha1.RunCompleted:
		return fmt.Errorf("the run %s is completed; %s", run.Name, back)
	case v1alpha1.RunAborted:
		return fmt.Errorf("the run %s is aborted already: %s", run.Name, run.Status.Message)
	case v1alpha1.RunRouting, v1alpha1.RunVerifying:
		return fmt.Errorf("the run %s has moved the primary already and is %s; when it is completed, %s", run.Name, run.Status.Phase, back)
	case v1alpha1.RunPending, v1alpha1.RunPreflight, v1alpha1.RunAwaitingApproval:
		return nil
	case v1alpha1.RunPaused:
		if at := run.Status.ResumePhase; at == v1alpha1.RunPreflight || at == v1alpha1.RunAwaitingApproval {
			return nil // paused before anything was changed
		}
	}
	if !run.Spec.Action.Planned() && run.Spec.Action != v1alpha1.ActionDrill {
		return errors.New("the run " + run.Name + " is a failover under way, which cannot be undone; when it is completed, " + back)
	}
	return nil
}
