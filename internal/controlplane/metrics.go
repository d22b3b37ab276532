package controlplane

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/version"
	"github.com/tailxds/tailxds/internal/xds"
)

// metrics reads the daemon's state when it is scraped, so that no number can
// differ from what /status says. deploy/monitoring alerts on them.
type metrics struct {
	d *ControlPlane
	descriptions
}

// descriptions are those of the metrics of a control plane.
type descriptions struct {
	build, ready, age, failures, held, heldEndpoints, degraded, devices, problems, published *prometheus.Desc
	endpoints, besides, weight, envoys, xds, rejected, policyBad, keyExpires, ownKeyExpires  *prometheus.Desc
	linkUp, stateLost, stateUnsaved                                                          *prometheus.Desc
}

// keyWarning is how long before it expires a device's key has a metric.
const keyWarning = 30 * 24 * time.Hour

// scrapeTimeout bounds what a scrape asks the node.
const scrapeTimeout = 2 * time.Second

func newMetrics(d *ControlPlane) *metrics { return &metrics{d, newDescriptions()} }

func newDescriptions() descriptions {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tailxds_"+name, help, labels, nil)
	}
	return descriptions{
		build:         desc("build_info", "1; what the program was built from.", "version", "commit", "goversion"),
		ready:         desc("ready", "1 once resources are served."),
		age:           desc("provider_last_good_age_seconds", "Age of the device list that is served; of the process before there is one.", "provider"),
		failures:      desc("provider_consecutive_failures", "Failed lists since the last good one.", "provider"),
		held:          desc("provider_held", "1 while a list that lacks too many devices is held.", "provider"),
		heldEndpoints: desc("held_endpoints", "Endpoints that are published against the list.", "service"),
		degraded:      desc("service_degraded", "1 while nobody serves the service, or only who is held.", "service"),
		devices:       desc("devices", "Devices in the list that is served.", "online"),
		problems:      desc("problems", "Tags, grants, attributes, regions and devices that are ignored.", "kind"),
		published:     desc("last_publish_timestamp_seconds", "When resources were published last."),
		endpoints:     desc("endpoints", "Endpoints by service, region and state.", "service", "region", "state"),
		besides:       desc("endpoints_with_envoy", "Serving endpoints whose device has an Envoy connected to this control plane.", "service"),
		weight:        desc("locality_weight", "Weight of a locality.", "service", "priority", "region", "zone"),
		envoys:        desc("xds_streams", "Connected Envoys."),
		xds:           desc("xds_events_total", "Responses sent, ACKs, NACKs and refused streams.", "type", "result"),
		rejected:      desc("xds_rejected", "Connected Envoys that reject what they were sent last, by its type.", "type"),
		policyBad:     desc("policy_file_bad", "1 while the policy file is bad and the last good policy holds."),
		keyExpires:    desc("device_key_expiry_timestamp_seconds", "When the node key of an endpoint's device expires, if within 30 days.", "device"),
		linkUp:        desc("coordination_link_up", "1 while the control plane's node is in touch with the coordination server."),
		stateLost:     desc("state_lost", "1 while the saved state could not be read at the start, and no operator accepted that."),
		stateUnsaved:  desc("state_unsaved", "1 while the state cannot be saved."),
		ownKeyExpires: desc("own_key_expiry_timestamp_seconds", "When the control plane's own node key expires, if ever."),
	}
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(c chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, c) }

// gauge sends a value on its way.
type gauge func(d *prometheus.Desc, v float64, labels ...string)

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(c chan<- prometheus.Metric) {
	send := gauge(func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	})
	built := version.Current()
	send(m.build, 1, built.Version, built.Commit, built.Go)
	ready, _ := m.d.readiness()
	send(m.ready, boolValue(ready))
	send(m.policyBad, boolValue(m.d.policy.Load().wrong() != ""))
	send(m.stateLost, boolValue(m.d.lost.Load() != nil))
	send(m.stateUnsaved, boolValue(m.d.stateWriter.writer.Failure().Err != nil))
	s := m.d.links.watcher.Status()
	lastGood := s.LastGood
	if lastGood.IsZero() {
		lastGood = m.d.streamsSince
	}
	send(m.age, time.Since(lastGood).Seconds(), s.Provider)
	send(m.failures, float64(s.Failures), s.Provider)
	m.collectNode(send, s)
	for _, n := range m.d.server.Counts() {
		c <- prometheus.MustNewConstMetric(m.xds, prometheus.CounterValue, float64(n.N), n.Type, n.Result)
	}
	envoys := m.d.server.Streams()
	m.collectEnvoys(send, envoys)
	if p := m.d.published.Load(); p != nil {
		send(m.published, float64(p.at.UnixMilli())/1000)
		send(m.held, boolValue(len(p.held) > 0), s.Provider)
		for _, h := range p.held {
			send(m.heldEndpoints, float64(len(h.Endpoints)), h.Service)
		}
		for _, d := range p.degraded {
			send(m.degraded, 1, d.Service)
		}
		m.collectProblems(send, slices.Concat(p.problems, misplacedEnvoys(envoys)))
		m.collectDevices(send, p)
		for _, s := range p.topology.Services {
			m.collectService(send, s)
		}
	}
}

func (m *metrics) collectNode(send gauge, s provider.Status) {
	if m.d.links.node == nil {
		return
	}
	send(m.linkUp, boolValue(!s.LinkDown))
	// Prometheus gives a collector no context.
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	if at := m.d.links.node.KeyExpiry(ctx); at != nil {
		send(m.ownKeyExpires, float64(at.Unix()))
	}
}

func (m *metrics) collectEnvoys(send gauge, envoys []xds.Stream) {
	send(m.envoys, float64(len(envoys)))
	rejected := make(map[string]int)
	for _, e := range envoys {
		for name, of := range e.Types {
			rejected[name] += int(boolValue(of.Rejected != ""))
		}
	}
	for name, n := range rejected {
		send(m.rejected, float64(n), name)
	}
}

func (m *metrics) collectProblems(send gauge, problems []topology.Problem) {
	kinds := map[string]int{"tag": 0, "attribute": 0, "grant": 0, "region": 0, "device": 0}
	for _, p := range problems {
		kinds[kindOf(p.Subject)]++
	}
	for kind, n := range kinds {
		send(m.problems, float64(n), kind)
	}
}

// kindOf returns what the subject of a problem is.
func kindOf(subject string) string {
	switch {
	case strings.HasPrefix(subject, "tag:"):
		return "tag"
	case strings.HasPrefix(subject, "custom:"):
		return "attribute"
	case strings.HasPrefix(subject, "{"), strings.HasPrefix(subject, "["):
		return "grant"
	case subject == "region":
		return "region"
	default:
		return "device"
	}
}

func (m *metrics) collectDevices(send gauge, p *snapshot) {
	serves := make(map[string]bool)
	for _, s := range p.topology.Services {
		for _, e := range endpointsOf(s) {
			serves[e.Device] = true
		}
	}
	online, sent := 0, make(map[string]bool)
	for _, d := range p.devices {
		if d.Online {
			online++
		}
		// A name twice would fail the whole scrape.
		if d.Expires != nil && serves[d.ID] && time.Until(*d.Expires) < keyWarning && !sent[d.Name] {
			sent[d.Name] = true
			send(m.keyExpires, float64(d.Expires.Unix()), d.Name)
		}
	}
	send(m.devices, float64(online), "true")
	send(m.devices, float64(len(p.devices)-online), "false")
}

func (m *metrics) collectService(send gauge, s topology.Service) {
	type place struct {
		region string
		state  topology.State
	}
	connected := m.d.server.Connected()
	counts, besides := make(map[place]int), 0
	for _, e := range endpointsOf(s) {
		counts[place{e.Region, topology.Serving}] += 0 // 0 also where no endpoint serves
		counts[place{e.Region, e.State}]++
		if e.State == topology.Serving && connected[e.Address.Addr()] {
			besides++
		}
	}
	for at, n := range counts {
		send(m.endpoints, float64(n), s.Name, at.region, string(at.state))
	}
	send(m.besides, float64(besides), s.Name)
	for _, l := range s.Localities {
		send(m.weight, float64(l.Weight), s.Name, strconv.Itoa(int(l.Priority)), l.Region, l.Zone)
	}
}

// endpointsOf are all endpoints of a service, those that serve first.
func endpointsOf(s topology.Service) []topology.Endpoint {
	var all []topology.Endpoint
	for _, l := range s.Localities {
		all = append(all, l.Endpoints...)
	}
	return append(all, s.Idle...)
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
