package guard

import (
	"errors"
	"fmt"
	"slices"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// Admit decides whether a command may be done at now, and remembers its
// incarnation and epoch. What Memory returns afterwards must be durable before
// the command has an effect, also when it was refused.
func (c *Core) Admit(cmd *agentv1.GuardCommand, now Instant) error {
	if cmd.GetIncarnation() < c.memory.Incarnation || cmd.GetEpoch() < c.memory.Epoch {
		return fmt.Errorf("command at incarnation %d epoch %d, seen %d and %d: %w",
			cmd.GetIncarnation(), cmd.GetEpoch(), c.memory.Incarnation, c.memory.Epoch, ErrOlder)
	}
	c.advance(cmd.GetIncarnation(), cmd.GetEpoch())
	if r := cmd.GetRevision(); r != 0 && r < c.memory.Revision {
		return fmt.Errorf("command decided at revision %d, one of revision %d was carried out: %w", r, c.memory.Revision, ErrOlder)
	}
	c.memory.Revision = max(c.memory.Revision, cmd.GetRevision())
	switch work := cmd.GetWork().(type) {
	case *agentv1.GuardCommand_StartPrimary:
		return errors.Join(c.admitOpen(cmd.GetRevision()), c.admitPrimary(cmd.GetEpoch(), now, work.StartPrimary.GetForm()))
	case *agentv1.GuardCommand_Promote:
		return errors.Join(c.admitOpen(cmd.GetRevision()), c.admitPromote(cmd.GetEpoch(), now))
	case *agentv1.GuardCommand_StartReplica:
		return c.admitReplica()
	case *agentv1.GuardCommand_Fence:
		c.memory.Fenced = true
		return nil
	case *agentv1.GuardCommand_Close:
		return c.admitClose(cmd.GetEpoch(), cmd.GetRevision())
	case *agentv1.GuardCommand_Stop:
		return nil
	case *agentv1.GuardCommand_Measure:
		return c.admitStopped()
	case *agentv1.GuardCommand_Rewind:
		if !c.memory.Formed || c.memory.Torn {
			return fmt.Errorf("rewind needs a whole copy, this volume has none: copy afresh: %w", ErrRefused)
		}
		return c.admitReplace(cmd.GetEpoch())
	case *agentv1.GuardCommand_Copy:
		return c.admitReplace(cmd.GetEpoch())
	case *agentv1.GuardCommand_WaitFor:
		return c.admitWaitFor(work.WaitFor)
	}
	return fmt.Errorf("unknown work in command %s, the agent is newer than the guard: %w", cmd.GetId(), ErrRefused)
}

// admitClose remembers that this primary is closed, before it is: whatever
// happens to the guard then, nothing starts it again by itself.
func (c *Core) admitClose(epoch, revision int64) error {
	if c.memory.Held != epoch || c.memory.Standby || c.mode == agentv1.DatabaseMode_DATABASE_MODE_REPLICA {
		return fmt.Errorf("only the primary of epoch %d is closed at it, this copy is not: %w", epoch, ErrRefused)
	}
	c.memory.Closed = max(1, revision)
	return nil
}

// admitOpen refuses to make a closed copy writable but for a later decision. What
// an agent does by itself has no revision.
func (c *Core) admitOpen(revision int64) error {
	if c.memory.Closed != 0 && revision <= c.memory.Closed {
		return fmt.Errorf("closed by a switchover at revision %d, only a later decision opens it: %w", c.memory.Closed, ErrRefused)
	}
	return nil
}

func (c *Core) proven(epoch int64, now Instant) error {
	if !c.MayBePrimary(now) || c.claim.GetEpoch() != epoch {
		return fmt.Errorf("primary at epoch %d: %w", epoch, ErrNoProof)
	}
	return nil
}

func (c *Core) admitPrimary(epoch int64, now Instant, form bool) error {
	if err := c.proven(epoch, now); err != nil {
		return err
	}
	switch {
	case c.memory.Torn:
		return fmt.Errorf("a rewind did not finish on this volume, copy it afresh: %w", ErrRefused)
	case form && c.memory.Formed:
		return fmt.Errorf("the volume holds a copy already, it is not formed again: %w", ErrRefused)
	case form && epoch > 1:
		return fmt.Errorf("an empty volume cannot be the primary at epoch %d, only epoch 1 forms: %w", epoch, ErrRefused)
	case !form && !c.memory.Formed:
		return fmt.Errorf("the volume is empty, there is nothing to start as primary: %w", ErrRefused)
	case !form && c.memory.Standby:
		return fmt.Errorf("the copy is a replica, it must be promoted: %w", ErrRefused)
	}
	return nil
}

func (c *Core) admitPromote(epoch int64, now Instant) error {
	if err := c.proven(epoch, now); err != nil {
		return err
	}
	if c.mode == agentv1.DatabaseMode_DATABASE_MODE_STOPPED {
		return fmt.Errorf("the replica does not run, start it before promoting it: %w", ErrRefused)
	}
	return nil
}

func (c *Core) admitReplica() error {
	switch {
	case c.mode == agentv1.DatabaseMode_DATABASE_MODE_PRIMARY:
		return fmt.Errorf("the database runs as primary, stop it first: %w", ErrRefused)
	case !c.memory.Formed || c.memory.Torn:
		return fmt.Errorf("the volume holds no whole copy, copy it afresh: %w", ErrRefused)
	}
	return nil
}

func (c *Core) admitStopped() error {
	if c.mode != agentv1.DatabaseMode_DATABASE_MODE_STOPPED {
		return fmt.Errorf("the database runs, stop it first: %w", ErrRefused)
	}
	return nil
}

// admitReplace guards what may destroy: only a stopped copy that is not the
// primary of the epoch, so that a resynchronisation has the epoch's direction.
func (c *Core) admitReplace(epoch int64) error {
	if err := c.admitStopped(); err != nil {
		return err
	}
	primary := c.claim.GetRole() == agentv1.Role_ROLE_PRIMARY && c.claim.GetEpoch() == c.memory.Epoch
	if primary || (c.memory.Held != 0 && c.memory.Held >= epoch) {
		return fmt.Errorf("this copy is the primary of epoch %d, it is the source and not the target: %w", epoch, ErrRefused)
	}
	return nil
}

// admitWaitFor lets an unconfirmed change only add; a confirmed one becomes the
// memory, durable before the database stops waiting for anyone.
func (c *Core) admitWaitFor(w *agentv1.WaitFor) error {
	if c.mode != agentv1.DatabaseMode_DATABASE_MODE_PRIMARY {
		return fmt.Errorf("only a running primary waits for standbys: %w", ErrRefused)
	}
	if w.GetConfirmed() {
		c.memory.WaitsFor = slices.Clone(w.GetStandbys())
		return nil
	}
	for _, s := range c.memory.WaitsFor {
		if !slices.Contains(w.GetStandbys(), s) {
			return fmt.Errorf("standby %s is waited for and is not in the unconfirmed list: %w", s, ErrRefused)
		}
	}
	return nil
}
