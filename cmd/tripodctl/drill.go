package main

import (
	"context"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newDrillCommand(door *connection) *cobra.Command {
	var in string
	var detach bool
	place := moveFlags{anywhere: true}
	c := &cobra.Command{
		Use:   "drill NAMESPACE/APPLICATION | --plan PLAN | --from-center CENTER | --from-region REGION [--in CLUSTER]",
		Short: "Promote and probe a copy of a standby's data, apart from production, and follow the run",
		Long: `Promote and probe a copy of a standby's data, apart from production, and follow the run.

In a namespace of its own, from which only the standby can be reached, a base copy
of it is made, promoted, written to and read; then all of it is removed.
Replication goes on all the time and no role moves. A loss, or a move of the
application, ends the drill at once. The cluster needs room on a node's disk for
one more copy. The result is in the run's journal and evidence, and in the
application's status.lastDrill.

With a plan or a place the applications are drilled in one run, wave by wave, each
in a run of its own: tripodctl run pause, resume, retry and abort steer it.

Exit code 2 means that the drill did not succeed; nothing of it is left then either.`,
		Example: "  tripodctl drill pay/ledger --in north-2\n  tripodctl drill --plan city\n  tripodctl run abort RUN",
		Args:    place.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := door.client()
			if err != nil {
				return err
			}
			run, err := place.orderDrill(cmd.Context(), api, args, in)
			if err != nil {
				return err
			}
			return announced(cmd, api, run, detach)
		},
	}
	place.add(c, "drill")
	c.Flags().StringVar(&in, "in", "", "the cluster whose standby is drilled; empty lets the engine choose")
	c.Flags().BoolVar(&detach, "detach", false, "do not follow the run")
	return c
}

// orderDrill creates the run that drills one application, or those of a plan or place.
func (p *moveFlags) orderDrill(ctx context.Context, api client.Client, args []string, in string) (string, error) {
	spec := v1alpha1.RecoveryRunSpec{Action: v1alpha1.ActionDrill}
	if p.given() {
		return p.orderPlace(ctx, api, in, spec)
	}
	name, err := namespacedName(args[0])
	if err != nil {
		return "", err
	}
	from, err := activeIn(ctx, api, name)
	if err != nil {
		return "", err
	}
	spec.From, spec.To = v1alpha1.Place{Cluster: from}, v1alpha1.Place{Cluster: in}
	return orderRun(ctx, api, name, spec)
}
