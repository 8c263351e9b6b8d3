package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newFailoverCommand(door *connection) *cobra.Command {
	var to, instead string
	var detach bool
	var place moveFlags
	c := &cobra.Command{
		Use:   "failover NAMESPACE/APPLICATION | --from-center CENTER | --from-region REGION [--to PLACE] [--plan PLAN]",
		Short: "Move an application, or everything in a place, away from where it is active",
		Long: `Move an application, or everything in a place, away from where it is active, and
follow the run.

The primary is fenced first, and its stop is proven, whether it is healthy or
not: users notice a short pause. A healthy one is better moved with "tripodctl
switchover", which can go back. Without --to the engine takes the best target. A
target that may lack acknowledged writes, is in another region or has just
changed needs the approval of another person: the run then says so and waits.

A place moves in one run, dependencies first, with one round of approvals; each
application has a run of its own. With --plan it moves those that the plan selects,
in its waves. What fails holds what depends on it, and nothing else.

A failover whose target was lost or refuses after the old primary was fenced waits
for it. With --instead-of RUN another copy takes over, the old primary for instance
if it is back: the target is proven stopped, too, and what it may have acknowledged
is shown as the loss, which another person accepts.`,
		Example: "  tripodctl failover pay/ledger --to north-2\n  tripodctl failover --from-center north-1 --plan city\n" +
			"  tripodctl failover pay/ledger --instead-of pay.ledger.7 --to south-1",
		Args: place.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := door.client()
			if err != nil {
				return err
			}
			run, err := place.order(cmd.Context(), api, args, to, v1alpha1.RecoveryRunSpec{Action: v1alpha1.ActionFailover, InsteadOf: instead})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "run %s\n", run)
			if detach {
				return nil
			}
			return followRun(cmd.Context(), api, run, cmd.OutOrStdout())
		},
	}
	place.add(c, "move")
	c.Flags().StringVar(&to, "to", "", "the cluster that takes over, for a place also a center or region; empty lets the engine choose")
	c.Flags().StringVar(&instead, "instead-of", "", "a failover of the application whose target cannot take over; it goes on if this run ends before it has changed anything")
	c.Flags().BoolVar(&detach, "detach", false, "do not follow the run")
	return c
}

// orderMove creates a run that moves an application as spec says, and returns
// its name.
func orderMove(ctx context.Context, api client.Client, name types.NamespacedName, spec v1alpha1.RecoveryRunSpec) (string, error) {
	from, err := activeIn(ctx, api, name)
	if err != nil {
		return "", err
	}
	if from == spec.To.Cluster {
		return "", fmt.Errorf("application %s is active in %s already", name, from)
	}
	spec.From = v1alpha1.Place{Cluster: from}
	return orderRun(ctx, api, name, spec)
}

// orderRun creates a run for an application and returns its name.
func orderRun(ctx context.Context, api client.Client, name types.NamespacedName, spec v1alpha1.RecoveryRunSpec) (string, error) {
	spec.Application = v1alpha1.ApplicationReference{Namespace: name.Namespace, Name: name.Name}
	run := &v1alpha1.RecoveryRun{
		ObjectMeta: metav1.ObjectMeta{GenerateName: fmt.Sprintf("%s.%s.ordered-", name.Namespace, name.Name)},
		Spec:       spec,
	}
	if err := api.Create(ctx, run); err != nil {
		return "", fmt.Errorf("order the %s of %s: %w", strings.ToLower(string(spec.Action)), name, err)
	}
	return run.Name, nil
}

// activeIn is the cluster with the primaries of an application's datasets.
func activeIn(ctx context.Context, api client.Client, name types.NamespacedName) (string, error) {
	var app v1alpha1.Application
	if err := api.Get(ctx, name, &app); err != nil {
		return "", fmt.Errorf("get application %s: %w; `tripodctl apps` lists them", name, err)
	}
	if len(app.Spec.Datasets) == 0 {
		return "", fmt.Errorf("application %s has no dataset, so no role moves: its routes follow what is healthy by themselves", name)
	}
	var dataset v1alpha1.Dataset
	if err := api.Get(ctx, types.NamespacedName{Namespace: name.Namespace, Name: app.Spec.Datasets[0]}, &dataset); err != nil {
		return "", fmt.Errorf("get dataset %s of application %s: %w", app.Spec.Datasets[0], name, err)
	}
	if dataset.Status.Primary == "" {
		return "", errors.New("dataset " + dataset.Name + " of application " + name.String() + " has no primary yet: see its conditions")
	}
	return dataset.Status.Primary, nil
}
