package dns

import (
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	queries  *prometheus.CounterVec
	switches *prometheus.CounterVec
	hosts    prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tripod_dns_queries_total", Help: "DNS queries answered, by type and response code.",
		}, []string{"type", "rcode"}),
		switches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tripod_dns_switches_total", Help: "Routes taken from global services, by result: applied or refused.",
		}, []string{"result"}),
		hosts: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tripod_dns_hosts", Help: "Host names answered.",
		}),
	}
	if registerer != nil {
		registerer.MustRegister(m.queries, m.switches, m.hosts)
	}
	return m
}

// answered counts a query. Rare types share a label, so that a client cannot
// make series without end.
func (m *metrics) answered(query, reply *dns.Msg) {
	kind := "other"
	if len(query.Question) == 1 {
		switch q := query.Question[0].Qtype; q {
		case dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSOA, dns.TypeNS:
			kind = dns.TypeToString[q]
		}
	}
	m.queries.WithLabelValues(kind, dns.RcodeToString[reply.Rcode]).Inc()
}

func (m *metrics) switched(err error) {
	result := "applied"
	if err != nil {
		result = "refused"
	}
	m.switches.WithLabelValues(result).Inc()
}

func (m *metrics) routes(t *Table) { m.hosts.Set(float64(len(t.current.Load().hosts))) }
