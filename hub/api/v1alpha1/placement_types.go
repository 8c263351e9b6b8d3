package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Placement says which templates of its namespace run in which clusters.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=pl
// +kubebuilder:printcolumn:name="Strategy",type=string,JSONPath=`.spec.replicas.strategy`
// +kubebuilder:printcolumn:name="Scheduled",type=string,JSONPath=`.status.conditions[?(@.type=="Scheduled")].status`
// +kubebuilder:printcolumn:name="Applied",type=string,JSONPath=`.status.conditions[?(@.type=="Applied")].status`
// +kubebuilder:printcolumn:name="Healthy",type=string,JSONPath=`.status.conditions[?(@.type=="Healthy")].status`
// +kubebuilder:printcolumn:name="Clusters",type=string,JSONPath=`.status.decisions[*].cluster`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Placement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   PlacementSpec   `json:"spec"`
	Status PlacementStatus `json:"status,omitempty"`
}

// PlacementList is a list of Placements.
//
// +kubebuilder:object:root=true
type PlacementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Placement `json:"items"`
}

// PlacementSpec selects templates and clusters.
type PlacementSpec struct {
	// Resources select the templates, in the placement's namespace. A placement in
	// tripod-system can also name ClusterRoles and ClusterRoleBindings that carry the
	// label tripod.dev/place=true; that takes the verb place on them.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	Resources []ResourceSelector `json:"resources"`
	// Clusters select the candidates; empty selects every accepted cluster.
	Clusters ClusterSelector `json:"clusters,omitempty"`
	// +kubebuilder:validation:MaxItems=4
	Spread   []SpreadConstraint `json:"spread,omitempty"`
	Replicas ReplicaPolicy      `json:"replicas,omitempty"`
	// +kubebuilder:validation:MaxItems=64
	Overrides []Override `json:"overrides,omitempty"`
	// WhenLost says what happens to a lost cluster's share. Nothing is ever
	// deleted on the lost side.
	// +kubebuilder:default=Keep
	WhenLost WhenLost `json:"whenLost,omitempty"`
}

// WhenLost is Keep or Move.
// +kubebuilder:validation:Enum=Keep;Move
type WhenLost string

// What happens to a lost cluster's share of the replicas.
const (
	WhenLostKeep WhenLost = "Keep"
	WhenLostMove WhenLost = "Move"
)

// ResourceSelector selects templates by name or by label.
//
// +kubebuilder:validation:XValidation:rule="has(self.name) != has(self.labelSelector)",message="give either name or labelSelector"
type ResourceSelector struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	APIVersion string `json:"apiVersion"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`
	// +kubebuilder:validation:MaxLength=253
	Name          string                `json:"name,omitempty"`
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
}

// ClusterSelector selects clusters; every field that is given must match.
type ClusterSelector struct {
	// +kubebuilder:validation:MaxItems=64
	Regions []string `json:"regions,omitempty"`
	// +kubebuilder:validation:MaxItems=64
	Centers []string `json:"centers,omitempty"`
	// +kubebuilder:validation:MaxItems=256
	Names         []string              `json:"names,omitempty"`
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
}

// SpreadOver is the kind of failure domain to spread over.
// +kubebuilder:validation:Enum=Region;Center;Cluster
type SpreadOver string

// Domains to spread over.
const (
	SpreadOverRegion  SpreadOver = "Region"
	SpreadOverCenter  SpreadOver = "Center"
	SpreadOverCluster SpreadOver = "Cluster"
)

// SpreadConstraint bounds the number of domains used.
//
// +kubebuilder:validation:XValidation:rule="!has(self.max) || !has(self.min) || self.min <= self.max",message="min must not exceed max"
type SpreadConstraint struct {
	Over SpreadOver `json:"over"`
	// +kubebuilder:validation:Minimum=1
	Min int32 `json:"min,omitempty"`
	// +kubebuilder:validation:Minimum=1
	Max int32 `json:"max,omitempty"`
}

// ReplicaStrategy is Duplicate or Divide.
// +kubebuilder:validation:Enum=Duplicate;Divide
type ReplicaStrategy string

// Replica strategies.
const (
	// StrategyDuplicate runs the template's replicas in every chosen cluster.
	StrategyDuplicate ReplicaStrategy = "Duplicate"
	// StrategyDivide shares the template's replicas out over the clusters.
	StrategyDivide ReplicaStrategy = "Divide"
)

// DivideBy is what shares are proportional to.
// +kubebuilder:validation:Enum=Weight;FreeCapacity
type DivideBy string

// What shares are proportional to.
const (
	DivideByWeight       DivideBy = "Weight"
	DivideByFreeCapacity DivideBy = "FreeCapacity"
)

// ReplicaPolicy says how many replicas run where.
type ReplicaPolicy struct {
	// +kubebuilder:default=Duplicate
	Strategy ReplicaStrategy `json:"strategy,omitempty"`
	// By is for Divide.
	// +kubebuilder:default=Weight
	By DivideBy `json:"by,omitempty"`
	// Weights by cluster name, for By: Weight; a cluster not named weighs 1.
	// +kubebuilder:validation:MaxProperties=256
	Weights map[string]int32 `json:"weights,omitempty"`
	// Survive asks that the declared replicas still run after the loss of
	// any that many centers.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2
	Survive int32 `json:"survive,omitempty"`
}

// Override changes what some clusters get.
type Override struct {
	Clusters ClusterSelector `json:"clusters"`
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Patches []OverridePatch `json:"patches"`
}

// OverridePatch is an RFC 6902 patch of one selected template.
type OverridePatch struct {
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`
	// Name is empty for every selected template of the kind.
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	JSONPatch []JSONPatchOperation `json:"jsonPatch"`
}

// JSONPatchOperation is one operation of RFC 6902.
type JSONPatchOperation struct {
	// +kubebuilder:validation:Enum=add;remove;replace;move;copy;test
	Op string `json:"op"`
	// +kubebuilder:validation:MaxLength=1024
	Path string `json:"path"`
	// +kubebuilder:validation:MaxLength=1024
	From string `json:"from,omitempty"`
	// +kubebuilder:pruning:PreserveUnknownFields
	Value *apiextensionsv1.JSON `json:"value,omitempty"`
}

// PlacementStatus is what placement computed and what became of it.
type PlacementStatus struct {
	ObservedGeneration int64               `json:"observedGeneration,omitempty"`
	Decisions          []PlacementDecision `json:"decisions,omitempty"`
	Rejected           []RejectedCluster   `json:"rejected,omitempty"`
	// Placed lists the templates that the decisions cover, so that the next
	// decision knows what to bury when one leaves.
	Placed []TemplateReference `json:"placed,omitempty"`
	// Left are clusters whose share moved away while they were lost. What
	// they hold is not deleted; taint such a cluster with effect Evacuate to have
	// it deleted.
	Left []string `json:"left,omitempty"`
	// Revision orders the decisions, in revisions of the hub's store. What is
	// rendered from this decision carries it, and a tombstone that came before the
	// decision is older.
	Revision int64 `json:"revision,omitempty"`
	// Digest covers the decisions, the overrides and the templates as they were
	// when it was decided. A hub member renders only what it sees to match.
	Digest   string                   `json:"digest,omitempty"`
	Clusters []PlacementClusterStatus `json:"clusters,omitempty"`
	// Needs is what the templates ask of a cluster.
	Needs *PlacementNeeds `json:"needs,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PlacementNeeds is what a cluster must have to run a share.
type PlacementNeeds struct {
	// Shares are the requests of each cluster's share, without overrides.
	Shares []ShareRequests `json:"shares,omitempty"`
	// StorageClasses that claims name.
	StorageClasses []string `json:"storageClasses,omitempty"`
	// CustomKinds as KIND.GROUP.
	CustomKinds []string `json:"customKinds,omitempty"`
	Images      []string `json:"images,omitempty"`
}

// ShareRequests are what the pods of one cluster's share request.
type ShareRequests struct {
	Cluster  string    `json:"cluster"`
	Requests Resources `json:"requests,omitempty"`
}

// PlacementDecision gives a cluster its share. Replicas is nil where the
// strategy leaves the template's own number.
type PlacementDecision struct {
	Cluster  string `json:"cluster"`
	Replicas *int32 `json:"replicas,omitempty"`
	// Templates holds the shares of single templates by Kind/name, where a
	// placement selects several with replicas.
	Templates map[string]int32 `json:"templates,omitempty"`
}

// RejectedCluster says why a cluster gets nothing.
type RejectedCluster struct {
	Cluster string   `json:"cluster"`
	Reasons []string `json:"reasons"`
}

// TemplateReference names a template or an object made from it.
type TemplateReference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}

// PlacementClusterStatus counts objects in one cluster.
type PlacementClusterStatus struct {
	Cluster   string      `json:"cluster"`
	Applied   int32       `json:"applied"`
	Healthy   int32       `json:"healthy"`
	Failures  []string    `json:"failures,omitempty"`
	UpdatedAt metav1.Time `json:"updatedAt,omitempty"`
}

// Tombstone is the committed order to delete one object in named clusters.
// It is the only thing an applier deletes for (invariant I3). Placement makes
// it when a template or a decision goes; it ends when every cluster has
// acknowledged it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=tomb
// +kubebuilder:printcolumn:name="Kind",type=string,JSONPath=`.spec.object.kind`
// +kubebuilder:printcolumn:name="Object",type=string,JSONPath=`.spec.object.name`
// +kubebuilder:printcolumn:name="Clusters",type=string,JSONPath=`.spec.clusters`
// +kubebuilder:printcolumn:name="Done",type=string,JSONPath=`.status.acknowledged`
type Tombstone struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   TombstoneSpec   `json:"spec"`
	Status TombstoneStatus `json:"status,omitempty"`
}

// TombstoneList is a list of Tombstones.
//
// +kubebuilder:object:root=true
type TombstoneList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Tombstone `json:"items"`
}

// TombstoneSpec never changes.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a tombstone is immutable: make another"
type TombstoneSpec struct {
	Object   TemplateReference `json:"object"`
	Clusters []string          `json:"clusters"`
	// Placement is the one that placed the object.
	Placement string `json:"placement,omitempty"`
	// Revision orders the tombstone among the decisions: newer than the one that
	// placed the object, older than the next.
	Revision int64 `json:"revision,omitempty"`
	// Reason is for people.
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
}

// TombstoneStatus lists the clusters where the object is surely gone.
type TombstoneStatus struct {
	Acknowledged []string `json:"acknowledged,omitempty"`
}
