package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// PlanUse is who may use a plan.
// +kubebuilder:validation:Enum=Ordered;Automatic
type PlanUse string

// Uses of a plan.
const (
	// PlanOrdered: only a run that a person orders uses the plan.
	PlanOrdered PlanUse = "Ordered"
	// PlanAutomatic: the engine uses it, too, when a center is lost: one run
	// of the plan for the center in place of one run for each application.
	PlanAutomatic PlanUse = "Automatic"
)

// PlanWave is a group of applications that are recovered together. A wave begins
// when every application of the waves before it has been recovered or is stuck;
// what depends on one that is stuck waits for it in any wave.
type PlanWave struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`
	// Applications of the plan that are in this wave. One that several waves
	// select is in the first of them.
	Applications ApplicationSelector `json:"applications"`
	// Parallelism is how many applications of the wave are under way at once;
	// 0 sets no limit. One that is stuck does not count.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000
	Parallelism int32 `json:"parallelism,omitempty"`
}

// RunApplicationState is where an application of a plan's run stands.
type RunApplicationState string

// States of an application of a plan's run.
const (
	// ApplicationWaiting: its turn has not come.
	ApplicationWaiting RunApplicationState = ""
	ApplicationRunning RunApplicationState = "Running"
	// ApplicationStuck: it waits for a person or for something to come back; what
	// does not depend on it goes on.
	ApplicationStuck RunApplicationState = "Stuck"
	// ApplicationHeld: it depends on one that is stuck or has failed.
	ApplicationHeld      RunApplicationState = "Held"
	ApplicationCompleted RunApplicationState = "Completed"
	ApplicationFailed    RunApplicationState = "Failed"
)

// RunApplication is one application of a plan's run. What is planned does not
// change; the state follows the application's own run, about once a second.
type RunApplication struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Wave is the index in Waves of the run's status.
	Wave int32 `json:"wave,omitempty"`
	// After are the applications of this run, as NAMESPACE/NAME, that it depends
	// on, directly or through others that do not move.
	After []string `json:"after,omitempty"`
	// Epoch that its role change would have had when it was planned.
	Epoch int64 `json:"epoch,omitempty"`
	// Target when it was planned; another one needs an approval of its own.
	Target string `json:"target,omitempty"`
	// NeedsApproval is why a person must agree, and Loss what they accept.
	NeedsApproval string        `json:"needsApproval,omitempty"`
	Loss          *LossEstimate `json:"loss,omitempty"`
	// Attempt grows when a person has it tried again.
	Attempt int32               `json:"attempt,omitempty"`
	Run     string              `json:"run,omitempty"`
	State   RunApplicationState `json:"state,omitempty"`
	Reason  string              `json:"reason,omitempty"`
	Message string              `json:"message,omitempty"`
}

// Key is NAMESPACE/NAME.
func (a *RunApplication) Key() string { return a.Namespace + "/" + a.Name }

// RunWave is one wave as it was planned.
type RunWave struct {
	Name        string `json:"name"`
	Parallelism int32  `json:"parallelism,omitempty"`
}

// RunProgress counts the applications of a plan's run.
type RunProgress struct {
	Applications int32 `json:"applications"`
	Completed    int32 `json:"completed"`
	Running      int32 `json:"running,omitempty"`
	Waiting      int32 `json:"waiting,omitempty"`
	Stuck        int32 `json:"stuck,omitempty"`
	Held         int32 `json:"held,omitempty"`
	Failed       int32 `json:"failed,omitempty"`
	// At is when the states were last written.
	At *metav1.MicroTime `json:"at,omitempty"`
}

// Steps that an Approval names to steer a run that is under way. Who ordered the
// run may make them, too.
const (
	// StepPause, with the decision Reject: nothing new is begun.
	StepPause = "pause"
	// StepResume, with the decision Approve: a paused run goes on.
	StepResume = "resume"
	// StepRetry, with the decision Approve: what has failed is tried again.
	StepRetry = "retry"
)

// RunOrder is a person's word that a run has followed. It is followed once.
type RunOrder struct {
	// Approval is the name of the object that gave it.
	Approval string           `json:"approval"`
	Step     string           `json:"step"`
	By       string           `json:"by"`
	At       metav1.MicroTime `json:"at"`
}
