package guard

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Instant is a reading of the guard's own clock: time since boot, with the time
// the machine was suspended.
type Instant time.Duration

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Errors of Core. ErrOlder is final; ErrNoProof may be tried again after the
// next proof.
var (
	ErrOlder   = errors.New("older than what this volume has seen")
	ErrNoProof = errors.New("no fresh proof of the primary role")
	ErrRefused = errors.New("not allowed")
)

// Core decides what the database may do. It is pure: time is an argument. It is
// not safe for concurrent use.
type Core struct {
	margin time.Duration
	memory Memory
	mode   agentv1.DatabaseMode

	claim    *agentv1.RoleGrant
	revision int64
	deadline Instant
}

// NewCore starts with what the volume remembers and, as after every restart,
// without any proof. margin is how long before the deadline the database is
// killed.
func NewCore(memory Memory, margin time.Duration) *Core {
	return &Core{margin: margin, memory: memory, mode: agentv1.DatabaseMode_DATABASE_MODE_STOPPED}
}

// Memory returns what must be durable.
func (c *Core) Memory() Memory {
	m := c.memory
	m.WaitsFor = slices.Clone(m.WaitsFor)
	m.Known.SyncSet = slices.Clone(m.Known.SyncSet)
	m.Origins = maps.Clone(m.Origins)
	return m
}

// Mode is what the database runs as, or is being started as.
func (c *Core) Mode() agentv1.DatabaseMode { return c.mode }

// SetMode records what the database runs as. Primary is set before the first
// step that could make it writable, so that Check never misses a start.
func (c *Core) SetMode(mode agentv1.DatabaseMode) { c.mode = mode }

// Deadline returns when the primary role ends, less the margin; zero without a
// claim of that role.
func (c *Core) Deadline() Instant {
	if c.claim.GetRole() != agentv1.Role_ROLE_PRIMARY {
		return 0
	}
	return c.deadline.Add(-c.margin)
}

// Learn takes in an answer to a proof that was asked for at asked. It reports
// whether the memory changed. The deadline counts from asked, so that a late
// answer cannot lengthen it.
func (c *Core) Learn(asked Instant, proof *agentv1.Proof) (changed bool, err error) {
	role := proof.GetRole()
	if proof.GetIncarnation() < c.memory.Incarnation {
		return false, fmt.Errorf("proof of incarnation %d, seen %d: %w", proof.GetIncarnation(), c.memory.Incarnation, ErrOlder)
	}
	if role == nil {
		// Absence is no instruction: the claim ends at its deadline.
		return false, nil
	}
	if role.GetEpoch() < c.memory.Epoch {
		return false, fmt.Errorf("proof of epoch %d, seen %d: %w", role.GetEpoch(), c.memory.Epoch, ErrOlder)
	}
	changed = c.advance(proof.GetIncarnation(), role.GetEpoch())
	c.take(asked.Add(time.Duration(proof.GetRemainingMillis())*time.Millisecond), proof)
	return c.hear(role) || changed, nil
}

// take replaces or extends the claim. At one epoch the primary role is never
// taken away again (a role change has an epoch of its own), so another answer
// at that epoch, from an agent that has heard less, does not end it.
func (c *Core) take(deadline Instant, proof *agentv1.Proof) {
	role := proof.GetRole()
	same := c.claim != nil && c.claim.GetEpoch() == role.GetEpoch()
	switch {
	case !same:
		c.claim, c.revision, c.deadline = role, proof.GetRevision(), deadline
	case c.claim.GetRole() == role.GetRole():
		c.deadline = max(c.deadline, deadline)
		if proof.GetRevision() >= c.revision {
			c.claim, c.revision = role, proof.GetRevision()
		}
	case role.GetRole() == agentv1.Role_ROLE_PRIMARY:
		c.claim, c.revision, c.deadline = role, proof.GetRevision(), deadline
	}
}

func (c *Core) hear(role *agentv1.RoleGrant) bool {
	// Without a set the role change is not over: the old set is not this epoch's.
	if role.GetRole() != agentv1.Role_ROLE_REPLICA || !c.memory.Standby || role.GetPrimary() == "" || len(role.GetSyncSet()) == 0 {
		return false
	}
	k := Known{Epoch: role.GetEpoch(), Primary: role.GetPrimary(), SyncSet: role.GetSyncSet(), Protection: role.GetProtection()}
	if k.Epoch < c.memory.Known.Epoch || (k.Epoch == c.memory.Known.Epoch && k.Primary == c.memory.Known.Primary &&
		k.Protection == c.memory.Known.Protection && slices.Equal(k.SyncSet, c.memory.Known.SyncSet)) {
		return false
	}
	// What a copy holds came from the primary it followed: another epoch's
	// sync set says nothing about it until the copy follows that primary.
	if c.memory.Known.Epoch != 0 && k.Epoch != c.memory.Known.Epoch && c.memory.Follows != role.GetPrimaryAddress() {
		return false
	}
	c.memory.Known = k
	return true
}

// advance remembers the highest incarnation and epoch. Revisions are compared only
// within both: those of a hub that was restored from a backup begin lower.
func (c *Core) advance(incarnation uint64, epoch int64) bool {
	changed := incarnation > c.memory.Incarnation || epoch > c.memory.Epoch
	if changed {
		c.memory.Revision, c.memory.Closed, c.revision = 0, 0, 0
	}
	c.memory.Incarnation = max(c.memory.Incarnation, incarnation)
	c.memory.Epoch = max(c.memory.Epoch, epoch)
	return changed
}

// MayBePrimary reports whether the database may accept writes at now.
func (c *Core) MayBePrimary(now Instant) bool {
	return c.claim.GetRole() == agentv1.Role_ROLE_PRIMARY &&
		c.claim.GetEpoch() == c.memory.Epoch && now < c.Deadline()
}

// Check says whether the database must be killed at now, and why.
func (c *Core) Check(now Instant) (kill bool, reason string) {
	if c.mode != agentv1.DatabaseMode_DATABASE_MODE_PRIMARY || c.MayBePrimary(now) {
		return false, ""
	}
	switch {
	case c.claim == nil:
		return true, "no proof of the primary role"
	case c.claim.GetEpoch() < c.memory.Epoch:
		return true, "a newer epoch was committed"
	case c.claim.GetRole() != agentv1.Role_ROLE_PRIMARY:
		return true, "the primary role is another cluster's"
	}
	return true, "the proof of the primary role ran out"
}

// Waits returns the standbys that a primary starting now must wait for: those
// asked for, and those that were confirmed at this epoch. The hub commits a
// standby to the sync set of an epoch only after this memory holds it, so the
// memory has them all; what a grant says may still be the epoch before's.
func (c *Core) Waits(self string, asked []string) []string {
	waits := slices.Clone(asked)
	if c.memory.Held == c.memory.Epoch {
		waits = append(waits, c.memory.WaitsFor...)
	}
	waits = slices.DeleteFunc(waits, func(s string) bool { return s == self })
	slices.Sort(waits)
	return slices.Compact(waits)
}
