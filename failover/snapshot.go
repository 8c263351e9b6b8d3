package failover

import (
	"slices"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Copy names one member's copy of a dataset.
type Copy struct {
	Dataset types.NamespacedName
	Cluster string
}

// Observed is the newest observation of one copy.
type Observed struct {
	Role          v1alpha1.Role
	State         v1alpha1.MemberState
	Epoch         int64
	Position      string
	PositionBytes int64
	Timeline      int64
	LagBytes      *int64
	LagSeconds    *int64
	Guarded       v1alpha1.GuardCoverage
	// Copy is what the volume holds, as its guard says; empty if it does not.
	Copy v1alpha1.CopyState
	// Acknowledges, Streaming and CaughtUp name clusters; a primary tells them.
	Acknowledges, Streaming, CaughtUp []string
	Message                           string
	// Age is the time since the agent saw it, on the leader's clock.
	Age time.Duration
	// Runs is for how long before it came nothing else was heard of the copy than that
	// it runs; 0 if it does not.
	Runs time.Duration
	// Held is the time since the newest instant up to which the copy surely holds
	// everything that was acknowledged (failover/trail), but for how long a heartbeat
	// may be under way; nil if none is known.
	Held *time.Duration
}

// Snapshot is everything one turn is decided from. Objects are committed state;
// Turn does not change them.
type Snapshot struct {
	Config Config
	// Now is wall time: for marks that people read, approvals' expiry and the
	// pace of retries. No safety rule uses it.
	Now time.Time
	// Uptime is the leader's monotonic clock.
	Uptime time.Duration
	Fleet  Fleet
	// Previous is the Detection of the turn before.
	Previous Detection
	// Brief leaves out what may wait a moment and is most of the work in a large fleet: to
	// keep datasets that no run moves as they are declared, and the assessment of
	// applications and plans. What is left out is wanted in the next turn that is not brief.
	Brief bool

	Applications []*v1alpha1.Application
	Datasets     []*v1alpha1.Dataset
	Services     []*v1alpha1.GlobalService
	Runs         []*v1alpha1.RecoveryRun
	Plans        []*v1alpha1.RecoveryPlan
	Approvals    []*v1alpha1.Approval
	Placements   []*v1alpha1.Placement
	// Kubernetes is what each cluster's agent last told of it.
	Kubernetes map[string]*v1alpha1.KubernetesStatus

	Observed map[Copy]Observed
	// HookFaults is why hooks could not run, as far as it was tried; Approvers is nil if
	// it is not known.
	HookFaults map[HookRef]string
	Approvers  *Approvers
	// Fence answers for the time fence of one dataset's old primary: the
	// leases of cluster that were renewed below revision (all, if it is 0) are
	// surely over; and the age of the last of them.
	Fence func(cluster string, revision int64) (over bool, age time.Duration)
	// Results of commands by their ID.
	Results map[string]Result

	ix *index // of this turn
}

// Verb of a command, as in the agent's protocol.
type Verb string

// Verbs.
const (
	VerbFence      Verb = "FENCE"
	VerbPromote    Verb = "PROMOTE"
	VerbFollow     Verb = "FOLLOW"
	VerbSetSyncSet Verb = "SET_SYNC_SET"
	VerbProbe      Verb = "PROBE"
	VerbDiscard    Verb = "DISCARD"
	VerbClose      Verb = "CLOSE"
	VerbCatchUp    Verb = "CATCH_UP"
	VerbDrillStart Verb = "DRILL_START"
	VerbDrillStop  Verb = "DRILL_STOP"
	// VerbWithhold: remember the epoch for good, give no more pledges for an
	// older one, and answer when the last one is over.
	VerbWithhold Verb = "WITHHOLD"
)

// Command is for one agent. Doing it twice has the effect of doing it once, and
// an effector that has seen a higher epoch refuses it.
type Command struct {
	// ID is RUN/STEP/ATTEMPT. A command that belongs to no run has attempt 0;
	// whoever sends it numbers the attempts and paces them by Every.
	ID      string
	Run     string
	Step    string
	Attempt int32
	Every   time.Duration

	Cluster string
	Dataset types.NamespacedName
	Verb    Verb
	Epoch   int64
	Primary string
	SyncSet []string
	// Revision of the committed dataset that justifies the command: an effector
	// refuses a lower (epoch, revision) than it has carried out.
	Revision int64
	// PositionBytes is what a CATCH_UP waits for.
	PositionBytes int64
	Bound         time.Duration
}

// Outcome of a command.
type Outcome string

// Outcomes.
const (
	Done        Outcome = "Done"
	Refused     Outcome = "Refused" // final
	Failed      Outcome = "Failed"  // may be tried again
	Unreachable Outcome = "Unreachable"
)

// Result answers a command.
type Result struct {
	Outcome  Outcome
	Message  string
	Position string
	// PositionBytes is Position as a number, 0 if the verb has none.
	PositionBytes int64
	Timeline      int64
	Elapsed       time.Duration
	// At is when it came, on the leader's monotonic clock.
	At time.Duration
}

// Note is a fact for the evidence of a run.
type Note struct {
	Run     string
	Kind    NoteKind
	Subject string // what it is about: a cluster, NAMESPACE/DATASET, a person
	Text    string
	// SinceHeard is the age of the lost side's last renewal at this fact, on
	// one hub member's monotonic clock: RTO is recomputed from it.
	SinceHeard time.Duration
	// Mark is set on the facts that RTO and RPO are recomputed from.
	Mark Mark
}

// Mark of a note.
type Mark string

// Marks, in the order of a run.
const (
	MarkDetected Mark = "Detected"
	MarkFenced   Mark = "Fenced"
	MarkPromoted Mark = "Promoted"
	MarkRouted   Mark = "Routed"
)

// NoteKind is Observation, Decision, Approval, Command or Result.
type NoteKind string

// Kinds of notes.
const (
	NoteObservation NoteKind = "Observation"
	NoteDecision    NoteKind = "Decision"
	NoteApproval    NoteKind = "Approval"
	NoteCommand     NoteKind = "Command"
	NoteResult      NoteKind = "Result"
)

// Effects are what a turn wants. Objects carry the resource version that they
// were derived from; a write of a changed object must fail.
type Effects struct {
	Create       []*v1alpha1.RecoveryRun
	Runs         []*v1alpha1.RecoveryRun
	Datasets     []*v1alpha1.Dataset
	Services     []*v1alpha1.GlobalService
	Applications []*v1alpha1.Application
	Plans        []*v1alpha1.RecoveryPlan
	// Reported are those of Datasets of which only what was seen has changed.
	Reported  map[types.NamespacedName]bool
	Commands  []Command
	Hooks     []HookCall
	Notes     []Note
	Detection Detection
}

// key of a namespaced object.
func key(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// fresh returns the observation of a copy if it is young enough to act upon.
func (s *Snapshot) fresh(d *v1alpha1.Dataset, cluster string) (Observed, bool) {
	o, ok := s.Observed[Copy{key(d), cluster}]
	return o, ok && o.Age <= s.Config.Fresh
}

// sinceHeard is the age of the last renewal that could have named the role. Of a lease
// that is over it may be a second or a thirty-second too much: never too little.
func (s *Snapshot) sinceHeard(cluster string, revision int64) time.Duration {
	_, age := s.Fence(cluster, revision)
	return age
}

// revision is the store's revision at which an object was last written.
func revision(o metav1.Object) int64 {
	n, err := strconv.ParseInt(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func member(d *v1alpha1.Dataset, cluster string) *v1alpha1.DatasetMember {
	for i := range d.Spec.Members {
		if d.Spec.Members[i].Cluster == cluster {
			return &d.Spec.Members[i]
		}
	}
	return nil
}

func memberStatus(d *v1alpha1.Dataset, cluster string) *v1alpha1.DatasetMemberStatus {
	for i := range d.Status.Members {
		if d.Status.Members[i].Cluster == cluster {
			return &d.Status.Members[i]
		}
	}
	return nil
}

func inSyncSet(d *v1alpha1.Dataset, cluster string) bool {
	return slices.Contains(d.Status.SyncSet, cluster)
}

// Finished is true in a run's final phases.
func Finished(p v1alpha1.RunPhase) bool {
	return p == v1alpha1.RunCompleted || p == v1alpha1.RunAborted
}
