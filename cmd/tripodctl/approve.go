package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newApproveCommand(door *connection) *cobra.Command {
	var reject bool
	var comment string
	var acceptLoss string
	c := &cobra.Command{
		Use:   "approve RUN [STEP]",
		Short: "Approve or reject a recovery run that waits for a person",
		Long: `Approve or reject a recovery run that waits for a person.

The hub stamps who approved from the identity it authenticated; the one who
requested a run cannot approve it, but may withdraw it with --reject. Where the promotion may lose writes, the
approval must accept at least the loss that "tripodctl run RUN" shows: a number of seconds,
or the word unknown where nothing bounds it.

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
			if spec.AcceptLoss, err = acceptedLoss(acceptLoss); err != nil {
				return err
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
	c.Flags().StringVar(&acceptLoss, "accept-loss", "", "accept the loss of at most this many seconds of writes, or of an `unknown` number")
	return c
}

// lossUnknown is the word for a loss that nothing bounds.
const lossUnknown = "unknown"

// acceptedLoss reads what --accept-loss was given.
func acceptedLoss(text string) (*v1alpha1.AcceptedLoss, error) {
	switch text {
	case "":
		return nil, nil
	case lossUnknown:
		return &v1alpha1.AcceptedLoss{Seconds: v1alpha1.UnknownLossSeconds, Extent: v1alpha1.LossUnknown}, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds < 0 {
		return nil, fmt.Errorf("--accept-loss %s: give a number of seconds, or the word %s", text, lossUnknown)
	}
	return &v1alpha1.AcceptedLoss{Seconds: seconds}, nil
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
	loss := run.Status.Loss
	if spec.Decision != v1alpha1.DecisionApprove || loss.AcceptedBy(spec.AcceptLoss) {
		return nil
	}
	shown := strconv.FormatInt(loss.Seconds, 10)
	if loss.Extent == v1alpha1.LossUnknown {
		shown = lossUnknown
	}
	return fmt.Errorf("the run %s may lose writes (%s): repeat with --accept-loss %s if you accept that", run.Name, loss.Message, shown)
}
