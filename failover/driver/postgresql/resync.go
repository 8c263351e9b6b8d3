package postgresql

import (
	"context"
	"fmt"
	"time"

	"tripod.dev/tripod/failover/driver"
	"tripod.dev/tripod/failover/driver/postgresql/wal"
	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// attachGrace is how long a replica that was started may take to receive.
const attachGrace = 3 * time.Second

// Resync makes this copy a replica of the call's primary: it asks the source,
// stops this copy, measures, decides, and only then changes anything.
func (d *Driver) Resync(ctx context.Context, c driver.Call, discard bool) (driver.Resynced, error) {
	g, err := d.begin(c)
	if err != nil {
		return driver.Resynced{}, err
	}
	if c.Primary == "" || c.Primary == c.Dataset.Cluster || c.PrimaryAddress == "" {
		return driver.Resynced{}, fmt.Errorf("dataset %s: a replica needs another cluster to follow, got %q at %q: %w",
			c.Dataset.Key(), c.Primary, c.PrimaryAddress, driver.ErrRefused)
	}
	if follows(g.status, c.PrimaryAddress) {
		// A receiver that lost its primary for a moment connects again by
		// itself; stopping a synchronous standby would hold up every write.
		if o := d.awaitStream(ctx, c.Dataset); o.State == driver.StateStreaming || o.State == driver.StateCatchingUp {
			origins, err := d.sharedOrigins(ctx, &g)
			if err == nil && origins != nil {
				err = g.note(ctx, origins)
			}
			if err != nil || origins != nil {
				return driver.Resynced{Method: driver.MethodNone, Observation: o}, err
			}
		}
	}
	own := d.ownOrigins(ctx, &g)
	src, err := d.readSource(ctx, c)
	if err != nil {
		return driver.Resynced{}, fmt.Errorf("dataset %s: %w", c.Dataset.Key(), err)
	}
	if err := src.check(c); err != nil {
		return driver.Resynced{}, err
	}
	if err := g.halt(ctx); err != nil {
		return driver.Resynced{}, err
	}
	found, err := g.measure(ctx, src.facts)
	if err != nil {
		return driver.Resynced{}, err
	}
	kin, err := d.kinship(ctx, c, found)
	if err != nil {
		return driver.Resynced{}, err
	}
	result := driver.Resynced{Divergence: divergence(found)}
	evidence := gather(g.status, own, found, src, c, discard)
	evidence.kin = kin
	chosen := decide(evidence)
	if chosen.refusal != "" {
		diverged := &driver.Diverged{Dataset: c.Dataset.Key(), Divergence: result.Divergence, Reason: chosen.refusal}
		d.setDiverged(c.Dataset.Key(), diverged)
		result.Observation = d.Observe(ctx, c.Dataset)
		return result, diverged
	}
	d.setAccount(c.Dataset.Key(), account(chosen, result.Divergence, c.Primary))
	if result.Method, err = g.apply(ctx, chosen, src.facts); err != nil {
		return result, err
	}
	d.setDiverged(c.Dataset.Key(), nil)
	result.Observation, err = d.attach(ctx, &g, src.facts.GetOrigins())
	return result, err
}

// follows is true for a replica that was told to follow address.
func follows(s *agentv1.GuardStatus, address string) bool {
	return s.GetMode() == agentv1.DatabaseMode_DATABASE_MODE_REPLICA && s.GetFollows() == address
}

// halt stops what runs. A former primary is killed: stopping it in order would
// let it write on.
func (g *guarded) halt(ctx context.Context) error {
	var err error
	switch g.status.GetMode() {
	case agentv1.DatabaseMode_DATABASE_MODE_PRIMARY:
		_, err = g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_Fence{Fence: &agentv1.FenceDatabase{}}})
	case agentv1.DatabaseMode_DATABASE_MODE_REPLICA:
		_, err = g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_Stop{Stop: &agentv1.StopDatabase{}}})
	}
	return err
}

func (g *guarded) measure(ctx context.Context, facts *agentv1.SourceFacts) (*agentv1.Divergence, error) {
	if !g.status.GetFormed() {
		return &agentv1.Divergence{Measured: true, Empty: true}, nil
	}
	if g.status.GetTorn() {
		return &agentv1.Divergence{}, nil
	}
	r, err := g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_Measure{Measure: &agentv1.MeasureDivergence{Source: facts}}})
	return r.GetDivergence(), err
}

func gather(s *agentv1.GuardStatus, own map[int64]string, found *agentv1.Divergence, src source, c driver.Call, discard bool) evidence {
	e := evidence{cluster: c.Dataset.Cluster, status: s, found: found, source: c.Primary, epoch: c.Epoch, timeline: src.history.Current,
		own: own, theirs: src.facts.GetOrigins(),
		begun: src.lineage[found.GetEndTimeline()].cluster, oldest: src.oldest, discard: discard}
	if o, ok := src.lineage[src.history.Next(found.GetForkTimeline())]; ok {
		e.promoter, e.promoted = o.cluster, o.epoch
	}
	return e
}

// account says what will be taken back, and why that loses nothing.
func account(chosen choice, found driver.Divergence, primary string) string {
	if found.Bytes == 0 {
		return ""
	}
	why := "none of them can have been acknowledged"
	switch {
	case chosen.keepAside:
		why = "their loss was approved"
	case found.Commits == 0:
		why = "nothing was made durable there"
	}
	return fmt.Sprintf("found %d transactions in %d bytes after %s that %s does not have, %s; kept aside", found.Commits, found.Bytes, found.Fork, primary, why)
}

func divergence(found *agentv1.Divergence) driver.Divergence {
	return driver.Divergence{Measured: found.GetMeasured() && !found.GetForeign(), Fork: found.GetForkPosition(),
		Bytes: found.GetBytes(), Commits: found.GetCommits()}
}

// apply does what was chosen. A rewind that cannot be done, because the log it
// needs is gone, becomes a copy: what it would discard is aside already.
func (g *guarded) apply(ctx context.Context, chosen choice, facts *agentv1.SourceFacts) (driver.Method, error) {
	switch chosen.method {
	case driver.MethodRewind:
		_, err := g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_Rewind{Rewind: &agentv1.RewindCopy{Source: facts}}})
		if err == nil || isRefusal(err) || !g.status.GetTorn() {
			return driver.MethodRewind, err
		}
		return driver.MethodCopy, g.copy(ctx, facts, false)
	case driver.MethodCopy:
		return driver.MethodCopy, g.copy(ctx, facts, chosen.keepAside)
	}
	return chosen.method, nil
}

func (g *guarded) copy(ctx context.Context, facts *agentv1.SourceFacts, keepAside bool) error {
	_, err := g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_Copy{Copy: &agentv1.FreshCopy{Source: facts, KeepAside: keepAside}}})
	return err
}

// attach starts the copy as replica and waits a little for the log to flow.
func (d *Driver) attach(ctx context.Context, g *guarded, origins map[int64]string) (driver.Observation, error) {
	if err := g.follow(ctx, origins); err != nil {
		return driver.Observation{}, err
	}
	return d.awaitStream(ctx, g.call.Dataset), nil
}

// follow has the copy run as a replica of the call's primary, whose origins its volume
// remembers from then on.
func (g *guarded) follow(ctx context.Context, origins map[int64]string) error {
	s := g.settings()
	s.PrimaryAddress = g.call.PrimaryAddress
	_, err := g.do(ctx, &agentv1.GuardCommand{Work: &agentv1.GuardCommand_StartReplica{
		StartReplica: &agentv1.StartReplica{Settings: s, Origins: origins}}})
	return err
}

// awaitStream waits a little until a replica receives the log.
func (d *Driver) awaitStream(ctx context.Context, set driver.Dataset) (o driver.Observation) {
	graced(ctx, func(ctx context.Context) bool {
		o = d.Observe(ctx, set)
		return o.State == driver.StateStreaming || o.State == driver.StateCatchingUp
	})
	return o
}

// graced asks until it is met, for attachGrace at most.
func graced(ctx context.Context, met func(ctx context.Context) bool) {
	ctx, cancel := context.WithTimeout(ctx, attachGrace)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !met(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lsnOf reads a position that PostgreSQL printed.
func lsnOf(text string) wal.LSN {
	lsn, err := wal.ParseLSN(text)
	if err != nil {
		return 0
	}
	return lsn
}
