package store

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	proposals *prometheus.CounterVec
	latency   prometheus.Histogram
	apply     prometheus.Histogram
	batch     prometheus.Histogram
	reads     prometheus.Histogram
	// confirmations of the leader's, by whose word they rest on.
	confirmations *prometheus.CounterVec
	applies       prometheus.Counter
	skipped       prometheus.Counter
	restores      prometheus.Counter
	// defragmentations are counted by how long they took.
	defragmentations prometheus.Histogram
}

func newMetrics() *metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "tripod", Subsystem: "store", Name: name, Help: help}
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "tripod", Subsystem: "store", Name: name, Help: help, Buckets: buckets})
	}
	seconds := prometheus.ExponentialBuckets(0.0001, 2, 18)
	return &metrics{
		proposals:        prometheus.NewCounterVec(prometheus.CounterOpts(opts("proposals_total", "Commands proposed by this member, by outcome.")), []string{"outcome"}),
		latency:          histogram("proposal_seconds", "Time from proposing a command to its result.", seconds),
		apply:            histogram("apply_seconds", "Time to apply one batch of entries.", seconds),
		batch:            histogram("apply_batch_entries", "Entries per applied batch.", prometheus.ExponentialBuckets(1, 2, 11)),
		reads:            histogram("read_batch_size", "Linearizable reads confirmed together.", prometheus.ExponentialBuckets(1, 2, 11)),
		confirmations:    prometheus.NewCounterVec(prometheus.CounterOpts(opts("read_confirmations_total", "Confirmations of linearizable reads on the leader, by whose word they rest on: the followers', or that of the member that asks.")), []string{"by"}),
		applies:          counter("entries_applied_total", "Commands whose effects were applied."),
		skipped:          counter("entries_skipped_total", "Commands handed over again after a restart, whose effects were on disk."),
		defragmentations: histogram("defragmentation_seconds", "Time in which the database was rewritten without its holes, while this member's clients waited.", seconds),
		restores:         counter("snapshots_restored_total", "Snapshots put in place of the state."),
	}
}

// register publishes the metrics of s.
func (m *metrics) register(r prometheus.Registerer, s *Store) error {
	if r == nil {
		return nil
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "tripod", Subsystem: "store", Name: name, Help: help}, f)
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.proposals, m.latency, m.apply, m.batch, m.reads, m.confirmations, m.applies, m.skipped, m.restores, m.defragmentations,
		gauge("leader", "1 if this member leads.", func() float64 {
			if s.IsLeader() {
				return 1
			}
			return 0
		}),
		gauge("term", "Raft term.", func() float64 { return float64(s.raft.CurrentTerm()) }),
		gauge("applied_index", "Index of the last applied entry.", func() float64 { return float64(s.AppliedIndex()) }),
		gauge("commit_index", "Index of the last entry known to be committed.", func() float64 { return float64(s.raft.CommitIndex()) }),
		gauge("revision", "Revision of the key-value state.", func() float64 { return float64(s.Revision()) }),
		gauge("command_level", "Level of the command set in force, as applied here.", func() float64 { return float64(s.Level()) }),
		gauge("command_level_understood", "Highest level of the command set that this member's program understands.", func() float64 { return float64(s.Understands()) }),
		gauge("compacted_revision", "Revision up to which superseded ones were dropped.", func() float64 { return float64(s.machine.kv.FirstRev()) }),
		gauge("db_bytes", "Size of the database file.", func() float64 { size, _ := s.Maintenance().Size(); return float64(size) }),
		gauge("db_in_use_bytes", "Part of the database file in use.", func() float64 { _, used := s.Maintenance().Size(); return float64(used) }),
		gauge("quota_bytes", "Quota of the part of the database file in use.", func() float64 { return float64(s.cfg.Quota) }),
		gauge("no_space", "1 while this member refuses what grows, for the quota or a full disk.", func() float64 {
			if s.space.short() || s.machine.full.Load() {
				return 1
			}
			return 0
		}),
		gauge("disk_free_bytes", "Free space under the data directory.", func() float64 { return float64(s.space.free.Load()) }),
	} {
		errs = append(errs, r.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("store: register metrics: %w", err)
	}
	return nil
}
