package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newApproveCommand(door *connection) *cobra.Command {
	var reject bool
	var comment string
	acceptLoss := int64(-1)
	c := &cobra.Command{
		Use:   "approve RUN [STEP]",
		Short: "Approve or reject a recovery run that waits for a person",
		Long: `Approve or reject a recovery run that waits for a person.

The hub stamps who approved from the identity it authenticated; the one who
requested a run cannot approve it, but may withdraw it with --reject. Where the promotion may lose writes, the
approval must accept at least the loss that "tripodctl run RUN" shows.

A copy that has diverged from its primary waits for a person, too: its dataset's
condition Diverged names what to give for RUN.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := door.client()
			if err != nil {
				return err
			}
			spec := v1alpha1.ApprovalSpec{Run: args[0], Decision: decisionOf(reject), Comment: comment}
			if len(args) == 2 {
				spec.Step = args[1]
			}
			if acceptLoss >= 0 {
				spec.AcceptLoss = &v1alpha1.AcceptedLoss{Seconds: acceptLoss}
			}
			if _, discard := v1alpha1.ParseDiscard(args[0]); !discard {
				if err := checkApproval(cmd.Context(), api, spec); err != nil {
					return err
				}
			}
			approval, err := record(cmd.Context(), api, "approval", spec)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s of run %s recorded as %s by %s\n",
				approval.Spec.Decision, args[0], approval.Name, approval.Spec.Approver)
			return nil
		},
	}
	c.Flags().BoolVar(&reject, "reject", false, "reject instead: the run is aborted")
	c.Flags().StringVar(&comment, "comment", "", "why, for the evidence")
	c.Flags().Int64Var(&acceptLoss, "accept-loss", -1, "accept the loss of at most this many seconds of writes")
	return c
}

// checkApproval says what would make the approval useless, before it is
// recorded for ever.
func checkApproval(ctx context.Context, api client.Client, spec v1alpha1.ApprovalSpec) error {
	run, err := getRun(ctx, api, spec.Run)
	if err != nil {
		return err
	}
	asks := run.Status.Phase == v1alpha1.RunWaves && run.Status.Reason == "ApprovalNeeded"
	if run.Status.Phase != v1alpha1.RunAwaitingApproval && run.Status.Phase != v1alpha1.RunPaused && !asks {
		return fmt.Errorf("the run %s is %s and waits for nobody", run.Name, run.Status.Phase)
	}
	loss, accepted := run.Status.Loss, spec.AcceptLoss
	if spec.Decision == v1alpha1.DecisionApprove && loss != nil && loss.Possible && (accepted == nil || accepted.Seconds < loss.Seconds) {
		return fmt.Errorf("the run %s may lose writes (%s): repeat with --accept-loss %d if you accept that", run.Name, loss.Message, loss.Seconds)
	}
	return nil
}
