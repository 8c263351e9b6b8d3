package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newDrillCommand(door *connection) *cobra.Command {
	var in string
	var detach bool
	c := &cobra.Command{
		Use:   "drill NAMESPACE/APPLICATION [--in CLUSTER]",
		Short: "Promote and probe a copy of a standby's data, apart from production, and follow the run",
		Long: `Promote and probe a copy of a standby's data, apart from production, and follow the run.

In a namespace of its own, from which only the standby can be reached, a base copy
of it is made, promoted, written to and read; then all of it is removed.
Replication goes on all the time and no role moves. A loss, or a move of the
application, ends the drill at once. The cluster needs room on a node's disk for
one more copy. The result is in the run's journal and evidence, and in the
application's status.lastDrill.

Exit code 2 means that the drill did not succeed; nothing of it is left then either.`,
		Example: "  tripodctl drill pay/ledger --in north-2\n  tripodctl run abort RUN",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := namespacedName(args[0])
			if err != nil {
				return err
			}
			api, err := door.client()
			if err != nil {
				return err
			}
			from, err := activeIn(cmd.Context(), api, name)
			if err != nil {
				return err
			}
			run, err := orderRun(cmd.Context(), api, name, v1alpha1.RecoveryRunSpec{Action: v1alpha1.ActionDrill,
				From: v1alpha1.Place{Cluster: from}, To: v1alpha1.Place{Cluster: in}})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "run %s\n", run)
			if detach {
				return nil
			}
			return endsAs(cmd.Context(), api, run, v1alpha1.RunCompleted, cmd.OutOrStdout())
		},
	}
	c.Flags().StringVar(&in, "in", "", "the cluster whose standby is drilled; empty lets the engine choose")
	c.Flags().BoolVar(&detach, "detach", false, "do not follow the run")
	return c
}
