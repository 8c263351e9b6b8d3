package v1alpha1

import (
	"slices"
	"strings"
)

// LabelPlace with the value "true" says of a ClusterRole or ClusterRoleBinding of
// the hub that it is meant for clusters. Without it none is placed, so that the
// hub's own rights stay in the hub.
const LabelPlace = "tripod.dev/place"

// VerbPlace is the right, in the hub, to give clusters the ClusterRole or
// ClusterRoleBinding of a name: to write it as long as it carries LabelPlace, and to
// write placements that select it.
const VerbPlace = "place"

// GroupRights is the API group of roles and bindings.
const GroupRights = "rbac.authorization.k8s.io"

// ClusterWideRights tells of a kind whether its objects are in no namespace and can
// be placed all the same: by a placement in NamespaceSystem that names them.
func ClusterWideRights(group, kind string) bool {
	return group == GroupRights && (kind == "ClusterRole" || kind == "ClusterRoleBinding")
}

// RolesOfEveryCluster are those that Kubernetes makes for people.
var RolesOfEveryCluster = []string{"admin", "cluster-admin", "edit", "view"}

// ReservedRights tells of a name whether a ClusterRole or ClusterRoleBinding that is
// called so belongs to Kubernetes or to Tripod in every cluster, and cannot be placed.
func ReservedRights(name string) bool {
	return slices.Contains(RolesOfEveryCluster, name) || strings.HasPrefix(name, "system:") || strings.HasPrefix(name, "tripod")
}

// VerbRunJobs is the right to have a RecoveryPlan of a name run Jobs in clusters:
// they are made with the rights of the clusters' agents, not of who wrote the plan.
const VerbRunJobs = "runjobs"

// ReservedNamespace is true for namespaces of clusters in which no Job of a plan
// runs: what is there has rights over the whole cluster.
func ReservedNamespace(name string) bool {
	return name == NamespaceSystem || strings.HasPrefix(name, "kube-")
}
