package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"tripod.dev/tripod/deploy/ledger"
	"tripod.dev/tripod/test/multikind/lab"
	"tripod.dev/tripod/test/multikind/traffic"
)

// BenchConfig is what a person may choose about the benchmark of failovers.
type BenchConfig struct {
	Lab lab.Config
	// Rounds of losing the primary's center, with the hub's leader in every second
	// one, and of a planned switchover.
	Rounds int
	// Folder takes the clients' journals.
	Folder string
	// Out gets one JSON object a line, Tell what happens meanwhile.
	Out, Tell io.Writer
}

// figure is one line of the benchmark. The peer is what was promised.
type figure struct {
	Bench  string  `json:"bench"`
	Ours   float64 `json:"ours"`
	Peer   string  `json:"peer"`
	Theirs float64 `json:"theirs"`
	Unit   string  `json:"unit"`
	Ratio  float64 `json:"ratio"`
	Better string  `json:"better"`
	Rounds int     `json:"rounds"`
}

// samples are what the rounds measured, in seconds.
type samples struct {
	rto, rtoWithLeader, detect, engine, pause []float64
}

// Bench measures failovers and switchovers under traffic, and audits the ledger. A
// figure over its objective is printed like any other; only a lost, double or
// twice accepted transfer is an error.
func Bench(ctx context.Context, config BenchConfig) error {
	start := time.Now()
	tell := func(line string) { fmt.Fprintf(config.Tell, "%6.1fs  %s\n", time.Since(start).Seconds(), line) }
	journals, err := emptyJournals(config.Folder)
	if err != nil {
		return err
	}
	fleet, err := Boot(ctx, config.Lab, tell)
	if err != nil {
		return err
	}
	if err := fleet.Deploy(ctx); err != nil {
		return err
	}
	business, err := fleet.OpenBusiness(ctx, journals, fmt.Sprintf("bench%d", start.Unix()))
	if err != nil {
		return err
	}
	business.Start(ctx)
	defer func() { _ = business.Stop() }()
	var s samples
	for round := range config.Rounds {
		if err := business.measure(ctx, &s, round%2 == 1); err != nil {
			return fmt.Errorf("round %d of %d: %w", round+1, config.Rounds, err)
		}
	}
	// What was measured is told even if a copy then cannot be read.
	if err := emit(config.Out, s.figures()...); err != nil {
		return err
	}
	report, err := business.AwaitCopies(ctx, time.Minute)
	if err != nil {
		return err
	}
	lost := figure{Bench: "failover/transfers-lost-or-double", Ours: float64(report.Lost + report.Duplicated + report.AcceptedByTwoEpochs),
		Peer: "objective", Unit: "transfers", Better: "lower", Rounds: config.Rounds}
	if err := emit(config.Out, lost); err != nil {
		return err
	}
	return report.Err()
}

// measure loses the primary's center, restores it, and moves the primary as planned.
func (b *Business) measure(ctx context.Context, s *samples, leader bool) error {
	f := b.fleet
	r, err := b.LosePrimary(ctx, leader)
	if err != nil {
		return err
	}
	if leader {
		s.rtoWithLeader = append(s.rtoWithLeader, r.RTOSeconds)
	} else {
		s.rto = append(s.rto, r.RTOSeconds)
	}
	s.detect = append(s.detect, r.DetectSeconds)
	s.engine = append(s.engine, r.FenceSeconds+r.RouteSeconds)
	if err := b.Restore(ctx, r); err != nil {
		return err
	}
	if err := b.AwaitTransfers(ctx, 100, time.Minute); err != nil {
		return err
	}
	began := traffic.Monotonic()
	if _, err := f.Tripodctl(ctx, "switchover", ledger.Namespace+"/ledger", "--to", r.Lost); err != nil {
		return err
	}
	if err := b.AwaitTransfers(ctx, 100, time.Minute); err != nil {
		return err
	}
	pause, err := b.longestPause(began)
	if err != nil {
		return err
	}
	s.pause = append(s.pause, seconds(pause))
	return f.AwaitProtected(ctx, 3*time.Minute, r.Lost, r.Promoted)
}

// leaseSeconds is the TTL of the default profile.
const leaseSeconds = 5.0

func (s *samples) figures() (all []figure) {
	for _, m := range []struct {
		name    string
		seconds []float64
		promise float64
	}{
		{"failover/rto/p95", s.rto, rtoObjective}, {"failover/rto/leader-lost-too/p95", s.rtoWithLeader, rtoObjective},
		{"failover/detection-to-decision/p95", s.detect, leaseSeconds + 0.3}, {"failover/engine-beside-drivers/p95", s.engine, 0.5},
		{"switchover/write-pause/p95", s.pause, 2},
	} {
		if len(m.seconds) == 0 {
			continue
		}
		ours := percentile(m.seconds, 0.95)
		all = append(all, figure{Bench: m.name, Ours: ours, Peer: "objective", Theirs: m.promise, Unit: "s",
			Ratio: math.Round(ours/m.promise*1000) / 1000, Better: "lower", Rounds: len(m.seconds)})
	}
	return all
}

func emit(out io.Writer, figures ...figure) error {
	encoder := json.NewEncoder(out)
	for _, f := range figures {
		if err := encoder.Encode(f); err != nil {
			return fmt.Errorf("print the figures: %w", err)
		}
	}
	return nil
}

// percentile is the smallest sample that at least the share p of all do not exceed.
func percentile(values []float64, p float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}
