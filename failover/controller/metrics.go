package controller

import (
	"github.com/prometheus/client_golang/prometheus"

	"tripod.dev/tripod/failover"
)

type metrics struct {
	turns        prometheus.Histogram
	directives   *prometheus.HistogramVec
	phases       *prometheus.CounterVec
	classes      *prometheus.GaugeVec
	breaker      prometheus.Gauge
	losses       *prometheus.GaugeVec
	failedWrites prometheus.Counter
	unarchived   prometheus.Gauge
	ready        *prometheus.GaugeVec
	preflight    *prometheus.GaugeVec
	// planReady and planPreflight are those of plans.
	planReady     *prometheus.GaugeVec
	planPreflight *prometheus.GaugeVec
}

func newMetrics() *metrics {
	return &metrics{
		turns: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tripod_failover_turn_seconds",
			Help: "Time to gather a snapshot and decide.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8)}),
		directives: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tripod_failover_directive_seconds",
			Help: "Time from sending a directive to its result.", Buckets: prometheus.ExponentialBuckets(0.01, 3, 8)}, []string{"verb", "outcome"}),
		phases: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tripod_failover_run_phases_total",
			Help: "Phases that runs entered."}, []string{"phase"}),
		classes: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tripod_failover_cluster_class",
			Help: "1 for the class that each cluster is in."}, []string{"cluster", "class"}),
		breaker: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tripod_failover_breaker_open",
			Help: "1 while losses in several centers stop every automatic action."}),
		losses: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tripod_failover_recent_losses",
			Help: "Clusters of a center that are lost, or were within the last minute: a loss in another center now opens the breaker. Told by the leader."}, []string{"center"}),
		failedWrites: prometheus.NewCounter(prometheus.CounterOpts{Name: "tripod_failover_failed_writes_total",
			Help: "Writes of the engine that failed other than by a conflict."}),
		unarchived: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tripod_failover_evidence_not_archived",
			Help: "Runs whose evidence could not be moved from their journal to its ConfigMap. Told by the leader."}),
		ready: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tripod_application_ready",
			Help: "1 while a recovery of the application would succeed now without a person. Told by the leader."}, []string{"namespace", "application"}),
		preflight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tripod_preflight_result",
			Help: "0 for a check that passed, 1 for a warning, 2 for a failure. Told by the leader."}, []string{"namespace", "application", "check", "target"}),
		planReady: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tripod_plan_ready",
			Help: "1 while a run of the plan would succeed now without a person. Told by the leader."}, []string{"plan"}),
		planPreflight: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tripod_plan_preflight_result",
			Help: "0 for a check of the plan that passed, 1 for a warning, 2 for a failure; of several the worst. Told by the leader."}, []string{"plan", "check"}),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.turns, m.directives, m.phases, m.classes, m.breaker, m.losses, m.failedWrites, m.unarchived, m.ready, m.preflight, m.planReady, m.planPreflight}
}

// begin forgets what was told of the fleet: a follower says nothing about it.
func (m *metrics) begin() {
	m.classes.Reset()
	m.losses.Reset()
	m.breaker.Set(0)
}

// lost tells of every center of the fleet how many of its clusters count for the breaker.
func (m *metrics) lost(clusters []failover.Cluster, losses []failover.Loss) {
	count := map[string]float64{}
	for _, cl := range clusters {
		count[cl.Center] += 0
	}
	for _, l := range losses {
		count[l.Center]++
	}
	for center, n := range count {
		m.losses.WithLabelValues(center).Set(n)
	}
}

func (m *metrics) class(cluster string, was, is failover.Class) {
	if was != "" {
		m.classes.DeleteLabelValues(cluster, string(was))
	}
	m.classes.WithLabelValues(cluster, string(is)).Set(1)
}

func (m *metrics) setBreaker(open bool) {
	m.breaker.Set(map[bool]float64{true: 1}[open])
}
