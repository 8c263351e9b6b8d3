package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newPreflightCommand(door *connection) *cobra.Command {
	var plan string
	c := &cobra.Command{
		Use:   "preflight NAMESPACE/APP | --plan PLAN",
		Short: "Tell whether a recovery of the application, or a run of the plan, would succeed now",
		Args: func(_ *cobra.Command, args []string) error {
			if (plan == "") == (len(args) != 1) {
				return fmt.Errorf("name one application as NAMESPACE/NAME, or a plan with --plan")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := door.client()
			if err != nil {
				return err
			}
			if plan != "" {
				return planPreflight(cmd.Context(), api, cmd.OutOrStdout(), plan)
			}
			key, err := namespacedName(args[0])
			if err != nil {
				return err
			}
			var app v1alpha1.Application
			if err := api.Get(cmd.Context(), key, &app); err != nil {
				return fmt.Errorf("get the application %s: %w; `tripodctl apps` lists them", args[0], err)
			}
			well, err := printChecks(cmd.OutOrStdout(), app.Status.Preflight)
			if err == nil && !well {
				err = errNotReady
			}
			return err
		},
	}
	c.Flags().StringVar(&plan, "plan", "", "a RecoveryPlan in place of an application")
	return c
}

// planPreflight prints the checks of a plan and what would stop a run of it first.
func planPreflight(ctx context.Context, api client.Client, w io.Writer, name string) error {
	var plan v1alpha1.RecoveryPlan
	if err := api.Get(ctx, client.ObjectKey{Name: name}, &plan); err != nil {
		return fmt.Errorf("get the plan %s: %w; `tripodctl plans` lists them", name, err)
	}
	if _, err := printChecks(w, plan.Status.Preflight); err != nil {
		return err
	}
	ready := meta.FindStatusCondition(plan.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || plan.Status.ObservedGeneration != plan.Generation {
		fmt.Fprintln(w, "not assessed yet: ask again")
		return errNotReady
	}
	fmt.Fprintf(w, "ready     %s %s: %s\n", ready.Status, ready.Reason, ready.Message)
	if !meta.IsStatusConditionTrue(plan.Status.Conditions, v1alpha1.ConditionReady) {
		return errNotReady
	}
	return nil
}

// printChecks is well when there are checks and none has failed.
func printChecks(w io.Writer, checks []v1alpha1.PreflightCheck) (well bool, err error) {
	var rows [][]string
	well = len(checks) > 0
	for _, p := range checks {
		rows = append(rows, []string{p.Check, p.Target, string(p.Result), p.Message})
		well = well && p.Result != v1alpha1.PreflightFailed
	}
	return well, printTable(w, []string{"CHECK", "TARGET", "RESULT", "MESSAGE"}, rows)
}

func newPlansCommand(door *connection) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "plans",
		Short: "List the recovery plans and whether a run of each would succeed now",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := door.client()
			if err != nil {
				return err
			}
			var list v1alpha1.RecoveryPlanList
			if err := api.List(cmd.Context(), &list); err != nil {
				return fmt.Errorf("list plans: %w", err)
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), list.Items)
			}
			if len(list.Items) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no plan yet: deploy/plans shows one")
				return nil
			}
			return printPlans(cmd.OutOrStdout(), list.Items)
		},
	}
	outputFlag(c, &output, "table", "json")
	return c
}

func printPlans(w io.Writer, plans []v1alpha1.RecoveryPlan) error {
	var rows [][]string
	well := true
	for _, p := range plans {
		ready := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
		why := ""
		if ready != nil {
			why = ready.Reason + ": " + ready.Message
		}
		rows = append(rows, []string{p.Name, string(p.Spec.Use), fmt.Sprint(len(p.Spec.Waves)), condition(p.Status.Conditions, v1alpha1.ConditionReady), why})
		well = well && meta.IsStatusConditionTrue(p.Status.Conditions, v1alpha1.ConditionReady)
	}
	if err := printTable(w, []string{"NAME", "USE", "WAVES", "READY", "WHY"}, rows); err != nil {
		return err
	}
	if !well {
		return errNotReady
	}
	return nil
}
