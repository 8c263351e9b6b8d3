package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// namespacedName reads NAMESPACE/NAME.
func namespacedName(s string) (types.NamespacedName, error) {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return types.NamespacedName{}, fmt.Errorf("%q is not NAMESPACE/NAME, for instance pay/ledger", s)
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

func newRunsCommand(door *connection) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "runs",
		Short: "List the recovery runs, oldest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := door.client()
			if err != nil {
				return err
			}
			var list v1alpha1.RecoveryRunList
			if err := api.List(cmd.Context(), &list); err != nil {
				return fmt.Errorf("list recovery runs: %w", err)
			}
			slices.SortFunc(list.Items, func(a, b v1alpha1.RecoveryRun) int {
				return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
			})
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), list.Items)
			}
			if len(list.Items) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no recovery run yet")
				return nil
			}
			var rows [][]string
			for _, r := range list.Items {
				rto := ""
				if r.Status.Measured != nil {
					rto = r.Status.Measured.RTOSeconds
				}
				rows = append(rows, []string{
					r.Name, string(r.Spec.Action), subject(&r), placeText(r.Spec.From), target(&r), string(r.Status.Phase), r.Status.Reason, rto, age(r.CreationTimestamp.Time),
				})
			}
			return printTable(cmd.OutOrStdout(), []string{"NAME", "ACTION", "APPLICATION", "FROM", "TO", "PHASE", "REASON", "RTO", "AGE"}, rows)
		},
	}
	outputFlag(c, &output, "table", "json")
	return c
}

func newRunCommand(door *connection) *cobra.Command {
	var follow bool
	c := &cobra.Command{
		Use:   "run NAME",
		Short: "Show one recovery run, follow it with --watch, or steer it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, run, err := door.run(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if follow {
				return followRun(cmd.Context(), api, run.Name, cmd.OutOrStdout())
			}
			return printRun(cmd.OutOrStdout(), run)
		},
	}
	c.Flags().BoolVarP(&follow, "watch", "w", false, "print each phase as it is reached, until the run ends")
	c.AddCommand(newAbortCommand(door), newRetryCommand(door))
	for _, s := range steerings() {
		c.AddCommand(newSteerCommand(door, s))
	}
	return c
}

// run returns the run of a name, and the client that it was read with.
func (c *connection) run(ctx context.Context, name string) (client.WithWatch, *v1alpha1.RecoveryRun, error) {
	api, err := c.client()
	if err != nil {
		return nil, nil, err
	}
	run, err := getRun(ctx, api, name)
	return api, run, err
}

func getRun(ctx context.Context, api client.Client, name string) (*v1alpha1.RecoveryRun, error) {
	var run v1alpha1.RecoveryRun
	if err := api.Get(ctx, client.ObjectKey{Name: name}, &run); err != nil {
		return nil, fmt.Errorf("get the run %s: %w; `tripodctl runs` lists them", name, err)
	}
	return &run, nil
}

func printRun(w io.Writer, run *v1alpha1.RecoveryRun) error {
	s := run.Status
	fmt.Fprintf(w, "%s: %s of %s from %s to %s\n", run.Name, run.Spec.Action, subject(run), placeText(run.Spec.From), target(run))
	fmt.Fprintf(w, "phase     %s %s\n", s.Phase, s.Reason)
	if s.Message != "" {
		fmt.Fprintf(w, "message   %s\n", s.Message)
	}
	if s.Loss != nil {
		fmt.Fprintf(w, "loss      %s\n", s.Loss.Message)
	}
	if err := printApplications(w, s); err != nil {
		return err
	}
	if m := s.Measured; m != nil {
		fmt.Fprintf(w, "measured  detect %ss, fence %ss, promote %ss, route %ss, RTO %ss, RPO %s\n",
			m.DetectSeconds, m.FenceSeconds, m.PromoteSeconds, m.RouteSeconds, m.RTOSeconds, m.RPO)
		if m.PauseSeconds != "" {
			fmt.Fprintf(w, "pause     writes were closed for at most %ss\n", m.PauseSeconds)
		}
	}
	for _, d := range s.Datasets {
		fmt.Fprintf(w, "dataset   %s: epoch %d to %d, fence %s, promoted %t, routed %t\n",
			d.Name, d.PreviousEpoch, d.Epoch, d.FenceProof, d.Promoted, d.Routed)
	}
	if len(s.Steps) == 0 {
		return nil
	}
	var rows [][]string
	for _, step := range s.Steps {
		took := ""
		if step.FinishedAt != nil {
			took = step.FinishedAt.Sub(step.StartedAt.Time).Round(time.Millisecond).String()
		}
		rows = append(rows, []string{step.Name, step.Cluster, step.Dataset, string(step.State), took, step.Message})
	}
	return printTable(w, []string{"STEP", "CLUSTER", "DATASET", "STATE", "TOOK", "MESSAGE"}, rows)
}

// followRun prints a line for each new phase. A watch that breaks, because the
// member it went through is gone, is opened again at another member.
func followRun(ctx context.Context, api client.WithWatch, name string, w io.Writer) error {
	if _, err := getRun(ctx, api, name); err != nil {
		return err
	}
	var seen string
	for ctx.Err() == nil {
		events, err := api.Watch(ctx, &v1alpha1.RecoveryRunList{}, &client.ListOptions{
			FieldSelector: fields.OneTermEqualSelector("metadata.name", name),
		})
		if err != nil {
			if !wait(ctx, time.Second) {
				break
			}
			continue
		}
		for event := range events.ResultChan() {
			run, ok := event.Object.(*v1alpha1.RecoveryRun)
			if !ok {
				continue
			}
			line := strings.TrimSpace(fmt.Sprintf("%s %s %s", run.Status.Phase, run.Status.Reason, run.Status.Message))
			if line != seen {
				fmt.Fprintf(w, "%s  %s\n", time.Now().Format("15:04:05.000"), line)
				seen = line
			}
			if run.Status.Phase == v1alpha1.RunCompleted || run.Status.Phase == v1alpha1.RunAborted {
				events.Stop()
				return printRun(w, run)
			}
			if run.Spec.ForPlan() && run.Status.Phase == v1alpha1.RunPaused && run.Status.Reason == "SomeFailed" {
				events.Stop()
				return cmp.Or(printRun(w, run), errNotReady)
			}
		}
	}
	return ctx.Err()
}

// wait returns false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
