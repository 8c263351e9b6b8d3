// Package driver is the contract between an agent and whatever knows one kind
// of replicated state. Drivers run in the agent: the hub decides, the agent
// acts, the guard enforces. proto/driver/v1 is the same contract out of process.
package driver

import (
	"context"
	"errors"
	"fmt"
)

// Driver observes and changes this cluster's copy of datasets of one kind.
//
// Every call that changes something carries (incarnation, epoch), and done
// twice has the effect of once. The direction of a resynchronisation is given
// by the epoch alone: the primary of the call is the source, this copy the
// target. A driver that is not sure refuses. Calls for different datasets may
// be concurrent; changing calls for one dataset are made one at a time, while
// Observe may come at any moment and must be quick.
type Driver interface { //nolint:interfacebloat // the contract of a package of its own, the same as proto/driver/v1
	Identity() Identity
	// Observe never fails for a copy that does not answer: that is a state.
	Observe(ctx context.Context, d Dataset) Observation
	// Promote makes this copy the primary at the call's epoch, waiting for the
	// call's sync set, and proves it by a write. A copy that already is that
	// primary stays it; one that has stopped is started again.
	Promote(ctx context.Context, c Call) (Observation, error)
	// Demote stops this primary in order: the replicas that receive its log have
	// all of it on return, and the observation's position is where it ends. From
	// then on only a Promote of a later revision, or epoch, starts it as primary.
	// It fails when the stop was not in order.
	Demote(ctx context.Context, c Call) (Observation, error)
	// Fence stops this copy at once and proves that it accepts no write.
	Fence(ctx context.Context, c Call) (Observation, error)
	// Probe tries a write.
	Probe(ctx context.Context, c Call) (Probed, error)
	// Resync makes this copy a replica of the call's primary. It measures what
	// this copy holds and the primary does not before it changes anything, and
	// fails with a *Diverged if that may hold an acknowledged write; with
	// discard, an approved loss, it keeps it aside and goes on.
	Resync(ctx context.Context, c Call, discard bool) (Resynced, error)
	// SetSyncSet makes this primary wait for exactly the call's sync set,
	// itself left out. On return every standby in it surely holds every write
	// acknowledged so far.
	SetSyncSet(ctx context.Context, c Call) (Observation, error)
}

// ManyObserver is a Driver that observes many datasets at a smaller price than one after
// the other.
type ManyObserver interface {
	// ObserveMany returns an observation for each dataset, in their order; nil for one
	// that is to be observed by itself.
	ObserveMany(ctx context.Context, datasets []Dataset) []*Observation
}

// Identity says what a driver can do.
type Identity struct {
	Name    string
	Version string
	// ZeroLoss: it can hold a write until a sync set has it.
	ZeroLoss bool
	// Unfenced: no guard of Tripod's stops every process that can write when the proof
	// of the primary role runs out, whatever became of driver and agent. So elapsed
	// time proves nothing of it.
	Unfenced bool
}

// Dataset names this cluster's copy.
type Dataset struct {
	Namespace  string
	Name       string
	Cluster    string
	Parameters map[string]string
}

// Key is NAMESPACE/NAME.
func (d Dataset) Key() string { return d.Namespace + "/" + d.Name }

// Call is a committed decision as the agent hands it on.
type Call struct {
	Incarnation uint64
	Epoch       int64
	// Revision of the committed decision; 0 for what the agent does by itself.
	// At one epoch a lower one than was carried out is refused.
	Revision int64
	Dataset  Dataset
	// Primary is the cluster with the role at Epoch; PrimaryAddress is
	// HOST:PORT, for a replica to follow.
	Primary        string
	PrimaryAddress string
	SyncSet        []string
}

// Role of a copy as it was observed, whatever it should be.
type Role string

// Roles.
const (
	RoleNone    Role = "None"
	RoleReplica Role = "Replica"
	RolePrimary Role = "Primary"
)

// State of a copy; the values are v1alpha1.MemberState's.
type State string

// States.
const (
	StateRunning    State = "Running"
	StateStreaming  State = "Streaming"
	StateCatchingUp State = "CatchingUp"
	StateDetached   State = "Detached"
	StateStopped    State = "Stopped"
	StateClosed     State = "Closed"
	StateFenced     State = "Fenced"
	StateDiverged   State = "Diverged"
	StateCopying    State = "Copying"
	StateUnknown    State = "Unknown"
)

// CopyState is what the volume of a copy holds; empty if that is not known. The
// values are v1alpha1.CopyState's.
type CopyState string

// States of a volume.
const (
	CopyWhole   CopyState = "Whole"
	CopyPartial CopyState = "Partial" // nothing that may be started
	CopyEmpty   CopyState = "Empty"
)

// Position is how far a copy's log reaches.
type Position struct {
	// Text is the driver's own form.
	Text string
	// Bytes grows with the log; it compares copies of one lineage only.
	Bytes int64
	// Timeline grows with every promotion of the lineage.
	Timeline int64
}

// Observation is one copy at one moment.
type Observation struct {
	Role  Role
	State State
	// Epoch the copy acts on: of its role as primary, or the highest it saw.
	Epoch    int64
	Position Position
	// LagBytes and LagSeconds are behind the primary; nil when not known.
	LagBytes   *int64
	LagSeconds *int64
	// Acknowledges are the standbys that surely hold every acknowledged write.
	Acknowledges []string
	// HeldEpoch is the last epoch at which this copy was the primary, also while it
	// is stopped, and HeldSyncSet the standbys that surely held every write that
	// was acknowledged then.
	HeldEpoch   int64
	HeldSyncSet []string
	// Streaming receive the log now; CaughtUp are those nearly without lag.
	Streaming []string
	CaughtUp  []string
	// Guarded: every process that can write would be killed at the deadline.
	// GuardKnown is false while no guard answers.
	Guarded    bool
	GuardKnown bool
	// Copy is told also while the copy does not run.
	Copy    CopyState
	Message string
}

// Probed is what a write met.
type Probed struct {
	Writable bool
	// Listening: something accepted the connection.
	Listening bool
	Message   string
}

// Method of a resynchronisation, from the least to the most that it changes.
type Method string

// Methods.
const (
	MethodNone   Method = "None"   // it followed that primary already
	MethodAttach Method = "Attach" // nothing to take back
	MethodRewind Method = "Rewind" // the log after the fork was kept aside and taken back
	MethodCopy   Method = "Copy"   // a fresh base copy
)

// Resynced is what a resynchronisation did.
type Resynced struct {
	Method      Method
	Divergence  Divergence
	Observation Observation
}

// Divergence is what a copy holds that its primary does not.
type Divergence struct {
	// Measured is false when it is there and cannot be counted.
	Measured bool
	Fork     string
	Bytes    int64
	// Commits counts transactions made durable after the fork.
	Commits int64
}

// Errors of a driver. Both are final for the call.
var (
	// ErrOlder: a newer incarnation or epoch has been seen (invariant I5).
	ErrOlder = errors.New("older than what this copy has seen")
	// ErrRefused: not allowed, or the driver is not sure.
	ErrRefused = errors.New("refused")
)

// Diverged is returned by Resync when going on would discard writes that may
// have been acknowledged.
type Diverged struct {
	Dataset    string
	Divergence Divergence
	Reason     string
}

// Error names what would be lost and what a person can do.
func (d *Diverged) Error() string {
	commits := fmt.Sprintf("%d transactions in %d bytes", d.Divergence.Commits, d.Divergence.Bytes)
	if !d.Divergence.Measured {
		commits = "an unknown number of transactions"
	}
	return fmt.Sprintf("dataset %s: this copy holds %s after %s that the primary does not, and %s: approve their discarding; they are kept aside",
		d.Dataset, commits, d.Divergence.Fork, d.Reason)
}
