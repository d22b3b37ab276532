package envoys_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/harness"
)

// failing starts n servers on ports of one host that fail their checks and answer
// requests with their host's name, and returns their devices, without regions.
func failing(t *testing.T, h *harness.Host, n int) []harness.Device {
	t.Helper()
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "Hello from %s!", h.Name)
	})}
	t.Cleanup(func() { _ = server.Close() })
	var devices []harness.Device
	for port := 20001; port <= 20000+n; port++ {
		l, err := h.Listen(fmt.Sprintf(":%d", port))
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(l) }() // until it is closed
		d := h.Device("tag:weight-1", fmt.Sprintf("tag:port-%d", port))
		d.ID, d.Name = fmt.Sprint(port), fmt.Sprintf("%s-%d", h.Name, port)
		devices = append(devices, d)
	}
	return devices
}

// While one endpoint of many is healthy, it alone gets requests; while none is, all
// do. Beyond 100 endpoints that holds where regions and priorities need not be weighed
// against each other, and to 100 everywhere.
func TestPanic_oneHealthyOfMany_getsAllRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	well, sick := r.Server("well"), r.Host("sick")
	bad := failing(t, sick, 149)
	// listed are n devices of which one is healthy, spread over regions, and some of
	// them of a second priority.
	listed := func(n, backups int, regions ...string) []harness.Device {
		all := []harness.Device{well.Device("tag:weight-1", "tag:region-"+regions[0])}
		for i, d := range bad[:n-1] {
			d.Tags = append([]string{"tag:region-" + regions[i%len(regions)]}, d.Tags...)
			if i < backups {
				d.Tags = append(d.Tags, "tag:priority-1")
			}
			all = append(all, d)
		}
		return all
	}
	policy := func(locality, balancing string, requests int) string {
		return fmt.Sprintf("defaults: {locality: %s, load_balancing: %s, health_check: {interval: 1s, unhealthy_threshold: 1}, limits: {requests: %d}}", locality, balancing, requests)
	}
	control := r.ControlPlane(policy("weighted", "round_robin", 70000), listed(150, 0, "west")...)
	entry := control.EnvoyIn("west", "entry")
	laptop := r.Host("laptop")
	for i, test := range []struct {
		locality, balancing string
		devices             []harness.Device
	}{
		{"weighted", "round_robin", listed(150, 0, "west")}, // each time fewer, so that it shows which list Envoy has
		{"weighted", "least_request", listed(149, 0, "west")},
		{"exact", "round_robin", listed(148, 0, "west", "east")},
		{"nearest", "round_robin", listed(147, 0, "west", "east")},
		{"local", "round_robin", listed(146, 0, "west")},
		{"local", "round_robin", listed(145, 0, "west", "east")}, // 73 and 72
		{"exact", "round_robin", listed(144, 75, "west")},
		{"weighted", "round_robin", listed(100, 0, "west", "east")},
	} {
		name := fmt.Sprintf("%s, %s, %d endpoints", test.locality, test.balancing, len(test.devices))
		control.SetDevices(test.devices...)
		control.SetPolicy(policy(test.locality, test.balancing, 70000+i))
		awaitLimit(r, entry, 70000+i)
		entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 1, "cluster.server.membership_total": len(test.devices)})
		before := entry.Stat("cluster.server.lb_healthy_panic")
		if got := laptop.Ask(100, harness.Get(entry.URL(10000), "")); got.Counts["Hello from well! in nowhere"] != 100 {
			t.Errorf("%s: %v, %d failed: %s", name, got.Counts, got.Failed, got.Reasons)
		}
		if n := entry.Stat("cluster.server.lb_healthy_panic") - before; n != 0 {
			t.Errorf("%s: Envoy panicked %d times", name, n)
		}

		// With none healthy, all are tried.
		well.SetUnhealthy(true)
		entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 0, "cluster.server.membership_total": len(test.devices)})
		if got := laptop.Ask(50, harness.Get(entry.URL(10000), "")); got.Failed > 0 || got.Counts["Hello from sick!"] == 0 {
			t.Errorf("%s, none healthy: %v, %d failed: %s", name, got.Counts, got.Failed, got.Reasons)
		}
		well.SetUnhealthy(false)
	}
	if rejected := control.Rejected(); rejected != "" {
		t.Errorf("Envoy rejected: %s", rejected)
	}
}
