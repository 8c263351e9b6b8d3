package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tripod.dev/tripod/test/bench/load"
	"tripod.dev/tripod/test/bench/report"
)

// doors measures what the gateway adds, and how much it lets through.
func (c Config) doors(ctx context.Context) (err error) {
	d, err := c.openDoors(ctx)
	defer func() { err = errors.Join(err, d.close()) }()
	if err != nil {
		return err
	}
	for _, row := range []struct {
		mode     string
		ours     *door
		p50, p99 string
	}{{"direct", d.direct, rowDirectP50, rowDirectP99}, {"tunnel", d.tunnel, rowTunnelP50, rowTunnelP99}} {
		for _, peer := range []*door{d.bare, d.kubectl} {
			if !c.Wants(row.p50) && !c.Wants(row.p99) {
				continue
			}
			if err := c.added(ctx, row.p50, row.p99, d.server, row.ours, peer); err != nil {
				return err
			}
		}
	}
	for name, ours := range map[string]*door{rowCPUDirect: d.direct, rowCPUTunnel: d.tunnel} {
		if !c.Wants(name) {
			continue
		}
		if err := c.run(ctx, name, "µs", report.Lower, c.processor(ours), c.processor(d.bare)); err != nil {
			return err
		}
	}
	if !c.Wants(rowThroughput) {
		return nil
	}
	for _, peer := range []*door{d.bare, d.kubectl} {
		if err := c.run(ctx, rowThroughput, "op/s", report.Higher, c.throughput(d.direct), c.throughput(peer)); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) throughput(through *door) way {
	return way{through.name, func(ctx context.Context) (float64, error) {
		r, err := load.Load{Clients: 16, Warmup: c.Duration / 3, Duration: c.Duration,
			Do: func(ctx context.Context, _, _ int) error { return through.ask(ctx) }}.Run(ctx)
		return r.PerSecond, err
	}}
}

// added prints how much longer a request takes through ours and through the peer than
// to the server itself. One client asks all three in turn, so that what else the machine
// does falls on all.
func (c Config) added(ctx context.Context, p50, p99 string, server, ours, peer *door) error {
	took := map[*door][]time.Duration{}
	end := time.Now().Add(time.Duration(c.Rounds) * c.Duration)
	for n := 0; time.Now().Before(end); n++ {
		for _, one := range []*door{server, ours, peer} {
			start := time.Now()
			if err := one.ask(ctx); err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			if n >= 50 { // the first warm it up
				took[one] = append(took[one], time.Since(start))
			}
		}
	}
	if len(took[server]) == 0 {
		return errors.New("bench gateway: the time is too short for fifty requests: use a longer --duration")
	}
	for name, q := range map[string]float64{p50: 0.5, p99: 0.99} {
		if !c.Wants(name) {
			continue
		}
		at := func(one *door) float64 {
			slices.Sort(took[one])
			return float64(load.Quantile(took[one], q).Nanoseconds()) / 1000
		}
		base := at(server)
		fmt.Fprintf(c.Progress, "%s: %.0f µs to the server itself, %d requests\n", name, base, len(took[server]))
		row := report.Row{Bench: name, Ours: at(ours) - base, Peer: peer.name, Theirs: at(peer) - base, Unit: "µs", Better: report.Lower}
		if err := row.Print(c.Out); err != nil {
			return err
		}
	}
	return nil
}
