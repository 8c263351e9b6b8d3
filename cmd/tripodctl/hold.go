package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newHoldCommand(door *connection) *cobra.Command {
	var until, reason string
	var clearIt bool
	c := &cobra.Command{
		Use:   "hold CLUSTER [--until 2h|TIME] [--reason TEXT] | --clear",
		Short: "Keep the primary role away from a cluster until somebody says otherwise",
		Long: `Keep the primary role away from a cluster until somebody says otherwise.

A held cluster is no automatic target and no target of a failback, and any other
move to it needs an approval. What it runs now stays: to move it away use
"tripodctl switchover". --until takes a duration or a time as
2026-11-21T18:00:00Z; without it the hold lasts until --clear.`,
		Example: "  tripodctl hold north-1 --until 4h --reason 'power works'\n  tripodctl hold north-1 --clear",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			hold, err := holdOf(until, reason, clearIt, time.Now())
			if err != nil {
				return err
			}
			api, err := door.client()
			if err != nil {
				return err
			}
			var cluster v1alpha1.Cluster
			if err := api.Get(cmd.Context(), client.ObjectKey{Name: args[0]}, &cluster); err != nil {
				return fmt.Errorf("get cluster %s: %w; `tripodctl clusters` lists them", args[0], err)
			}
			before := cluster.DeepCopy()
			cluster.Spec.Hold = hold
			if err := api.Patch(cmd.Context(), &cluster, client.MergeFrom(before)); err != nil {
				return fmt.Errorf("hold cluster %s: %w", args[0], err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), holdText(args[0], hold))
			return nil
		},
	}
	c.Flags().StringVar(&until, "until", "", "when the hold ends by itself: a duration, or a time as 2026-11-21T18:00:00Z")
	c.Flags().StringVar(&reason, "reason", "", "why, for those who meet the hold")
	c.Flags().BoolVar(&clearIt, "clear", false, "end the hold")
	return c
}

// holdOf reads the flags; nil clears the hold.
func holdOf(until, reason string, clearIt bool, now time.Time) (*v1alpha1.ClusterHold, error) {
	if clearIt {
		if until != "" || reason != "" {
			return nil, errors.New("--clear ends the hold: leave out --until and --reason")
		}
		return nil, nil //nolint:nilnil // no hold is the answer
	}
	hold := &v1alpha1.ClusterHold{Reason: reason}
	if until == "" {
		return hold, nil
	}
	at, err := time.Parse(time.RFC3339, until)
	if d, short := time.ParseDuration(until); short == nil {
		at, err = now.Add(d), nil
	}
	if err != nil || !at.After(now) {
		return nil, fmt.Errorf("--until %s: give a duration such as 2h, or a time to come such as %s", until, now.Add(2*time.Hour).UTC().Format(time.RFC3339))
	}
	hold.Until = &metav1.Time{Time: at.Truncate(time.Second)}
	return hold, nil
}

func holdText(cluster string, hold *v1alpha1.ClusterHold) string {
	switch {
	case hold == nil:
		return fmt.Sprintf("cluster %s is not held by anybody", cluster)
	case hold.Until == nil:
		return fmt.Sprintf("cluster %s is held until `tripodctl hold %s --clear`", cluster, cluster)
	}
	return fmt.Sprintf("cluster %s is held until %s", cluster, hold.Until.UTC().Format(time.RFC3339))
}
