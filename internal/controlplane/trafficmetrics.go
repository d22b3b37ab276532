package controlplane

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tailxds/tailxds/internal/api"
)

// trafficMetrics exposes what Envoys measured, as /traffic does. The counters are
// Envoy's own (--envoy-metrics); these are what only all of them together know.
type trafficMetrics struct {
	look func() api.Traffic

	reporting, requests, errors, crossing, unhealthy, share *prometheus.Desc
}

func newTrafficMetrics(look func() api.Traffic) trafficMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tailxds_"+name, help, labels, nil)
	}
	return trafficMetrics{
		look:      look,
		reporting: desc("envoys_reporting", "Envoys that reported of late what they measured."),
		requests:  desc("service_requests_per_second", "Requests to the service, of all Envoys that report.", "service"),
		errors:    desc("service_errors_per_second", "Requests that failed: 5xx, a reset or a timeout.", "service"),
		crossing:  desc("service_crossing_ratio", "Share of the requests that were sent to another region than they entered in.", "service"),
		unhealthy: desc("endpoints_unhealthy", "Serving endpoints that every Envoy which reports finds unhealthy.", "service"),
		share:     desc("endpoint_share_ratio", "Share of the service's requests, by kind: expected or observed.", "service", "device", "address", "kind"),
	}
}

// Describe implements [prometheus.Collector].
func (m trafficMetrics) Describe(c chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, c) }

// Collect implements [prometheus.Collector].
func (m trafficMetrics) Collect(c chan<- prometheus.Metric) {
	send := gauge(func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	})
	doc := m.look()
	send(m.reporting, float64(doc.Reporting()))
	for _, t := range doc.Services {
		send(m.requests, t.Requests, t.Service)
		send(m.errors, t.Errors, t.Service)
		send(m.crossing, t.Crossing, t.Service)
		unhealthy := 0
		seen := make(map[string]bool)
		for _, s := range t.Servers {
			if s.Unhealthy() {
				unhealthy++
			}
			// A device that is away can be known twice by an address, and no metric may.
			if at := s.Name + s.Address.String(); !seen[at] {
				seen[at] = true
				send(m.share, s.Expected, t.Service, s.Name, s.Address.String(), "expected")
				send(m.share, s.Observed, t.Service, s.Name, s.Address.String(), "observed")
			}
		}
		send(m.unhealthy, float64(unhealthy), t.Service)
	}
}
