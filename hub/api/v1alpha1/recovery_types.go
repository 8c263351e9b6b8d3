package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RecoveryPlan is the runbook, written ahead.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=rplan
// +kubebuilder:printcolumn:name="Use",type=string,JSONPath=`.spec.use`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
type RecoveryPlan struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RecoveryPlanSpec   `json:"spec"`
	Status RecoveryPlanStatus `json:"status,omitempty"`
}

// RecoveryPlanList is a list of RecoveryPlans.
//
// +kubebuilder:object:root=true
type RecoveryPlanList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RecoveryPlan `json:"items"`
}

// RecoveryPlanSpec selects applications and says how they are recovered.
type RecoveryPlanSpec struct {
	Applications ApplicationSelector `json:"applications"`
	// Use says whether the engine uses the plan by itself when a center is lost.
	// +kubebuilder:default=Ordered
	Use PlanUse `json:"use,omitempty"`
	// Waves order the applications beside spec.dependsOn of each, which may not
	// contradict them. What no wave selects comes last.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	Waves []PlanWave `json:"waves,omitempty"`
	// Hooks of one point run one after the other.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	Hooks     []PlanHook     `json:"hooks,omitempty"`
	Approvals ApprovalPolicy `json:"approvals,omitempty"`
	Safety    SafetyPolicy   `json:"safety,omitempty"`
}

// ApplicationSelector selects applications in all namespaces: those that have the
// labels or are named. An empty one selects all.
type ApplicationSelector struct {
	LabelSelector *metav1.LabelSelector `json:"labelSelector,omitempty"`
	// +kubebuilder:validation:MaxItems=1024
	Names []ApplicationReference `json:"names,omitempty"`
}

// ApprovalPolicy says how many people must agree, and who they are.
//
// +kubebuilder:validation:XValidation:rule="!has(self.required) || self.required < 2 || !has(self.expireSeconds) || self.expireSeconds >= 60",message="more than one person must agree within expireSeconds: give them 60 or more"
type ApprovalPolicy struct {
	// Required is how many different people must agree.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=16
	Required int32 `json:"required,omitempty"`
	// Groups of which an approver must be in one; empty means anyone whom
	// RBAC lets create an Approval.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	Groups []string `json:"groups,omitempty"`
	// ExpireSeconds is how long an approval counts: all that are required must be made
	// within it, so where more than one is, people need a minute.
	// +kubebuilder:default=900
	// +kubebuilder:validation:Minimum=1
	ExpireSeconds int32 `json:"expireSeconds,omitempty"`
}

// SafetyPolicy bounds what happens without a person.
type SafetyPolicy struct {
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	MinVantageCenters int32 `json:"minVantageCenters,omitempty"`
	// MaxLostFraction of the fleet's clusters that may be lost; with more a person
	// decides.
	MaxLostFraction Fraction `json:"maxLostFraction,omitempty"`
	// MinActiveCenters with a healthy cluster; with fewer a person decides.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=64
	MinActiveCenters int32 `json:"minActiveCenters,omitempty"`
}

// RecoveryPlanStatus says whether a run of the plan would succeed now. The condition
// Ready names what would stop it first.
type RecoveryPlanStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Preflight are the checks of the whole plan, and of applications those that fail.
	Preflight []PreflightCheck `json:"preflight,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// RecoveryRun is one execution for one application, or for all of a place or a
// plan, which then makes a run for each; its spec never changes.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=run
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=`.spec.action`
// +kubebuilder:printcolumn:name="Parent",type=string,priority=1,JSONPath=`.spec.parent`
// +kubebuilder:printcolumn:name="From",type=string,JSONPath=`.spec.from.cluster`
// +kubebuilder:printcolumn:name="To",type=string,JSONPath=`.spec.to.cluster`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="RTO",type=string,JSONPath=`.status.measured.rtoSeconds`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RecoveryRun struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   RecoveryRunSpec   `json:"spec"`
	Status RecoveryRunStatus `json:"status,omitempty"`
}

// RecoveryRunList is a list of RecoveryRuns.
//
// +kubebuilder:object:root=true
type RecoveryRunList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RecoveryRun `json:"items"`
}

// Action is what a run does.
// +kubebuilder:validation:Enum=Failover;Switchover;Failback;Drill
type Action string

// Actions of a run.
const (
	ActionFailover   Action = "Failover"
	ActionSwitchover Action = "Switchover"
	ActionFailback   Action = "Failback"
	ActionDrill      Action = "Drill"
)

// Planned is true for the actions that move the role away from a healthy primary:
// they close it for writing, and can return to it.
func (a Action) Planned() bool { return a == ActionSwitchover || a == ActionFailback }

// Place names a cluster, a center or a region.
type Place struct {
	// +kubebuilder:validation:MaxLength=63
	Region string `json:"region,omitempty"`
	// +kubebuilder:validation:MaxLength=63
	Center string `json:"center,omitempty"`
	// +kubebuilder:validation:MaxLength=63
	Cluster string `json:"cluster,omitempty"`
}

// RecoveryRunSpec orders one run.
//
// +kubebuilder:validation:XValidation:rule="has(self.application) && size(self.application.name) > 0 || [has(self.from.cluster), has(self.from.center), has(self.from.region)].exists(x, x)",message="a run without an application is for a whole place: name its cluster, center or region in from"
// +kubebuilder:validation:XValidation:rule="!has(self.pauseLimitSeconds) || self.action in ['Switchover', 'Failback']",message="pauseLimitSeconds bounds the write pause of a Switchover or Failback: leave it out of other actions"
// +kubebuilder:validation:XValidation:rule="!has(self.insteadOf) || self.action == 'Failover' && has(self.application) && size(self.application.name) > 0",message="insteadOf is for the Failover of one application: name it, and order another action without"
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a run's spec never changes: start another run"
type RecoveryRunSpec struct {
	// +kubebuilder:validation:MaxLength=253
	Plan string `json:"plan,omitempty"`
	// Application that moves; without one every application that is active in
	// From does, those that Plan selects if it is named.
	// +optional
	Application ApplicationReference `json:"application,omitzero"`
	// Parent is the run that ordered this one. Only the hub sets it.
	// +kubebuilder:validation:MaxLength=253
	Parent string `json:"parent,omitempty"`
	Action Action `json:"action"`
	From   Place  `json:"from"`
	To     Place  `json:"to"`
	// PauseLimitSeconds is the longest that a switchover may keep writes closed
	// before it returns to the source by itself; 10 if absent.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	PauseLimitSeconds int32 `json:"pauseLimitSeconds,omitempty"`
	// Requester is the authenticated user, or empty for the engine itself.
	// +kubebuilder:validation:MaxLength=253
	Requester string `json:"requester,omitempty"`
	// InsteadOf is a failover of the same application whose target cannot take over:
	// this run proves that the target has stopped, too, and takes the role to another
	// copy, or back.
	// +kubebuilder:validation:MaxLength=253
	InsteadOf string `json:"insteadOf,omitempty"`
}

// ForPlan is true for a run that makes a run for each application.
func (s *RecoveryRunSpec) ForPlan() bool { return s.Application.Name == "" }

// RunPhase is where a run stands, safety.md section 10.
type RunPhase string

// Phases of a run.
const (
	RunPending          RunPhase = ""
	RunPreflight        RunPhase = "Preflight"
	RunAwaitingApproval RunPhase = "AwaitingApproval"
	// RunWaves: a plan's run makes and follows the runs of its applications.
	RunWaves     RunPhase = "Waves"
	RunClosing   RunPhase = "Closing"
	RunFencing   RunPhase = "Fencing"
	RunPromoting RunPhase = "Promoting"
	RunRouting   RunPhase = "Routing"
	RunVerifying RunPhase = "Verifying"
	RunCompleted RunPhase = "Completed"
	RunReturning RunPhase = "Returning"
	RunPaused    RunPhase = "Paused"
	RunAborted   RunPhase = "Aborted"
	// RunDrilling: copies of the standbys' data are promoted and probed apart
	// from production; RunCleaning: nothing of them may be left.
	RunDrilling RunPhase = "Drilling"
	RunCleaning RunPhase = "Cleaning"
)

// RecoveryRunStatus is the journal of a run: the engine resumes from it after
// the death of the leader (invariant I6).
type RecoveryRunStatus struct {
	Phase  RunPhase `json:"phase,omitempty"`
	Reason string   `json:"reason,omitempty"`
	// Message says what the run waits for and what a person can do.
	Message string `json:"message,omitempty"`
	// ResumePhase is where a paused run goes on.
	ResumePhase RunPhase `json:"resumePhase,omitempty"`
	// Automatic is true when no person was asked.
	Automatic bool `json:"automatic,omitempty"`
	// Waves, Applications and Progress are those of a plan's run.
	Waves        []RunWave        `json:"waves,omitempty"`
	Applications []RunApplication `json:"applications,omitempty"`
	Progress     *RunProgress     `json:"progress,omitempty"`
	// Orders are what people said while the run was under way, as far as it was
	// followed.
	Orders   []RunOrder    `json:"orders,omitempty"`
	Datasets []RunDataset  `json:"datasets,omitempty"`
	Steps    []RunStep     `json:"steps,omitempty"`
	Loss     *LossEstimate `json:"loss,omitempty"`
	Timeline RunTimeline   `json:"timeline,omitempty"`
	Measured *Measured     `json:"measured,omitempty"`
	Evidence EvidenceHead  `json:"evidence,omitempty"`
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// RunDataset is one dataset's role change in a run.
type RunDataset struct {
	Name string `json:"name"`
	// PreviousPrimary is the side that must be proven stopped.
	PreviousPrimary string `json:"previousPrimary,omitempty"`
	// Target is the coming primary.
	Target        string `json:"target,omitempty"`
	PreviousEpoch int64  `json:"previousEpoch"`
	Epoch         int64  `json:"epoch"`
	// FencingRevision is the store revision of the Fencing commit: renewals
	// applied at or after it cannot have named the role.
	FencingRevision int64 `json:"fencingRevision,omitempty"`
	// FenceProof is how the old primary was proven stopped.
	FenceProof FenceProof `json:"fenceProof,omitempty"`
	// LossSeconds bounds what the target lacks of what was acknowledged, as it was found
	// when the old primary was proven stopped; absent where nothing bounds it, and in a
	// planned run, which waits for the target.
	LossSeconds *int64 `json:"lossSeconds,omitempty"`
	Promoted    bool   `json:"promoted,omitempty"`
	// ReturnRevision is the store revision at which a switchover that returns
	// took the role away from Target again.
	ReturnRevision int64 `json:"returnRevision,omitempty"`
	Routed         bool  `json:"routed,omitempty"`
}

// FenceProof is one of the proofs of safety.md section 6.
type FenceProof string

// Fence proofs.
const (
	FenceAcknowledged FenceProof = "Acknowledged"
	FenceElapsed      FenceProof = "ElapsedTime"
	FenceNone         FenceProof = ""
	// FenceAttested: two people swear that the whole cluster is without power.
	FenceAttested FenceProof = "Attested"
	// FenceNotGranted: nobody was granted the role at the epoch before.
	FenceNotGranted FenceProof = "NotGranted"
)

// StepState is the state of one step.
type StepState string

// Step states.
const (
	StepRunning   StepState = "Running"
	StepSucceeded StepState = "Succeeded"
	StepFailed    StepState = "Failed"
)

// RunStep is one command's record.
type RunStep struct {
	Name       string            `json:"name"`
	Cluster    string            `json:"cluster,omitempty"`
	Dataset    string            `json:"dataset,omitempty"`
	Attempt    int32             `json:"attempt,omitempty"`
	State      StepState         `json:"state"`
	Message    string            `json:"message,omitempty"`
	StartedAt  metav1.MicroTime  `json:"startedAt,omitempty"`
	FinishedAt *metav1.MicroTime `json:"finishedAt,omitempty"`
}

// LossExtent says whether anything bounds a loss.
// +kubebuilder:validation:Enum=Bounded;Unknown
type LossExtent string

// Extents of a loss; one without is bounded.
const (
	LossBounded LossExtent = "Bounded"
	// LossUnknown: nothing bounds it. An approval must say that it accepts that.
	LossUnknown LossExtent = "Unknown"
)

// UnknownLossSeconds is what an unknown loss counts as: ten years.
const UnknownLossSeconds = 10 * 365 * 24 * 3600

// LossEstimate bounds what a promotion would lose; shown to the approver.
type LossEstimate struct {
	Possible bool       `json:"possible"`
	Extent   LossExtent `json:"extent,omitempty"`
	// Bytes of log the target had not received when it was last observed.
	Bytes int64 `json:"bytes,omitempty"`
	// Seconds is the time in which what is lost was acknowledged, at most. Where the
	// extent is Unknown it is ten years.
	Seconds int64  `json:"seconds,omitempty"`
	Message string `json:"message,omitempty"`
}

// RunTimeline holds wall-clock marks for people; durations are in Measured.
type RunTimeline struct {
	LastHeard  *metav1.MicroTime `json:"lastHeard,omitempty"`
	DetectedAt *metav1.MicroTime `json:"detectedAt,omitempty"`
	// AwaitingSince is when the run began to wait for approvals.
	AwaitingSince *metav1.MicroTime `json:"awaitingSince,omitempty"`
	ApprovedAt    *metav1.MicroTime `json:"approvedAt,omitempty"`
	// PausedAt is when the run was last paused.
	PausedAt *metav1.MicroTime `json:"pausedAt,omitempty"`
	// ClosingAt is when a switchover forbade writes, OpenedAt when they were
	// possible again, there or here.
	ClosingAt  *metav1.MicroTime `json:"closingAt,omitempty"`
	OpenedAt   *metav1.MicroTime `json:"openedAt,omitempty"`
	FencedAt   *metav1.MicroTime `json:"fencedAt,omitempty"`
	PromotedAt *metav1.MicroTime `json:"promotedAt,omitempty"`
	RoutedAt   *metav1.MicroTime `json:"routedAt,omitempty"`
	FinishedAt *metav1.MicroTime `json:"finishedAt,omitempty"`
}

// Measured holds durations in seconds with milliseconds, as decimal text.
type Measured struct {
	DetectSeconds  string `json:"detectSeconds,omitempty"`
	FenceSeconds   string `json:"fenceSeconds,omitempty"`
	PromoteSeconds string `json:"promoteSeconds,omitempty"`
	RouteSeconds   string `json:"routeSeconds,omitempty"`
	// RTOSeconds is from the last renewal of the lost side to the proven write.
	RTOSeconds string `json:"rtoSeconds,omitempty"`
	RPO        string `json:"rpo,omitempty"`
	// PauseSeconds is the write pause of a switchover: from ClosingAt to
	// OpenedAt, and so never less than what clients saw.
	PauseSeconds string `json:"pauseSeconds,omitempty"`
}

// EvidenceHead is the end of the hash-chained record of the run.
type EvidenceHead struct {
	Head    string `json:"head,omitempty"` // sha256:HEX
	Records int32  `json:"records,omitempty"`
	// Signature of Head by the hub's key, base64.
	Signature string `json:"signature,omitempty"`
	// Recent are the last records of the chain, as JSON lines: those that the ConfigMap
	// evidence-RUN may not hold yet. Of a run that has ended they are moved there.
	Recent string `json:"recent,omitempty"`
}

// StepAbort is what an Approval with the decision Reject names as its step to
// abort a run that is under way.
const StepAbort = "abort"

// StepAttest is the step of an Approval by which a person swears that a cluster is
// without power. Two of them prove that its primaries have stopped.
const StepAttest = "attest-stopped"

// Decision is Approve or Reject.
// +kubebuilder:validation:Enum=Approve;Reject
type Decision string

// Decisions.
const (
	DecisionApprove Decision = "Approve"
	DecisionReject  Decision = "Reject"
)

// Approval is a person's word on a run. The server stamps who.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:printcolumn:name="Run",type=string,JSONPath=`.spec.run`
// +kubebuilder:printcolumn:name="Decision",type=string,JSONPath=`.spec.decision`
// +kubebuilder:printcolumn:name="By",type=string,JSONPath=`.spec.approver`
type Approval struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ApprovalSpec `json:"spec"`
}

// ApprovalList is a list of Approvals.
//
// +kubebuilder:object:root=true
type ApprovalList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Approval `json:"items"`
}

// ApprovalSpec never changes.
//
// +kubebuilder:validation:XValidation:rule="(has(self.step) && self.step == 'attest-stopped') == has(self.poweredOff)",message="step attest-stopped names in poweredOff the cluster that is without power, and no other step does: use tripodctl attest RUN"
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="an approval never changes"
type ApprovalSpec struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Run string `json:"run"`
	// +kubebuilder:validation:MaxLength=63
	Step     string   `json:"step,omitempty"`
	Decision Decision `json:"decision"`
	// +kubebuilder:validation:MaxLength=1024
	Comment    string        `json:"comment,omitempty"`
	AcceptLoss *AcceptedLoss `json:"acceptLoss,omitempty"`
	// PoweredOff is the cluster of which the approver swears that every machine of it
	// is without power, and stays so until the hub is reached from there. Only step
	// attest-stopped has it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	PoweredOff string `json:"poweredOff,omitempty"`
	// Approver is stamped by the server's admission; what a client writes
	// here is overwritten.
	// +kubebuilder:validation:MaxLength=253
	Approver string `json:"approver,omitempty"`
	// +kubebuilder:validation:MaxItems=64
	ApproverGroups []string `json:"approverGroups,omitempty"`
}

// AcceptedLoss is the most an approver accepts to lose.
type AcceptedLoss struct {
	// +kubebuilder:validation:Minimum=0
	Seconds int64 `json:"seconds"`
	// Extent is Unknown to accept a loss that nothing bounds.
	Extent LossExtent `json:"extent,omitempty"`
}
