package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// oath is what one swears to. It says what would lose data if it were not so.
const oath = `You are about to swear, for the run %[1]s:

  Every machine of cluster %[2]s that runs a database, its guard or Tripod's agent
  is WITHOUT POWER now. I have seen it, or the one who has seen it has told me so
  in person. It stays without power until %[2]s reaches the hub again.

"It does not answer", "the link is down" and "it was shut down from here" are not
that. If %[2]s still runs somewhere, two databases will accept writes, and one
side's acknowledged writes will be lost. Your name goes into the evidence of the
run for good. Two different people are needed; the one who requested the run is
neither of them.
`

func newAttestCommand(door *connection) *cobra.Command {
	var poweredOff, comment string
	var doubt bool
	c := &cobra.Command{
		Use:   "attest RUN --powered-off CLUSTER",
		Short: "Swear that a cluster is without power, so that a run may go on without another proof",
		Long: `Swear that a cluster is without power, so that a run may go on without another proof.

Before Tripod promotes a copy it proves that the old primary has stopped. When
nothing else can prove it, the run pauses with FenceUnproven, and two different
people may swear that the old primary's cluster is without power. Without
--powered-off the command shows what you would swear, and swears nothing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, run, err := door.run(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			cluster, err := toAttest(run, poweredOff)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), oath, run.Name, cluster)
			if poweredOff == "" {
				return fmt.Errorf("nothing was sworn: if it is true, repeat with --powered-off %s", cluster)
			}
			return attest(cmd, api, v1alpha1.ApprovalSpec{Run: run.Name, Step: v1alpha1.StepAttest,
				PoweredOff: cluster, Comment: comment, Decision: decisionOf(doubt)})
		},
	}
	c.Flags().StringVar(&poweredOff, "powered-off", "", "the cluster that is without power, by name: this is the oath")
	c.Flags().StringVar(&comment, "comment", "", "how you know, for the evidence")
	c.Flags().BoolVar(&doubt, "doubt", false, "swear the contrary instead: nobody's attestation counts while this one does")
	return c
}

func decisionOf(reject bool) v1alpha1.Decision {
	if reject {
		return v1alpha1.DecisionReject
	}
	return v1alpha1.DecisionApprove
}

// toAttest is the cluster whose stop the run waits for.
func toAttest(run *v1alpha1.RecoveryRun, named string) (string, error) {
	if run.Status.Phase != v1alpha1.RunPaused && run.Status.Phase != v1alpha1.RunFencing {
		return "", fmt.Errorf("the run %s is %s: it waits for no proof that a primary has stopped", run.Name, run.Status.Phase)
	}
	var clusters []string
	for _, d := range run.Status.Datasets {
		if d.FenceProof == v1alpha1.FenceNone && !slices.Contains(clusters, d.PreviousPrimary) {
			clusters = append(clusters, d.PreviousPrimary)
		}
	}
	switch {
	case len(clusters) == 0:
		return "", fmt.Errorf("the run %s waits for no proof that a primary has stopped", run.Name)
	case named != "" && !slices.Contains(clusters, named):
		return "", fmt.Errorf("the run %s waits for the stop of %v, not of %q", run.Name, clusters, named)
	case named != "":
		return named, nil
	}
	return clusters[0], nil
}

func attest(cmd *cobra.Command, api client.Client, spec v1alpha1.ApprovalSpec) error {
	approval, err := record(cmd.Context(), api, "attestation", spec)
	if err != nil {
		return err
	}
	said := "swears that " + spec.PoweredOff + " is without power"
	if spec.Decision == v1alpha1.DecisionReject {
		said = "doubts that " + spec.PoweredOff + " is without power"
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s %s, recorded as %s\n", approval.Spec.Approver, said, approval.Name)
	return nil
}
