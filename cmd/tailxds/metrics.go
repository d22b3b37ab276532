package main

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tailxds/tailxds/internal/topology"
)

// metrics reads the daemon's state when it is scraped, so that no number can
// differ from what /status says.
type metrics struct {
	d *daemon

	age, failures, held, heldEndpoints, degraded, devices, problems, endpoints, weight, envoys, xds, policyBad *prometheus.Desc
}

func newMetrics(d *daemon) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tailxds_"+name, help, labels, nil)
	}
	return &metrics{
		d:             d,
		age:           desc("provider_last_good_age_seconds", "Age of the device list that is served.", "provider"),
		failures:      desc("provider_consecutive_failures", "Failed lists since the last good one.", "provider"),
		held:          desc("provider_held", "1 while a list that lacks too many devices is held.", "provider"),
		heldEndpoints: desc("held_endpoints", "Endpoints that are published against the list.", "service"),
		degraded:      desc("service_degraded", "1 while nobody serves the service, or only who is held.", "service"),
		devices:       desc("devices", "Devices in the list that is served.", "online"),
		problems:      desc("problems", "Tags, grants, attributes and addresses that are ignored."),
		endpoints:     desc("endpoints", "Endpoints by service and state.", "service", "state"),
		weight:        desc("locality_weight", "Weight of a locality.", "service", "priority", "region", "zone"),
		envoys:        desc("xds_streams", "Connected Envoys."),
		xds:           desc("xds_events_total", "Responses sent, ACKs, NACKs and refused streams.", "type", "result"),
		policyBad:     desc("policy_file_bad", "1 while the policy file is bad and the last good policy holds."),
	}
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(c chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, c) }

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(c chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(m.policyBad, one(m.d.policy.Load().err != ""))
	if !m.d.started() {
		return
	}
	s := m.d.watcher.Status()
	if !s.LastGood.IsZero() {
		gauge(m.age, time.Since(s.LastGood).Seconds(), s.Provider)
	}
	gauge(m.failures, float64(s.Failures), s.Provider)
	gauge(m.envoys, float64(len(m.d.server.Streams())))
	for _, n := range m.d.server.Counts() {
		c <- prometheus.MustNewConstMetric(m.xds, prometheus.CounterValue, float64(n.N), n.Type, n.Result)
	}
	if p := m.d.published.Load(); p != nil {
		gauge(m.problems, float64(len(p.problems)))
		gauge(m.held, one(len(p.held) > 0), s.Provider)
		for _, h := range p.held {
			gauge(m.heldEndpoints, float64(len(h.Endpoints)), h.Service)
		}
		for _, d := range p.degraded {
			gauge(m.degraded, 1, d.Service)
		}
		m.collectTopology(gauge, p)
	}
}

func (m *metrics) collectTopology(gauge func(*prometheus.Desc, float64, ...string), p *snapshot) {
	online := 0
	for _, d := range p.devices {
		if d.Online {
			online++
		}
	}
	gauge(m.devices, float64(online), "true")
	gauge(m.devices, float64(len(p.devices)-online), "false")
	for _, s := range p.topology.Services {
		states := map[topology.State]int{topology.Serving: 0}
		for _, l := range s.Localities {
			states[topology.Serving] += len(l.Endpoints)
			gauge(m.weight, float64(l.Weight), s.Name, strconv.Itoa(int(l.Priority)), l.Region, l.Zone)
		}
		for _, e := range s.Idle {
			states[e.State]++
		}
		for state, n := range states {
			gauge(m.endpoints, float64(n), s.Name, string(state))
		}
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
