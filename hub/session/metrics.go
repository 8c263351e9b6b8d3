package session

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	sessions   *prometheus.GaugeVec
	tunnels    *prometheus.GaugeVec
	streams    *prometheus.CounterVec
	heartbeats *prometheus.CounterVec
	grants     *prometheus.CounterVec
	unanswered *prometheus.CounterVec
	relays     *prometheus.CounterVec
	directives *prometheus.CounterVec
	refused    prometheus.Counter
	sentAway   prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tripod", Subsystem: "session", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tripod", Subsystem: "session", Name: name, Help: help}, labels)
	}
	return &metrics{
		sessions:   gauge("live", "Sessions of agent replicas with this member.", "cluster"),
		tunnels:    gauge("tunnels", "Tunnels of agent replicas to this member.", "cluster"),
		streams:    counter("tunnel_streams_total", "Streams opened through tunnels.", "cluster"),
		heartbeats: counter("heartbeats_total", "Heartbeats heard by this member.", "cluster"),
		grants:     counter("grants_total", "Grants that went back to agents through this member.", "cluster"),
		unanswered: counter("heartbeats_unanswered_total", "Heartbeats given up without a grant.", "cluster"),
		relays:     counter("relays_total", "Relays to the leader.", "leader", "outcome"),
		directives: counter("directives_total", "Directives sent to agents by this member.", "cluster", "verb"),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tripod", Subsystem: "session", Name: "refused_total",
			Help: "Sessions and tunnels refused."}),
		sentAway: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tripod", Subsystem: "session", Name: "handshakes_sent_away_total",
			Help: "Connections closed before their TLS handshake because too many had come at once."}),
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	var errs []error
	for _, c := range []prometheus.Collector{m.sessions, m.tunnels, m.streams, m.heartbeats, m.grants, m.unanswered, m.relays, m.directives, m.refused, m.sentAway} {
		errs = append(errs, r.Register(c))
	}
	return errors.Join(errs...)
}

func (m *metrics) relayed(leader string, err error) {
	outcome := "answered"
	if err != nil {
		outcome = "failed"
	}
	m.relays.WithLabelValues(leader, outcome).Inc()
}
