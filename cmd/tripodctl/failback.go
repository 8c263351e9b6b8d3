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
	place := moveFlags{anywhere: true}
	c := &cobra.Command{
		Use:   "failback NAMESPACE/APPLICATION | --plan PLAN | --from-center CENTER | --from-region REGION [--pause-limit 10s]",
		Short: "Bring an application back to its home, as planned, and follow the run",
		Long: `Bring an application back to its home, as planned, and follow the run.

The home of a dataset is the first of its spec.members. A failback is a
switchover to it behind a gate, and refused with the reason while the home is
not a caught-up copy, was lost less than the application's hold time ago
(spec.failover.holdSeconds), or is held by a person (tripodctl hold). To move it
all the same: tripodctl switchover --to CLUSTER.

A plan, or everything that is active in a place and not at home, goes home in one
run, dependencies first and wave by wave, with one round of approvals. Where a gate
is shut, only what depends on that application stays behind.

Exit code 2 means that the run ended without the move: nothing was changed, or
the primary is where it was.`,
		Example: "  tripodctl failback pay/ledger\n  tripodctl failback --from-center north-2 --plan city",
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
			run, err := place.orderFailback(cmd.Context(), api, args, seconds)
			if err != nil {
				return err
			}
			return announced(cmd, api, run, detach)
		},
	}
	place.add(c, "bring home")
	c.Flags().DurationVar(&limit, "pause-limit", 10*time.Second, "the longest that writes may be closed before the run returns to where it was")
	c.Flags().BoolVar(&detach, "detach", false, "do not follow the run")
	return c
}

// orderFailback creates the run that brings one application home, or those of a plan
// or place.
func (p *moveFlags) orderFailback(ctx context.Context, api client.Client, args []string, seconds int32) (string, error) {
	spec := v1alpha1.RecoveryRunSpec{Action: v1alpha1.ActionFailback, PauseLimitSeconds: seconds}
	if p.given() {
		return p.orderPlace(ctx, api, "", spec)
	}
	name, err := namespacedName(args[0])
	if err != nil {
		return "", err
	}
	from, home, err := astray(ctx, api, name)
	if err != nil {
		return "", err
	}
	spec.From, spec.To = v1alpha1.Place{Cluster: from}, v1alpha1.Place{Cluster: home}
	return orderRun(ctx, api, name, spec)
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
