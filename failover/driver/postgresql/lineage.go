package postgresql

import (
	"context"
	"fmt"
	"maps"
	"slices"

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

// sharedOrigins are those of the call's primary, when the replica that streams from it
// has the same timelines, and nil when it has not. PostgreSQL compares numbers alone,
// and a replica connects by itself to an address that somebody else may have become.
// The row that tells who began the primary's timeline comes with that timeline's log,
// so a replica which lacks it is waited for a little.
func (d *Driver) sharedOrigins(ctx context.Context, g *guarded) (map[int64]string, error) {
	primary, err := d.lineageOf(ctx, g.call.Dataset, g.call.PrimaryAddress)
	if err != nil {
		return nil, fmt.Errorf("dataset %s: ask primary %s whose timelines it has: %w", g.call.Dataset.Key(), g.call.Primary, err)
	}
	theirs := primary.origins()
	present := slices.Max(append(slices.Collect(maps.Keys(theirs)), 0))
	var shared, other bool
	graced(ctx, func(context.Context) bool {
		own := d.ownOrigins(ctx, g)
		for timeline, mine := range own {
			other = other || theirs[timeline] != "" && theirs[timeline] != mine
		}
		shared = !other && own[present] != ""
		return shared || other
	})
	switch {
	case shared:
		return theirs, nil
	case other:
		return nil, nil
	}
	return nil, ctx.Err()
}

// note has the volume remember who began the timelines of a replica that follows the
// call's primary already: its data can be asked only while it runs.
func (g *guarded) note(ctx context.Context, origins map[int64]string) error {
	if maps.Equal(g.status.GetOrigins(), origins) {
		return nil
	}
	return g.follow(ctx, origins)
}
