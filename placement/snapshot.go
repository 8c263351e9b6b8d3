// Package placement decides which templates run in which clusters. Schedule is
// a pure function of an immutable Snapshot: no clock, random, network or log.
// Whatever it needs to know about time (is a lease over?) arrives as data.
package placement

import (
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Snapshot is everything a decision depends on. Schedule does not change it, and
// the order of its lists does not change the decision.
type Snapshot struct {
	// Placement is the policy; its status is ignored in favour of Previous.
	Placement *v1alpha1.Placement
	// Templates are the ones that Placement selects now.
	Templates []Template
	// Clusters are all clusters of the fleet, eligible or not.
	Clusters []Cluster
	// Previous is the committed decision, or the zero value at first.
	Previous Previous
}

// Previous is the last committed decision.
type Previous struct {
	Shares []v1alpha1.PlacementDecision
	// Left are the clusters whose share moved away while they were lost, and
	// which may still hold the objects.
	Left []string
}

// Template is what a decision needs to know of a template.
type Template struct {
	Ref v1alpha1.TemplateReference
	// Replicas is the declared number, nil for a kind that has none.
	Replicas *int32
	// Requests of one replica.
	Requests Amount
}

// Key is how a template is named in PlacementDecision.Templates.
func (t Template) Key() string { return TemplateKey(t.Ref) }

// TemplateKey is KIND/NAME.
func TemplateKey(ref v1alpha1.TemplateReference) string { return ref.Kind + "/" + ref.Name }

// Amount is an amount of cpu and memory.
type Amount struct {
	MilliCPU int64
	Bytes    int64
}

// LeaseState is what the leader knows of a cluster's lease.
type LeaseState int

// Lease states.
const (
	// LeaseUnknown: not heard lately, and the lease may still run.
	LeaseUnknown LeaseState = iota
	// LeaseHeld: the cluster holds its lease now.
	LeaseHeld
	// LeaseOver: the lease is surely over by the leader's clock (safety.md §3).
	LeaseOver
)

// Cluster is what a decision needs to know of a cluster.
type Cluster struct {
	Name, Region, Center string
	Labels               map[string]string
	Accepted             bool
	Taints               []v1alpha1.ClusterTaint
	Lease                LeaseState
	// Free is nil while the cluster's capacity is not known.
	Free *Amount
}

// Reason why a placement could not be scheduled, as in condition Scheduled.
type Reason string

// Reasons of a Decision.
const (
	ReasonScheduled            Reason = "Scheduled"
	ReasonNothingSelected      Reason = "NothingSelected"
	ReasonNoCluster            Reason = "NoCluster"
	ReasonSpreadUnsatisfiable  Reason = "SpreadUnsatisfiable"
	ReasonInsufficientCapacity Reason = "InsufficientCapacity"
	ReasonInvalid              Reason = "Invalid"
)

// Decision is what placement computed.
//
// Unless Reason is ReasonScheduled or ReasonNothingSelected, Shares repeats the
// previous decision: what cannot be scheduled again is left where it runs.
type Decision struct {
	// Shares are sorted by cluster.
	Shares []v1alpha1.PlacementDecision
	// Rejected are sorted by cluster and say every reason.
	Rejected []v1alpha1.RejectedCluster
	// Left are clusters that lost their share by loss and may still hold the
	// objects. They are not to be buried.
	Left []string
	// Reason and Message are for condition Scheduled.
	Reason  Reason
	Message string
}

// Scheduled tells whether the decision satisfies the policy.
func (d Decision) Scheduled() bool { return d.Reason == ReasonScheduled }

// ReplicasFor is the share of one template in one cluster, or nil where the
// template's own number stands.
func ReplicasFor(share v1alpha1.PlacementDecision, ref v1alpha1.TemplateReference) *int32 {
	if n, ok := share.Templates[TemplateKey(ref)]; ok {
		return &n
	}
	return share.Replicas
}
