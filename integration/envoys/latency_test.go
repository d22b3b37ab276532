package envoys_test

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/repository"

	"github.com/tailxds/tailxds/integration/harness"
)

const (
	// between is how long a message is on its way from one region to the other and
	// its answer back.
	between = 40 * time.Millisecond
	// inWest and inEast are how many requests a second enter there.
	inWest, inEast = 180, 120
	// learning is how long requests flow before they are measured where the mode
	// learns where they enter; warming is the same for others.
	learning, warming, measuring = 60 * time.Second, 3 * time.Second, 20 * time.Second
)

// BenchmarkRegions is how long requests take their callers, how many cross between
// two regions, and how far the servers' shares are from their weights: by two of
// our modes, and by a static Envoy that prefers its own region, as one would write
// it by hand. Servers weigh 1 and 3 in west, 2 and 2 in east; of the requests 60 %
// enter in west, so that at least 10 % have to cross. `make bench` runs it.
func BenchmarkRegions(b *testing.B) {
	if buildErr != nil {
		b.Fatal(buildErr)
	}
	dir := b.TempDir()
	if err := repository.Build(b.Context(), dir, "./cmd/client", "./lab/init"); err != nil {
		b.Fatal(err)
	}
	for _, mode := range []string{"nearest", "weighted", "failover"} {
		b.Run(mode, func(b *testing.B) {
			for b.Loop() {
				before := warming
				if mode == "nearest" {
					before = learning
				}
				newAtlas(b, dir, mode).measure(b, before)
			}
		})
	}
}

// placed is a server, where it is and what it weighs.
type placed struct {
	name, region string
	weight       int
}

func placedServers() []placed {
	return []placed{{"a", "west", 1}, {"b", "west", 3}, {"c", "east", 2}, {"d", "east", 2}}
}

// atlas is two regions with two servers and an entry each.
type atlas struct {
	*harness.Rig
	client  string
	entries map[string]*harness.Envoy // by region
}

func newAtlas(b *testing.B, tools, mode string) atlas {
	w := atlas{Rig: harness.New(b, programs), client: filepath.Join(tools, "client"), entries: map[string]*harness.Envoy{}}
	hosts, lines, devices := map[string][]*harness.Host{}, map[string]string{}, []harness.Device{}
	for _, s := range placedServers() {
		server := w.Server(s.name)
		hosts[s.region] = append(hosts[s.region], server.Host)
		lines[s.region] += fmt.Sprintf("        - endpoint: {address: {socket_address: {address: %s, port_value: %d}}}\n          load_balancing_weight: %d\n",
			server.V4, harness.ServerPort, s.weight)
		devices = append(devices, server.Device(fmt.Sprintf("tag:weight-%d", s.weight), "tag:region-"+s.region))
	}
	var control *harness.ControlPlane
	if mode != "failover" {
		control = w.ControlPlane("defaults: {locality: "+mode+"}", devices...)
	}
	for region, other := range map[string]string{"west": "east", "east": "west"} {
		if control != nil {
			w.entries[region] = control.EnvoyIn(region, "entry-"+region)
		} else {
			w.entries[region] = w.StaticEnvoy("entry-"+region, byHand(lines[region], lines[other]))
		}
		w.entries[region].Slow(filepath.Join(tools, "init"), between, hosts[other]...)
		w.entries[region].AwaitHealthy("server", 4)
	}
	return w
}

// byHand is a static Envoy that sends requests to its own region, and to the other
// what that can no longer carry. It is given the lines of each region's servers.
func byHand(own, other string) string {
	localities := "      - priority: 0\n        lb_endpoints:\n" + own + "      - priority: 1\n        lb_endpoints:\n" + other
	return `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 0.0.0.0, port_value: 10000}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: server}}]}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: server
    type: STATIC
    connect_timeout: 2s
    health_checks:
    - {timeout: 1s, interval: 1s, unhealthy_threshold: 2, healthy_threshold: 1, http_health_check: {path: /healthz}}
    load_assignment:
      cluster_name: server
      endpoints:
` + localities
}

// counted is what a client prints.
type counted struct {
	Failed  int
	Answers []struct {
		Text  string
		Count int
	}
	Latency map[string]float64 `json:"latency_ms"`
}

// measure sends requests to both entries at once, and tells what came of it.
func (w atlas) measure(b *testing.B, before time.Duration) {
	rates := map[string]int{"west": inWest, "east": inEast}
	ask := func(long time.Duration) map[string]counted {
		var mu sync.Mutex
		all, running := map[string]counted{}, sync.WaitGroup{}
		for region, entry := range w.entries {
			laptop := w.Host("laptop-" + region)
			running.Go(func() {
				text, err := laptop.Run(w.client, "--rate", fmt.Sprint(rates[region]), "--duration", long.String(), "-o", "json", entry.URL(10000))
				var c counted
				if err == nil {
					err = json.Unmarshal([]byte(text), &c)
				}
				if err != nil || c.Failed > 0 {
					b.Errorf("%s: %v\n%s", region, err, text)
				}
				mu.Lock()
				defer mu.Unlock()
				all[region] = c
			})
		}
		running.Wait()
		return all
	}
	ask(before)
	home, weights := map[string]string{}, 0
	for _, s := range placedServers() {
		home[s.name], weights = s.region, weights+s.weight
	}
	got, crossing, sum := map[string]int{}, 0, 0
	for region, c := range ask(measuring) {
		for _, answer := range c.Answers {
			name := strings.TrimSuffix(strings.Fields(answer.Text)[2], "!") // "Hello from a! in nowhere"
			got[name] += answer.Count
			sum += answer.Count
			if home[name] != region {
				crossing += answer.Count
			}
		}
		b.ReportMetric(c.Latency["p50"], region+"-p50-ms")
		b.ReportMetric(c.Latency["p99"], region+"-p99-ms")
	}
	if sum == 0 {
		b.Fatal("nobody answered")
	}
	off := 0.0
	for _, s := range placedServers() {
		off = max(off, 100*math.Abs(float64(got[s.name])/float64(sum)-float64(s.weight)/float64(weights)))
	}
	b.ReportMetric(100*float64(crossing)/float64(sum), "crossing-%")
	b.ReportMetric(off, "off-points")
	b.ReportMetric(0, "ns/op") // it is no time to compare
}
