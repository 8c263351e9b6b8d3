package guard

import (
	"context"
	"errors"
	"fmt"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

const (
	replica = agentv1.DatabaseMode_DATABASE_MODE_REPLICA
	primary = agentv1.DatabaseMode_DATABASE_MODE_PRIMARY
)

// carry does an admitted command.
func (g worker) carry(ctx context.Context, cmd *agentv1.GuardCommand) (*agentv1.Divergence, error) {
	switch w := cmd.GetWork().(type) {
	case *agentv1.GuardCommand_StartPrimary:
		return nil, g.startPrimary(ctx, cmd.GetEpoch(), w.StartPrimary)
	case *agentv1.GuardCommand_StartReplica:
		return nil, g.startReplica(ctx, w.StartReplica)
	case *agentv1.GuardCommand_Promote:
		return nil, g.promote(ctx, cmd.GetEpoch(), w.Promote.GetSettings())
	case *agentv1.GuardCommand_Fence:
		return nil, g.proveStopped(ctx)
	case *agentv1.GuardCommand_Stop:
		return nil, g.stop(ctx)
	case *agentv1.GuardCommand_Close:
		return nil, g.close(ctx)
	case *agentv1.GuardCommand_Measure:
		if !g.formed() {
			return &agentv1.Divergence{Measured: true, Empty: true}, nil
		}
		return g.parts.Copier.Measure(ctx, w.Measure.GetSource())
	case *agentv1.GuardCommand_Rewind:
		return nil, g.rewind(ctx, cmd.GetEpoch(), w.Rewind)
	case *agentv1.GuardCommand_Copy:
		return nil, g.copy(ctx, cmd.GetEpoch(), w.Copy)
	case *agentv1.GuardCommand_WaitFor:
		return nil, g.waitFor(ctx, w.WaitFor)
	}
	return nil, ErrRefused
}

// begin marks the database as mode before anything could make it so, and
// checks the proof once more: the work before may have taken its time.
func (g worker) begin(mode agentv1.DatabaseMode, epoch int64, asked []string) (waits []string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if mode == primary {
		if err := g.core.proven(epoch, g.cfg.Clock()); err != nil {
			return nil, err
		}
	}
	waits = g.core.Waits(g.cfg.Identity.Cluster, asked)
	g.core.SetMode(mode)
	g.lastStop = ""
	return waits, nil
}

func (g worker) startPrimary(ctx context.Context, epoch int64, w *agentv1.StartPrimary) error {
	s := w.GetSettings()
	if g.mode() == primary {
		g.set(func() { g.core.memory.becamePrimary(epoch) })
		return g.configure(ctx, epoch, s)
	}
	if g.mode() == replica {
		return fmt.Errorf("the database runs as replica, promote it: %w", ErrRefused)
	}
	if w.GetForm() {
		if err := g.parts.Copier.Form(ctx, s); err != nil {
			return err
		}
		g.set(func() { g.core.memory.Formed = true })
		if err := g.save(); err != nil {
			return err
		}
	}
	waits, err := g.begin(primary, epoch, s.GetWaitFor())
	if err != nil {
		return err
	}
	s.WaitFor = waits
	g.set(func() { g.core.memory.becamePrimary(epoch) })
	if err := g.save(); err != nil {
		g.stopped(err)
		return err
	}
	if err := g.parts.Engine.Start(ctx, primary, s, g.exits()); err != nil {
		return g.abandon(err)
	}
	return nil
}

// abandon kills what a failed start may have left running.
func (g worker) abandon(err error) error {
	if left := g.kill("the start failed"); len(left) > 0 {
		return fmt.Errorf("%w; %d processes survived SIGKILL", err, len(left))
	}
	g.stopped(err)
	return err
}

func (g worker) configure(ctx context.Context, epoch int64, s *agentv1.DatabaseSettings) error {
	waits, err := g.begin(primary, epoch, s.GetWaitFor())
	if err != nil {
		return err
	}
	s.WaitFor = waits
	return g.parts.Engine.Configure(ctx, s)
}

func (g worker) startReplica(ctx context.Context, w *agentv1.StartReplica) error {
	s := w.GetSettings()
	running := g.mode() == replica
	if _, err := g.begin(replica, 0, nil); err != nil {
		return err
	}
	s.WaitFor = nil
	g.set(func() { g.core.memory.becameReplica(s.GetPrimaryAddress(), w.GetOrigins(), g.core.claim) })
	if running {
		return g.parts.Engine.Configure(ctx, s)
	}
	if err := g.save(); err != nil {
		g.stopped(err)
		return err
	}
	if err := g.parts.Engine.Start(ctx, replica, s, g.exits()); err != nil {
		return g.abandon(err)
	}
	return nil
}

// promote records the epoch as held before the database accepts a write: a
// guard that dies in between finds a copy that is never the target of a
// resynchronisation at that epoch.
func (g worker) promote(ctx context.Context, epoch int64, s *agentv1.DatabaseSettings) error {
	if g.mode() == primary {
		g.set(func() { g.core.memory.becamePrimary(epoch) })
		return g.configure(ctx, epoch, s)
	}
	waits, err := g.begin(primary, epoch, s.GetWaitFor())
	if err != nil {
		return err
	}
	s.WaitFor = waits
	g.set(func() {
		g.core.memory.holds(epoch)
		g.core.memory.WaitsFor = waits
	})
	if err := g.save(); err != nil {
		return g.abandon(err)
	}
	if err := g.parts.Engine.Promote(ctx, s); err != nil {
		return g.abandon(err)
	}
	g.set(func() { g.core.memory.becamePrimary(epoch) })
	return nil
}

func (g worker) stop(ctx context.Context) error {
	if g.mode() == agentv1.DatabaseMode_DATABASE_MODE_STOPPED {
		return nil
	}
	if err := g.parts.Engine.Stop(ctx); err != nil {
		return fmt.Errorf("stop in order: %w", err)
	}
	g.set(func() { g.lastStop = "stopped in order" })
	g.stopped(nil)
	return nil
}

// close stops the primary in order and tells where its log ends. One that does
// not end in time is killed, so that it can be opened again.
func (g worker) close(ctx context.Context) error {
	g.set(func() { g.position, g.timeline = "", 0 })
	if err := g.parts.Engine.Stop(ctx); err != nil {
		if left := g.kill("it did not close in order"); len(left) > 0 {
			return fmt.Errorf("close in order: %w; %d processes survived SIGKILL", err, len(left))
		}
		g.stopped(nil)
		return fmt.Errorf("close in order: %w", err)
	}
	g.set(func() { g.lastStop = "closed by a switchover" })
	g.stopped(nil)
	position, timeline, err := g.parts.Copier.Position(ctx)
	if err != nil {
		return fmt.Errorf("read where the log ends: %w", err)
	}
	g.set(func() { g.position, g.timeline = position, timeline })
	return nil
}

func (g worker) rewind(ctx context.Context, epoch int64, w *agentv1.RewindCopy) error {
	g.set(func() { g.core.memory.Torn = true })
	if err := g.save(); err != nil {
		return err
	}
	torn, err := g.parts.Copier.Rewind(ctx, w.GetSource(), epoch)
	g.set(func() {
		g.core.memory.Torn = torn
		if err == nil {
			g.core.memory.rewound(w.GetSource())
		}
	})
	return err
}

func (g worker) copy(ctx context.Context, epoch int64, w *agentv1.FreshCopy) error {
	err := g.parts.Copier.Copy(ctx, w.GetSource(), epoch, w.GetKeepAside())
	if err == nil {
		g.set(func() { g.core.memory.copied(w.GetSource()) })
	}
	return err
}

// waitFor writes down that a standby is no longer surely waited for before the
// database stops waiting; Admit has changed the memory and do has saved it.
func (g worker) waitFor(ctx context.Context, w *agentv1.WaitFor) error {
	if g.mode() != primary {
		return errors.New("the primary has stopped meanwhile")
	}
	return g.parts.Engine.Configure(ctx, &agentv1.DatabaseSettings{WaitFor: w.GetStandbys(), Cluster: g.cfg.Identity.Cluster})
}
