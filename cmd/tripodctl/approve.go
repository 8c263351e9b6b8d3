package main

import (
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
requested a run cannot approve it. Where the promotion may lose writes, the
approval must accept at least the loss that "tripodctl run RUN" shows.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := door.client()
			if err != nil {
				return err
			}
			run, err := getRun(cmd.Context(), api, args[0])
			if err != nil {
				return err
			}
			if run.Status.Phase != v1alpha1.RunAwaitingApproval && run.Status.Phase != v1alpha1.RunPaused {
				return fmt.Errorf("the run %s is %s and waits for nobody", run.Name, run.Status.Phase)
			}
			approval := &v1alpha1.Approval{
				ObjectMeta: metav1.ObjectMeta{GenerateName: run.Name + "-"},
				Spec:       v1alpha1.ApprovalSpec{Run: run.Name, Decision: v1alpha1.DecisionApprove, Comment: comment},
			}
			if reject {
				approval.Spec.Decision = v1alpha1.DecisionReject
			}
			if len(args) == 2 {
				approval.Spec.Step = args[1]
			}
			if acceptLoss >= 0 {
				approval.Spec.AcceptLoss = &v1alpha1.AcceptedLoss{Seconds: acceptLoss}
			}
			if loss := run.Status.Loss; loss != nil && loss.Possible && acceptLoss < loss.Seconds && !reject {
				return fmt.Errorf("the run %s may lose writes (%s): repeat with --accept-loss %d if you accept that", run.Name, loss.Message, loss.Seconds)
			}
			if err := api.Create(cmd.Context(), approval); err != nil {
				return fmt.Errorf("record the approval of %s: %w", run.Name, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s of run %s recorded as %s by %s\n",
				approval.Spec.Decision, run.Name, approval.Name, approval.Spec.Approver)
			return nil
		},
	}
	c.Flags().BoolVar(&reject, "reject", false, "reject instead: the run is aborted")
	c.Flags().StringVar(&comment, "comment", "", "why, for the evidence")
	c.Flags().Int64Var(&acceptLoss, "accept-loss", -1, "accept the loss of at most this many seconds of writes")
	return c
}
