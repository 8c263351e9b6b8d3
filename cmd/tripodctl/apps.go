package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newAppsCommand(door *connection) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "apps",
		Short: "List the applications, where they are active and whether they could move",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := door.client()
			if err != nil {
				return err
			}
			var list v1alpha1.ApplicationList
			if err := api.List(cmd.Context(), &list); err != nil {
				return fmt.Errorf("list applications: %w", err)
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), list.Items)
			}
			if len(list.Items) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no application yet: deploy/ledger shows one")
				return nil
			}
			var rows [][]string
			well := true
			for _, a := range list.Items {
				last := ""
				if r := a.Status.LastRun; r != nil {
					last = fmt.Sprintf("%s %s", r.Name, r.Phase)
					if r.RTOSeconds != "" {
						last += " in " + r.RTOSeconds + "s"
					}
				}
				rows = append(rows, []string{
					a.Namespace, a.Name, strings.Join(a.Status.Active, ","),
					condition(a.Status.Conditions, v1alpha1.ConditionAvailable),
					condition(a.Status.Conditions, v1alpha1.ConditionProtected),
					condition(a.Status.Conditions, v1alpha1.ConditionReady), last,
				})
				well = well && meta.IsStatusConditionTrue(a.Status.Conditions, v1alpha1.ConditionAvailable)
			}
			if err := printTable(cmd.OutOrStdout(), []string{"NAMESPACE", "NAME", "ACTIVE", "AVAILABLE", "PROTECTED", "READY", "LAST-RUN"}, rows); err != nil {
				return err
			}
			if !well {
				return errNotReady
			}
			return nil
		},
	}
	outputFlag(c, &output, "table", "json")
	return c
}
