package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Application is the unit of recovery: placements, datasets and services of
// its namespace that move together.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=tapp
// +kubebuilder:printcolumn:name="Active",type=string,JSONPath=`.status.active`
// +kubebuilder:printcolumn:name="Available",type=string,JSONPath=`.status.conditions[?(@.type=="Available")].status`
// +kubebuilder:printcolumn:name="Protected",type=string,JSONPath=`.status.conditions[?(@.type=="Protected")].status`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Last-RTO",type=string,JSONPath=`.status.lastRun.rtoSeconds`
type Application struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ApplicationSpec   `json:"spec"`
	Status ApplicationStatus `json:"status,omitempty"`
}

// ApplicationList is a list of Applications.
//
// +kubebuilder:object:root=true
type ApplicationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Application `json:"items"`
}

// ApplicationSpec names what moves together and how.
type ApplicationSpec struct {
	// +kubebuilder:validation:MaxItems=64
	Placements []string `json:"placements,omitempty"`
	// +kubebuilder:validation:MaxItems=64
	Datasets []string `json:"datasets,omitempty"`
	// +kubebuilder:validation:MaxItems=64
	Services []string `json:"services,omitempty"`
	// +kubebuilder:validation:MaxItems=64
	DependsOn  []ApplicationReference `json:"dependsOn,omitempty"`
	Objectives Objectives             `json:"objectives,omitempty"`
	// +kubebuilder:default={withinRegion: Automatic, acrossRegions: Approval}
	Failover FailoverPolicy `json:"failover,omitempty"`
}

// ApplicationReference names another application.
type ApplicationReference struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// Objectives are what recovery is measured against.
type Objectives struct {
	// +kubebuilder:validation:Minimum=1
	RTOSeconds int32 `json:"rtoSeconds,omitempty"`
	// +kubebuilder:validation:Minimum=0
	RPOSeconds int32 `json:"rpoSeconds,omitempty"`
}

// FailoverMode is who decides.
// +kubebuilder:validation:Enum=Automatic;Approval;Manual
type FailoverMode string

// Failover modes.
const (
	// FailoverAutomatic: the engine acts by itself.
	FailoverAutomatic FailoverMode = "Automatic"
	// FailoverApproval: the engine prepares a run and waits for an Approval.
	FailoverApproval FailoverMode = "Approval"
	// FailoverManual: nothing happens until a person starts a run.
	FailoverManual FailoverMode = "Manual"
)

// FailoverPolicy says who decides, and how long a place is held after a change.
type FailoverPolicy struct {
	// +kubebuilder:default=Automatic
	WithinRegion FailoverMode `json:"withinRegion,omitempty"`
	// +kubebuilder:default=Approval
	AcrossRegions FailoverMode `json:"acrossRegions,omitempty"`
	// HoldSeconds is how long a cluster that was lost, or from which a failover
	// took the primary role, must be heard without a gap before it is an
	// automatic target, or the target of a failback, again.
	// +kubebuilder:default=600
	// +kubebuilder:validation:Minimum=0
	HoldSeconds int32 `json:"holdSeconds,omitempty"`
	// Failback says who orders the way back to the datasets' home, the first
	// of their spec.members: a person (tripodctl failback), or the engine as
	// soon as the home is a caught-up copy and its hold time has passed.
	// +kubebuilder:default=Manual
	Failback FailbackMode `json:"failback,omitempty"`
}

// FailbackMode is who orders a failback.
// +kubebuilder:validation:Enum=Manual;Automatic
type FailbackMode string

// Failback modes.
const (
	FailbackManual    FailbackMode = "Manual"
	FailbackAutomatic FailbackMode = "Automatic"
)

// PreflightResult is Passed, Warning or Failed.
type PreflightResult string

// Preflight results.
const (
	PreflightPassed  PreflightResult = "Passed"
	PreflightWarning PreflightResult = "Warning"
	PreflightFailed  PreflightResult = "Failed"
)

// PreflightCheck is one named question about one target.
type PreflightCheck struct {
	Check   string          `json:"check"`
	Target  string          `json:"target,omitempty"`
	Result  PreflightResult `json:"result"`
	Message string          `json:"message,omitempty"`
}

// ApplicationStatus is where an application runs and whether it could move.
type ApplicationStatus struct {
	ObservedGeneration int64    `json:"observedGeneration,omitempty"`
	Active             []string `json:"active,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	Preflight  []PreflightCheck   `json:"preflight,omitempty"`
	LastRun    *LastRun           `json:"lastRun,omitempty"`
	LastDrill  *LastDrill         `json:"lastDrill,omitempty"`
}

// LastDrill sums up the latest drill.
type LastDrill struct {
	Name    string `json:"name"`
	Phase   string `json:"phase,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Cluster string `json:"cluster,omitempty"`
	// Result is what each copy answered, or why there is none.
	Result     string            `json:"result,omitempty"`
	FinishedAt *metav1.MicroTime `json:"finishedAt,omitempty"`
}

// LastRun sums up the latest recovery run.
type LastRun struct {
	Name       string `json:"name"`
	Phase      string `json:"phase,omitempty"`
	RTOSeconds string `json:"rtoSeconds,omitempty"`
	RPO        string `json:"rpo,omitempty"`
}

// GlobalService is how clients find an application.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=gsvc
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.spec.host`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Answers",type=string,JSONPath=`.status.answers`
// +kubebuilder:printcolumn:name="Epoch",type=integer,JSONPath=`.status.epoch`
type GlobalService struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   GlobalServiceSpec   `json:"spec"`
	Status GlobalServiceStatus `json:"status,omitempty"`
}

// GlobalServiceList is a list of GlobalServices.
//
// +kubebuilder:object:root=true
type GlobalServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GlobalService `json:"items"`
}

// ServiceMode is which endpoints answer.
// +kubebuilder:validation:Enum=ActiveOnly;AllHealthy
type ServiceMode string

// Service modes.
const (
	ActiveOnly ServiceMode = "ActiveOnly"
	AllHealthy ServiceMode = "AllHealthy"
)

// GlobalServiceSpec declares a name and where it may lead.
type GlobalServiceSpec struct {
	// Host is a fully qualified name without the final dot.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host"`
	// +kubebuilder:default=ActiveOnly
	Mode ServiceMode `json:"mode,omitempty"`
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=86400
	TTLSeconds int32 `json:"ttlSeconds,omitempty"`
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Endpoints []ServiceEndpoint `json:"endpoints"`
	// Drivers carry the switch out; DNS is built in.
	// +kubebuilder:default={DNS}
	// +kubebuilder:validation:MaxItems=8
	Drivers []string `json:"drivers,omitempty"`
}

// ServiceEndpoint is one place a name may lead to.
type ServiceEndpoint struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Cluster string `json:"cluster"`
	// Address is an IPv4 or IPv6 address.
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=45
	Address string `json:"address"`
	// Port is told in SRV answers.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	Weight int32 `json:"weight,omitempty"`
}

// GlobalServiceStatus is what resolvers are told, decided by the engine. A
// name whose route was never decided (epoch 0) has no answers in ActiveOnly.
type GlobalServiceStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Active are the clusters the name leads to.
	Active []string `json:"active,omitempty"`
	// Answers are their addresses.
	Answers []string `json:"answers,omitempty"`
	// Epoch of the route; an older one is refused (invariant I5).
	Epoch int64 `json:"epoch,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
