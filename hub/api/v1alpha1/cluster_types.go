package v1alpha1

import (
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Cluster is one member cluster in one center.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=tcl
// +kubebuilder:printcolumn:name="Region",type=string,JSONPath=`.spec.region`
// +kubebuilder:printcolumn:name="Center",type=string,JSONPath=`.spec.center`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Leased",type=string,JSONPath=`.status.conditions[?(@.type=="Leased")].status`
// +kubebuilder:printcolumn:name="Hold",type=string,JSONPath=`.spec.hold.reason`,priority=1
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.kubernetes.version`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",message="a cluster's name is a DNS label: lower-case letters, digits and '-', 63 characters at most"
// +kubebuilder:validation:XValidation:rule="!(self.metadata.name in ['hub','fleet'])",message="'hub' and 'fleet' name routes of the gateway: choose another cluster name"
type Cluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ClusterSpec   `json:"spec"`
	Status ClusterStatus `json:"status,omitempty"`
}

// ClusterList is a list of Clusters.
//
// +kubebuilder:object:root=true
type ClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Cluster `json:"items"`
}

// ClusterSpec says where a cluster is and how it is reached.
type ClusterSpec struct {
	// Region holds the center.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Region string `json:"region"`
	// Center is the failure domain with its own power and network.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Center string `json:"center"`
	// Access says how the gateway reaches the cluster's API server.
	// +kubebuilder:default={mode: Tunnel}
	Access ClusterAccess `json:"access,omitempty"`
	// Admission is Pending until someone accepts the cluster. A join token
	// made for the cluster's name is such an acceptance.
	// +kubebuilder:default=Pending
	// +kubebuilder:validation:Enum=Pending;Accepted
	Admission ClusterAdmission `json:"admission,omitempty"`
	// AgentAddress is HOST:PORT where the agents of other clusters reach this
	// cluster's agent, for the pledges that keep a primary while the hub is gone.
	// Without it no primary elsewhere that needs this cluster's pledge goes on then.
	// +kubebuilder:validation:MaxLength=260
	// +kubebuilder:validation:Pattern=`^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$`
	AgentAddress string `json:"agentAddress,omitempty"`
	// Taints keep placements away.
	// +kubebuilder:validation:MaxItems=32
	Taints []ClusterTaint `json:"taints,omitempty"`
	// Hold keeps the primary role away from the cluster until a person clears
	// it or its time has passed: the cluster is no automatic target and no
	// target of a failback, and another move to it needs an approval.
	Hold *ClusterHold `json:"hold,omitempty"`
}

// ClusterHold is a person's word that a cluster shall not take over now.
type ClusterHold struct {
	// Until is when the hold ends by itself; never, if it is absent.
	Until *metav1.Time `json:"until,omitempty"`
	// Reason is for the people who ask why.
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
}

// Holds says whether the hold is in force at a moment of wall time.
func (h *ClusterHold) Holds(now time.Time) bool {
	return h != nil && (h.Until == nil || now.Before(h.Until.Time))
}

// ClusterAdmission is Pending or Accepted.
type ClusterAdmission string

// Admissions of a cluster.
const (
	AdmissionPending  ClusterAdmission = "Pending"
	AdmissionAccepted ClusterAdmission = "Accepted"
)

// AccessMode is Tunnel or Direct.
// +kubebuilder:validation:Enum=Tunnel;Direct
type AccessMode string

// Access modes.
const (
	AccessTunnel AccessMode = "Tunnel"
	AccessDirect AccessMode = "Direct"
)

// ClusterAccess says how the gateway reaches the cluster's API server.
//
// +kubebuilder:validation:XValidation:rule="self.mode == 'Tunnel' || (has(self.server) && self.server.startsWith('https://'))",message="mode Direct needs server: https://HOST:PORT"
type ClusterAccess struct {
	// +kubebuilder:default=Tunnel
	Mode AccessMode `json:"mode,omitempty"`
	// Server is the API server's URL, for mode Direct.
	// +kubebuilder:validation:MaxLength=512
	Server string `json:"server,omitempty"`
	// CABundle is PEM, for mode Direct.
	CABundle []byte `json:"caBundle,omitempty"`
}

// TaintEffect is what a taint does to placements.
// +kubebuilder:validation:Enum=NoPlacement;Evacuate
type TaintEffect string

// Taint effects.
const (
	TaintNoPlacement TaintEffect = "NoPlacement"
	TaintEvacuate    TaintEffect = "Evacuate"
)

// ClusterTaint keeps placements away from a cluster.
type ClusterTaint struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Key    string      `json:"key"`
	Effect TaintEffect `json:"effect"`
}

// ClusterStatus is what the hub knows of a cluster.
type ClusterStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Vantages are the hub members that hear the cluster.
	Vantages   []Vantage         `json:"vantages,omitempty"`
	Kubernetes *KubernetesStatus `json:"kubernetes,omitempty"`
	// BuriedRevision is the revision of the latest tombstone carried out there.
	// What the cluster is told to run is never of an older state.
	BuriedRevision int64 `json:"buriedRevision,omitempty"`
}

// Vantage is one hub member's view of a cluster's liveness.
type Vantage struct {
	Member string `json:"member"`
	Center string `json:"center"`
	// LastHeard is for people; decisions use monotonic time.
	LastHeard metav1.MicroTime `json:"lastHeard,omitempty"`
	Connected bool             `json:"connected,omitempty"`
}

// KubernetesStatus sums up a cluster's nodes. Quantities are cpu and memory.
type KubernetesStatus struct {
	Version     string    `json:"version,omitempty"`
	Nodes       int32     `json:"nodes"`
	ReadyNodes  int32     `json:"readyNodes"`
	Allocatable Resources `json:"allocatable,omitempty"`
	Requested   Resources `json:"requested,omitempty"`
	// StorageClasses are those that claims can name.
	StorageClasses []string `json:"storageClasses,omitempty"`
	// CustomKinds are the kinds served that are not Kubernetes' own, as
	// KIND.GROUP.
	CustomKinds []string `json:"customKinds,omitempty"`
	// MissingImages are those that pods wait for in vain.
	MissingImages []string `json:"missingImages,omitempty"`
	// Crowded are the namespaces with pods for which there is no room.
	Crowded []string `json:"crowded,omitempty"`
}

// IsCustomGroup is false for the API groups of Kubernetes itself.
func IsCustomGroup(group string) bool {
	return strings.Contains(group, ".") && !strings.HasSuffix(group, ".k8s.io")
}

// Resources is an amount of cpu and memory.
type Resources struct {
	CPU    resource.Quantity `json:"cpu,omitempty"`
	Memory resource.Quantity `json:"memory,omitempty"`
}

// HasJoined is false for a cluster that was announced and that no hub member has
// ever heard. What was never there cannot be lost.
func (c *Cluster) HasJoined() bool {
	return c.Status.Kubernetes != nil || slices.ContainsFunc(c.Status.Vantages, func(v Vantage) bool { return !v.LastHeard.IsZero() })
}
