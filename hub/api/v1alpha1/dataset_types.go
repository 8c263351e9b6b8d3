package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Dataset is replicated state: a database or a volume group, one copy per
// member cluster, of which one is the primary.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=dset
// +kubebuilder:printcolumn:name="Driver",type=string,JSONPath=`.spec.driver`
// +kubebuilder:printcolumn:name="Protection",type=string,JSONPath=`.spec.protection`
// +kubebuilder:printcolumn:name="Primary",type=string,JSONPath=`.status.primary`
// +kubebuilder:printcolumn:name="Epoch",type=integer,JSONPath=`.status.epoch`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="SyncSet",type=string,JSONPath=`.status.syncSet`
// +kubebuilder:printcolumn:name="Protected",type=string,JSONPath=`.status.conditions[?(@.type=="Protected")].status`
type Dataset struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   DatasetSpec   `json:"spec"`
	Status DatasetStatus `json:"status,omitempty"`
}

// DatasetList is a list of Datasets.
//
// +kubebuilder:object:root=true
type DatasetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Dataset `json:"items"`
}

// Home is the cluster where the primary is when nothing is wrong.
func (d *Dataset) Home() string {
	if len(d.Spec.Members) == 0 {
		return ""
	}
	return d.Spec.Members[0].Cluster
}

// Protection says when a write may be acknowledged.
// +kubebuilder:validation:Enum=ZeroLoss;MaxAvailability;Asynchronous
type Protection string

// Protections, safety.md section 5.
const (
	ZeroLoss        Protection = "ZeroLoss"
	MaxAvailability Protection = "MaxAvailability"
	Asynchronous    Protection = "Asynchronous"
)

// Link is how a member receives the primary's writes.
// +kubebuilder:validation:Enum=Synchronous;Asynchronous
type Link string

// Links.
const (
	LinkSynchronous  Link = "Synchronous"
	LinkAsynchronous Link = "Asynchronous"
)

// DatasetSpec declares the copies.
type DatasetSpec struct {
	// Driver is built in, or the name of a driver socket.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Driver string `json:"driver"`
	// +kubebuilder:default=ZeroLoss
	Protection Protection `json:"protection,omitempty"`
	// Members hold the copies; the first one is the first primary and the home:
	// a failback leads to it.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=cluster
	Members []DatasetMember `json:"members"`
}

// DatasetMember is one copy.
type DatasetMember struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Cluster string `json:"cluster"`
	// +kubebuilder:default=Synchronous
	Link Link `json:"link,omitempty"`
	// Address is HOST:PORT where the other members reach this copy.
	// +kubebuilder:validation:MaxLength=253
	Address string `json:"address,omitempty"`
	// Parameters are the driver's, for instance statefulSet for postgresql.
	// +kubebuilder:validation:MaxProperties=32
	Parameters map[string]string `json:"parameters,omitempty"`
}

// DatasetPhase is where a dataset's role change stands.
type DatasetPhase string

// Phases of a dataset. Fencing and Forming give the primary role to nobody.
const (
	// DatasetForming: no primary was ever named.
	DatasetForming DatasetPhase = ""
	// DatasetSteady: status.primary holds the role at status.epoch.
	DatasetSteady DatasetPhase = "Steady"
	// DatasetClosing: a switchover has ordered status.primary to stop in order.
	// It keeps the role at status.epoch, but once it has closed only a decision
	// that is committed later opens it again.
	DatasetClosing DatasetPhase = "Closing"
	// DatasetFencing: the epoch is committed, the old primary must be proven
	// stopped; nobody is granted the primary role.
	DatasetFencing DatasetPhase = "Fencing"
	// DatasetPromoting: the old primary has surely stopped; status.primary
	// may be promoted at status.epoch.
	DatasetPromoting DatasetPhase = "Promoting"
)

// DatasetStatus is committed state: roles are granted from it alone.
type DatasetStatus struct {
	ObservedGeneration int64        `json:"observedGeneration,omitempty"`
	Phase              DatasetPhase `json:"phase,omitempty"`
	// Primary is the cluster with the primary role at Epoch, or the coming
	// one while Phase is Fencing or Promoting.
	Primary string `json:"primary,omitempty"`
	// PreviousPrimary is being fenced while Phase is Fencing.
	PreviousPrimary string `json:"previousPrimary,omitempty"`
	// Epoch numbers role changes; it only grows (invariant I5).
	Epoch int64 `json:"epoch,omitempty"`
	// Run is the recovery run that owns the role change under way.
	Run string `json:"run,omitempty"`
	// FenceProof is how PreviousPrimary was proven stopped before the
	// promotion at Epoch; committed together with Phase Promoting.
	FenceProof FenceProof `json:"fenceProof,omitempty"`
	// UnsettledAfter is a revision of the store before the first promotion since the
	// dataset was last Steady: whoever was named the primary after it may have
	// acknowledged what no other copy holds. 0 while it is Steady.
	UnsettledAfter int64 `json:"unsettledAfter,omitempty"`
	// Lingers is a former primary that may go on until Primary is promoted, on the pledge
	// that Primary does not give from then on: another copy takes the role only with a
	// proof of its own that it has stopped. Empty while the dataset is Steady.
	// +kubebuilder:validation:MaxLength=63
	Lingers string `json:"lingers,omitempty"`
	// CatchUp is what a switchover knows of the two copies, from the phase
	// Closing until its target is the primary.
	CatchUp *CatchUp `json:"catchUp,omitempty"`
	// ReturnedRun is the switchover that last gave the role back to Primary at
	// this epoch: it does not close it a second time.
	// +kubebuilder:validation:MaxLength=253
	ReturnedRun string `json:"returnedRun,omitempty"`
	// SyncSet holds the members that surely have every acknowledged write.
	// A committed fact, not an observation (safety.md section 5).
	SyncSet []string `json:"syncSet,omitempty"`
	// SyncTarget holds the standbys that the primary is told to wait for; it
	// contains the sync set's, and those that are about to join it.
	SyncTarget []string `json:"syncTarget,omitempty"`
	// SyncGeneration counts the changes of SyncTarget.
	SyncGeneration int64                 `json:"syncGeneration,omitempty"`
	Members        []DatasetMemberStatus `json:"members,omitempty"`
	// Failsafe is true once a grant may have let pledges keep the primary while no
	// hub renews its lease: elapsed time alone then proves no stop of it. A role
	// change that has proven one begins anew.
	Failsafe bool `json:"failsafe,omitempty"`
	// FormerMembers were members at this epoch: the primary may still live on a
	// pledge of theirs.
	FormerMembers []string `json:"formerMembers,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CatchUp is the proof of a switchover that its target holds everything that
// the primary ever acknowledged. No epoch is committed without it.
type CatchUp struct {
	// Target is the cluster that takes over.
	// +kubebuilder:validation:MaxLength=63
	Target string `json:"target"`
	// FinalPosition is where the log of the closed primary ends, in the
	// driver's form, and FinalBytes the same as a number; 0 until it has closed.
	// +kubebuilder:validation:MaxLength=253
	FinalPosition string `json:"finalPosition,omitempty"`
	FinalBytes    int64  `json:"finalBytes,omitempty"`
	// TargetPosition is how far the target's log reached after that. It is
	// committed together with the epoch.
	// +kubebuilder:validation:MaxLength=253
	TargetPosition string `json:"targetPosition,omitempty"`
	TargetBytes    int64  `json:"targetBytes,omitempty"`
}

// Closed is true when the primary has stopped in order.
func (c *CatchUp) Closed() bool { return c != nil && c.FinalBytes > 0 }

// Proven is true when the target is known to hold all of it.
func (c *CatchUp) Proven() bool { return c.Closed() && c.TargetBytes >= c.FinalBytes }

// Role is Primary or Replica.
type Role string

// Roles of a cluster for a dataset.
const (
	RolePrimary Role = "Primary"
	RoleReplica Role = "Replica"
	RoleNone    Role = "None"
)

// GuardCoverage says whether every process that can write is guarded.
type GuardCoverage string

// Guard coverages.
const (
	Guarded      GuardCoverage = "Guarded"
	Unguarded    GuardCoverage = "Unguarded"
	GuardUnknown GuardCoverage = "Unknown"
)

// MemberState is what the driver observed of one copy.
type MemberState string

// States of a copy.
const (
	StateRunning    MemberState = "Running"   // a primary that accepts writes
	StateStreaming  MemberState = "Streaming" // a replica that receives the primary's log
	StateCatchingUp MemberState = "CatchingUp"
	StateDetached   MemberState = "Detached" // a replica that receives nothing
	StateStopped    MemberState = "Stopped"
	StateClosed     MemberState = "Closed" // a primary stopped in order by a switchover
	StateFenced     MemberState = "Fenced"
	StateDiverged   MemberState = "Diverged" // holds writes the primary does not
	StateCopying    MemberState = "Copying"
	StateUnknown    MemberState = "Unknown"
)

// Runs is true for a copy whose database runs, as a primary or as a replica.
func (s MemberState) Runs() bool {
	return s == StateRunning || s == StateStreaming || s == StateCatchingUp || s == StateDetached
}

// CopyState is Whole, Partial or Empty; empty if the copy was never seen.
type CopyState string

// States of what a volume holds.
const (
	CopyWhole   CopyState = "Whole"
	CopyPartial CopyState = "Partial"
	CopyEmpty   CopyState = "Empty" // the volume was lost, or never held one
)

// DatasetMemberStatus is the last observation of one copy.
type DatasetMemberStatus struct {
	Cluster string      `json:"cluster"`
	Role    Role        `json:"role,omitempty"`
	State   MemberState `json:"state,omitempty"`
	// Epoch is the one that the member acts on.
	Epoch int64 `json:"epoch,omitempty"`
	// Position is the driver's, for instance a PostgreSQL LSN as X/Y.
	Position   string        `json:"position,omitempty"`
	Timeline   int64         `json:"timeline,omitempty"`
	LagBytes   *int64        `json:"lagBytes,omitempty"`
	LagSeconds *int64        `json:"lagSeconds,omitempty"`
	Guarded    GuardCoverage `json:"guarded,omitempty"`
	// Copy says whether the volume holds a whole copy. It is Empty when the guard
	// finds nothing on it, whatever was there before, and stays Partial from
	// the first sight of a copy that is being made until the copy was seen to
	// run, however often the cluster or the hub's leader is lost in between.
	Copy CopyState `json:"copy,omitempty"`
	// Acknowledges names the standbys this member waits for, when primary.
	Acknowledges []string         `json:"acknowledges,omitempty"`
	Message      string           `json:"message,omitempty"`
	ObservedAt   metav1.MicroTime `json:"observedAt,omitempty,omitzero"`
	// HeldSince is set when a failover took the primary role from the member, and
	// again with each loss. It is no automatic target, and no target of a
	// failback, until it has been heard without a gap for the hold time, which
	// clears the mark.
	HeldSince *metav1.MicroTime `json:"heldSince,omitempty"`
}
