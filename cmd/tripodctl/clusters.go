package main

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

func newClustersCommand(door *connection) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "clusters",
		Short: "List the member clusters and who hears them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := door.client()
			if err != nil {
				return err
			}
			var list v1alpha1.ClusterList
			if err := api.List(cmd.Context(), &list); err != nil {
				return fmt.Errorf("list clusters: %w", err)
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), list.Items)
			}
			if len(list.Items) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no cluster yet: `tripodctl agent-manifest NAME --region R --center C | kubectl apply -f -` lets one join")
				return nil
			}
			if err := printClusters(cmd, list.Items, output == "wide"); err != nil {
				return err
			}
			for _, cl := range list.Items {
				if !meta.IsStatusConditionTrue(cl.Status.Conditions, v1alpha1.ConditionReady) {
					return errNotReady
				}
			}
			return nil
		},
	}
	outputFlag(c, &output, "table", "wide", "json")
	return c
}

func printClusters(cmd *cobra.Command, clusters []v1alpha1.Cluster, wide bool) error {
	header := []string{"NAME", "REGION", "CENTER", "READY", "LEASED", "VERSION", "NODES", "AGE"}
	if wide {
		header = append(header, "HEARD-BY", "CPU-REQUESTED", "MEMORY-REQUESTED")
	}
	var rows [][]string
	for _, cl := range clusters {
		row := []string{
			cl.Name, cl.Spec.Region, cl.Spec.Center,
			condition(cl.Status.Conditions, v1alpha1.ConditionReady),
			condition(cl.Status.Conditions, v1alpha1.ConditionLeased),
		}
		k := cl.Status.Kubernetes
		if k == nil {
			k = &v1alpha1.KubernetesStatus{}
		}
		row = append(row, k.Version, fmt.Sprintf("%d/%d", k.ReadyNodes, k.Nodes), age(cl.CreationTimestamp.Time))
		if wide {
			row = append(row, heardBy(cl),
				k.Requested.CPU.String()+" of "+k.Allocatable.CPU.String(),
				bytesOf(k.Requested.Memory)+" of "+bytesOf(k.Allocatable.Memory))
		}
		rows = append(rows, row)
	}
	return printTable(cmd.OutOrStdout(), header, rows)
}

func bytesOf(q resource.Quantity) string { return humanize.IBytes(uint64(max(0, q.Value()))) }

func heardBy(cl v1alpha1.Cluster) string {
	var members []string
	for _, v := range cl.Status.Vantages {
		if v.Connected {
			members = append(members, v.Member)
		}
	}
	return strings.Join(members, ",")
}
