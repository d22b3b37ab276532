package envoys_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

// Servers that report how loaded they are get what they can carry, whatever
// their weights say: the lab's own servers, in each mode that goes with it.
// Those of other regions weigh as their regions do, where regions weigh.
func TestLoadBalancing_serversReportLoad_sharesFollow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var devices []harness.Device
	for name, capacity := range map[string]int{"a": 100_000, "b": 300_000, "c": 200_000} {
		region := map[string]string{"a": "west", "b": "west", "c": "east"}[name]
		server := r.LabServer(name, fmt.Sprintf("CAPACITY=%d", capacity))
		device := server.Device()
		for _, mode := range []string{"weighted", "exact", "local"} {
			device.Grants = append(device.Grants, map[string]any{"service": mode, "weight": 2, "region": region})
		}
		devices = append(devices, device)
	}
	control := r.ControlPlane(`
defaults: {load_balancing: client_side_weighted_round_robin}
services: {weighted: {}, exact: {locality: exact}, local: {locality: local}}
`, devices...)
	entry := control.EnvoyIn("west", "entry")
	for _, mode := range []string{"weighted", "exact", "local"} {
		entry.AwaitHealthy(mode, 3)
	}
	// Envoy believes a server that has reported for ten seconds, for each service
	// by itself: so they are all asked in turn.
	r.Await("the shares of what each can carry", func() error {
		var errs []error
		for _, test := range []struct {
			mode       string
			want, even shares.Shares
		}{
			{"weighted", shares.Shares{"a": 1. / 4 * 2 / 3, "b": 3. / 4 * 2 / 3, "c": 1. / 3}, shares.Shares{"a": 1, "b": 1, "c": 1}}, // west weighs 4, east 2
			{"exact", shares.Shares{"a": 1, "b": 3, "c": 2}, shares.Shares{"a": 1, "b": 1, "c": 1}},
			{"local", shares.Shares{"a": 1, "b": 3}, shares.Shares{"a": 1, "b": 1}},
		} {
			if err := entry.CheckShares(harness.Get(entry.URL(10000), test.mode), test.want, test.even); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", test.mode, err))
			}
		}
		return errors.Join(errs...)
	})
	if rejected := control.Rejected(); rejected != "" {
		t.Errorf("Envoy rejected: %s", rejected)
	}
}

// Envoy's random balancer ignores the weights of servers; regions keep theirs.
func TestLoadBalancing_random_ignoresWeightsWithinARegion(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var devices []harness.Device
	for name, tags := range map[string][]string{
		"a": {"tag:weight-1", "tag:region-west"}, "b": {"tag:weight-3", "tag:region-west"}, "c": {"tag:weight-4", "tag:region-east"},
	} {
		devices = append(devices, r.Server(name).Device(tags...))
	}
	control := r.ControlPlane("defaults: {load_balancing: random}", devices...)
	entry := control.EnvoyIn("west", "entry")
	entry.AwaitHealthy("server", 3)
	drawn, byWeight := shares.Shares{"a": 1, "b": 1, "c": 2}, shares.Shares{"a": 1, "b": 3, "c": 4}
	if err := entry.CheckShares(harness.Get(entry.URL(10000), "server"), drawn, byWeight); err != nil {
		t.Error(err)
	}
}
