package postgresql

import (
	"context"
	"fmt"
	"maps"
	"time"

	"tripod.dev/tripod/failover/driver"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// lineageOf asks a copy, primary or replica, who began its timelines.
func (d *Driver) lineageOf(ctx context.Context, set driver.Dataset, address string) (source, error) {
	src := source{lineage: map[int64]origin{}}
	conn, err := d.connect(ctx, set, address)
	if err != nil {
		return src, err
	}
	defer hangUp(conn)
	return src, src.readLineage(ctx, conn)
}

// ownOrigins are what this copy's own data says while it runs as a replica, and
// what its volume remembers of whom it followed.
func (d *Driver) ownOrigins(ctx context.Context, g *guarded) map[int64]string {
	own := maps.Clone(g.status.GetOrigins())
	if g.status.GetMode() != agentv1.DatabaseMode_DATABASE_MODE_REPLICA {
		return own
	}
	src, err := d.lineageOf(ctx, g.call.Dataset, g.address)
	if err != nil {
		return own
	}
	if own == nil {
		own = map[int64]string{}
	}
	maps.Copy(own, src.origins())
	return own
}

// recall asks a stopped replica who began its timelines: it is started, to follow
// nobody, replays what it has received, and is stopped again. It may have connected by
// itself to an address that somebody else had become, and got onto timeline, after
// it was last asked. What it cannot say within attachGrace it does not know.
func (d *Driver) recall(ctx context.Context, g *guarded, timeline int64) (map[int64]string, error) {
	if _, err := g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_StartReplica{
		StartReplica: &agentv1.StartReplica{Settings: g.settings()}}}); err != nil {
		return nil, fmt.Errorf("dataset %s: ask the copy who began timeline %d: %w", g.call.Dataset.Key(), timeline, err)
	}
	limit, cancel := context.WithTimeout(ctx, attachGrace)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	own := d.ownOrigins(ctx, g)
	for own[timeline] == "" && limit.Err() == nil {
		select {
		case <-tick.C:
			own = d.ownOrigins(ctx, g)
		case <-limit.Done():
		}
	}
	return own, g.halt(ctx)
}

// sameLineage is true when a replica that streams from the call's primary has the
// timelines of that primary. PostgreSQL compares numbers alone, and a replica
// connects by itself to an address that somebody else may have become.
func (d *Driver) sameLineage(ctx context.Context, g *guarded) (bool, error) {
	theirs, err := d.lineageOf(ctx, g.call.Dataset, g.call.PrimaryAddress)
	if err != nil {
		return false, fmt.Errorf("dataset %s: ask primary %s whose timelines it has: %w", g.call.Dataset.Key(), g.call.Primary, err)
	}
	all := theirs.origins()
	for timeline, mine := range d.ownOrigins(ctx, g) {
		if all[timeline] != "" && all[timeline] != mine {
			return false, nil
		}
	}
	return true, nil
}
