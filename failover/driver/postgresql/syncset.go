package postgresql

import (
	"context"
	"fmt"
	"slices"
	"time"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/postgresql/wal"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// readyGrace is how long a standby may take to be nearly caught up.
const readyGrace = 3 * time.Second

// SetSyncSet makes this primary wait for exactly the call's sync set.
//
// It grows in an order that leaves no gap: the standby has caught up; the
// primary is told to wait for it; the primary surely does, and the standby has
// everything written before; then that is remembered. It shrinks the other way
// round: first it is remembered, then the primary stops waiting.
func (d *Driver) SetSyncSet(ctx context.Context, c driver.Call) (driver.Observation, error) {
	g, err := d.begin(c)
	if err != nil {
		return driver.Observation{}, err
	}
	if g.status.GetMode() != agentv1.DatabaseMode_DATABASE_MODE_PRIMARY || g.status.GetHeldEpoch() != c.Epoch {
		return driver.Observation{}, fmt.Errorf("dataset %s: this copy is not the running primary of epoch %d", c.Dataset.Key(), c.Epoch)
	}
	target, confirmed := g.waits(), g.status.GetWaitsFor()
	effective, err := d.effective(ctx, &g)
	if err != nil {
		return driver.Observation{}, err
	}
	if same(target, confirmed) && same(target, effective) {
		return d.Observe(ctx, c.Dataset), nil
	}
	if added := without(target, confirmed); len(added) > 0 {
		if err := d.grow(ctx, &g, added, effective); err != nil {
			return driver.Observation{}, fmt.Errorf("dataset %s: wait for %v: %w", c.Dataset.Key(), added, err)
		}
	}
	if err := g.waitFor(ctx, target, true); err != nil {
		return driver.Observation{}, err
	}
	d.sessions.drop(c.Dataset.Key())
	return d.Observe(ctx, c.Dataset), nil
}

// grow has the primary wait for added and proves that it does. If that cannot
// be proven the primary goes back to what it waited for before.
func (d *Driver) grow(ctx context.Context, g *guarded, added, effective []string) error {
	if err := d.ready(ctx, g, added); err != nil {
		return err
	}
	union := merged(effective, added)
	if err := g.waitFor(ctx, union, false); err != nil {
		return err
	}
	if err := d.confirm(ctx, g, union, added); err != nil {
		// Writes that wait for a standby that does not come are worse than a
		// set that did not grow; nothing has relied on it yet.
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if undo := g.waitFor(back, effective, false); undo != nil {
			return fmt.Errorf("%w; and going back failed: %w", err, undo)
		}
		return err
	}
	return nil
}

// ready waits a little until the standbys receive the log and have nearly all of
// it: one that has just connected has confirmed nothing yet.
func (d *Driver) ready(ctx context.Context, g *guarded, added []string) error {
	ctx, cancel := context.WithTimeout(ctx, readyGrace)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		standbys, reached, err := d.receivers(ctx, g)
		if err != nil {
			return err
		}
		missing := behind(standbys, added, added, reached-min(reached, catchingUpBytes))
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("standbys %v do not receive the log of this primary or are more than %d bytes behind: they must follow and catch up first", missing, catchingUpBytes)
		}
	}
}

// confirm proves that every commit from now on waits for added, and that added
// has every commit before. A session that sees the new setting began after the
// postmaster had signalled every process. The checkpointer, which says whether
// commits wait at all, has read it when a checkpoint asked for after that is
// done. A log sender, which says who has confirmed, has read it when it hears
// that a position written after that is flushed. That the position was sent to
// the standby says that it follows the present timeline (standby.holds).
func (d *Driver) confirm(ctx context.Context, g *guarded, union, added []string) error {
	set := g.call.Dataset
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		effective, err := d.effective(ctx, g)
		if err != nil {
			return err
		}
		if same(effective, union) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the primary did not take over %v: %w", union, ctx.Err())
		}
	}
	var marker string
	err := d.withSession(ctx, set, g.address, func(s *session) error {
		if _, err := s.conn.Exec(ctx, "CHECKPOINT"); err != nil {
			return err
		}
		if err := s.prove(ctx, g.call); err != nil {
			return err
		}
		return s.conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&marker)
	})
	if err != nil {
		return err
	}
	for {
		standbys, _, err := d.receivers(ctx, g)
		if err != nil {
			return err
		}
		missing := behind(standbys, union, added, lsnOf(marker))
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("standbys %v did not confirm %s: %w", missing, marker, ctx.Err())
		}
	}
}

// behind lists who has not confirmed marker: of added everyone must, of the
// others in union those that are connected, whose senders might still count
// confirmations by the old setting.
func behind(standbys []standby, union, added []string, marker wal.LSN) []string {
	var missing []string
	for _, name := range union {
		i := slices.IndexFunc(standbys, func(s standby) bool { return s.name == name })
		connected := i >= 0 && standbys[i].streaming
		if (!connected && slices.Contains(added, name)) || (i >= 0 && !standbys[i].holds(marker)) {
			missing = append(missing, name)
		}
	}
	return missing
}

// effective asks a new connection what the postmaster has read.
func (d *Driver) effective(ctx context.Context, g *guarded) ([]string, error) {
	d.sessions.drop(g.call.Dataset.Key())
	var setting string
	err := d.withSession(ctx, g.call.Dataset, g.address, func(s *session) error {
		return s.conn.QueryRow(ctx, "SELECT current_setting('synchronous_standby_names')").Scan(&setting)
	})
	return parseStandbys(setting), err
}

func (d *Driver) receivers(ctx context.Context, g *guarded) (standbys []standby, reached wal.LSN, err error) {
	err = d.withSession(ctx, g.call.Dataset, g.address, func(s *session) error {
		var position string
		if err := s.conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&position); err != nil {
			return err
		}
		reached = lsnOf(position)
		standbys, err = s.standbys(ctx)
		return err
	})
	return standbys, reached, err
}

func (g *guarded) waitFor(ctx context.Context, standbys []string, confirmed bool) error {
	_, err := g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_WaitFor{
		WaitFor: &agentv1.WaitFor{Standbys: standbys, Confirmed: confirmed}}})
	return err
}

func merged(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

func same(a, b []string) bool { return slices.Equal(merged(a, nil), merged(b, nil)) }
