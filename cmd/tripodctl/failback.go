package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newFailbackCommand(door *connection) *cobra.Command {
	var detach bool
	var limit time.Duration
	c := &cobra.Command{
		Use:   "failback NAMESPACE/APPLICATION [--pause-limit 10s]",
		Short: "Bring an application back to its home, as planned, and follow the run",
		Long: `Bring an application back to its home, as planned, and follow the run.

The home of a dataset is the first of its spec.members. A failback is a
switchover to it behind a gate, and refused with the reason while the home is
not a caught-up copy, was lost less than the application's hold time ago
(spec.failover.holdSeconds), or is held by a person (tripodctl hold). To move it
all the same: tripodctl switchover --to CLUSTER.

Exit code 2 means that the run ended without the move: nothing was changed, or
the primary is where it was.`,
		Example: "  tripodctl failback pay/ledger",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := namespacedName(args[0])
			if err != nil {
				return err
			}
			seconds, err := pauseLimit(limit)
			if err != nil {
				return err
			}
			api, err := door.client()
			if err != nil {
				return err
			}
			from, home, err := astray(cmd.Context(), api, name)
			if err != nil {
				return err
			}
			run, err := orderRun(cmd.Context(), api, name, v1alpha1.RecoveryRunSpec{Action: v1alpha1.ActionFailback,
				From: v1alpha1.Place{Cluster: from}, To: v1alpha1.Place{Cluster: home}, PauseLimitSeconds: seconds})
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
	c.Flags().DurationVar(&limit, "pause-limit", 10*time.Second, "the longest that writes may be closed before the run returns to where it was")
	c.Flags().BoolVar(&detach, "detach", false, "do not follow the run")
	return c
}

// astray is where the first dataset that is not at home has its primary, and its
// home.
func astray(ctx context.Context, api client.Client, name types.NamespacedName) (from, home string, err error) {
	var app v1alpha1.Application
	if err := api.Get(ctx, name, &app); err != nil {
		return "", "", fmt.Errorf("get application %s: %w; `tripodctl apps` lists them", name, err)
	}
	for _, dataset := range app.Spec.Datasets {
		var d v1alpha1.Dataset
		if err := api.Get(ctx, types.NamespacedName{Namespace: name.Namespace, Name: dataset}, &d); err != nil {
			return "", "", fmt.Errorf("get dataset %s of application %s: %w", dataset, name, err)
		}
		if d.Status.Primary != "" && d.Status.Primary != d.Home() {
			return d.Status.Primary, d.Home(), nil
		}
	}
	return "", "", fmt.Errorf("every dataset of application %s is at home: there is nothing to bring back", name)
}
