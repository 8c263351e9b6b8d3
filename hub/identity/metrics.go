package identity

import "github.com/prometheus/client_golang/prometheus"

var (
	expiryDesc = prometheus.NewDesc("tripod_identity_certificate_expiry_timestamp_seconds",
		"Unix time at which a certificate ends that this member holds or was shown.", []string{"name", "kind"}, nil)
	failuresDesc = prometheus.NewDesc("tripod_identity_renewal_failures_total",
		"Attempts of this member to renew its own certificates that failed.", nil, nil)
)

// Describe implements prometheus.Collector.
func (i *Identity) Describe(ch chan<- *prometheus.Desc) {
	ch <- expiryDesc
	ch <- failuresDesc
}

// Collect implements prometheus.Collector.
func (i *Identity) Collect(ch chan<- prometheus.Metric) {
	own := map[string]bool{}
	for _, c := range i.Certificates() {
		if own[c.Name] { // shown to itself
			continue
		}
		own[c.Name] = true
		ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(c.NotAfter.Unix()), c.Name, c.Kind)
	}
	ch <- prometheus.MustNewConstMetric(failuresDesc, prometheus.CounterValue, float64(i.failures.Load()))
}
