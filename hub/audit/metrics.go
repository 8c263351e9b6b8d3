package audit

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	records prometheus.Counter
	failed  prometheus.Counter
	signed  prometheus.Gauge
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tripod", Subsystem: "audit", Name: name, Help: help})
	}
	return &metrics{
		records: counter("records_total", "Records written to this member's audit log."),
		failed:  counter("failures_total", "Records and marks that could not be written to this member's audit log."),
		signed: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "tripod", Subsystem: "audit", Name: "signed_sequence",
			Help: "Number of the newest record of the audit log that is signed and durable."}),
	}
}

// Register shows the log's metrics.
func (l *Log) Register(r prometheus.Registerer) error {
	return errors.Join(r.Register(l.metrics.records), r.Register(l.metrics.failed), r.Register(l.metrics.signed))
}
