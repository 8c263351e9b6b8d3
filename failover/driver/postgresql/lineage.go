package postgresql

import (
	"context"
	"fmt"
	"maps"

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
