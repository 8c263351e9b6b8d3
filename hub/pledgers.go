package hub

import (
	"tripod.dev/tripod/failover"
	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/hub/term"
)

// pledgers is the engine's word on whose pledge a grant of the primary role names.
func pledgers(places []term.Place, d *v1alpha1.Dataset) []string {
	fleet := failover.Fleet{}
	for _, p := range places {
		fleet.Clusters = append(fleet.Clusters, failover.Cluster{Name: p.Cluster, Region: p.Region})
	}
	return failover.Pledgers(fleet, d)
}
