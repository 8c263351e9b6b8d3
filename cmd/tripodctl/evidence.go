package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newEvidenceCommand(door *connection) *cobra.Command {
	c := &cobra.Command{Use: "evidence", Short: "Check what recovery runs have recorded of themselves"}
	c.AddCommand(newEvidenceVerifyCommand(door))
	return c
}

func newEvidenceVerifyCommand(door *connection) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "verify [RUN ...]",
		Short: "Verify the evidence of runs: of those named, or of all that have ended",
		Long: `Verify the evidence of runs: of those named, or of all that have ended.

Each chain of records is hashed again and its head compared with the run's and
with the hub's signature, here and not at the hub; RTO and RPO are computed again
from the records. Exit code 2 means that some evidence does not hold: the first
record that was edited is named.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := door.client()
			if err != nil {
				return err
			}
			runs, err := runsToVerify(cmd.Context(), api, args)
			if err != nil {
				return err
			}
			all, err := verifyRuns(cmd.Context(), api, runs)
			if err != nil {
				return err
			}
			if output == "json" {
				err = printJSON(cmd.OutOrStdout(), all)
			} else {
				err = printVerified(cmd, all)
			}
			if err == nil && slices.ContainsFunc(all, func(r report) bool { return !r.Evidence.Verified }) {
				err = errNotReady
			}
			return err
		},
	}
	outputFlag(c, &output, "table", "json")
	return c
}

func runsToVerify(ctx context.Context, api client.Client, names []string) ([]*v1alpha1.RecoveryRun, error) {
	var runs []*v1alpha1.RecoveryRun
	for _, name := range names {
		run, err := getRun(ctx, api, name)
		if err != nil {
			return nil, err
		}
		runs = append(runs, run)
	}
	if len(names) > 0 {
		return runs, nil
	}
	var list v1alpha1.RecoveryRunList
	if err := api.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list recovery runs: %w", err)
	}
	for i := range list.Items {
		if failover.Finished(list.Items[i].Status.Phase) {
			runs = append(runs, &list.Items[i])
		}
	}
	slices.SortFunc(runs, func(a, b *v1alpha1.RecoveryRun) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return runs, nil
}

func verifyRuns(ctx context.Context, api client.Client, runs []*v1alpha1.RecoveryRun) ([]report, error) {
	all := make([]report, 0, len(runs))
	for _, run := range runs {
		r := report{Run: run.Name, Spec: run.Spec, Status: run.Status}
		var err error
		if r.Evidence, err = readEvidence(ctx, api, run); client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		if err != nil {
			r.Evidence.Problem = err.Error() // evidence that is gone does not hold
		}
		all = append(all, r)
	}
	return all, nil
}

func printVerified(cmd *cobra.Command, all []report) error {
	if len(all) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "no recovery run has ended yet")
		return nil
	}
	var rows [][]string
	for _, r := range all {
		verified, rto, rpo := "no", "", ""
		if r.Evidence.Verified {
			verified = "yes"
		}
		if m := r.Evidence.Measured; m != nil {
			rto, rpo = fmt.Sprintf("%.3f s", m.RTO), m.RPO
		}
		rows = append(rows, []string{r.Run, fmt.Sprint(r.Evidence.Records), verified, rto, rpo, r.Evidence.Problem})
	}
	return printTable(cmd.OutOrStdout(), []string{"RUN", "RECORDS", "VERIFIED", "RTO", "RPO", "PROBLEM"}, rows)
}
