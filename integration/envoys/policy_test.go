package envoys_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/harness"
)

// The control plane looks at its policy file once a second.
const soon = 3 * time.Second

// A policy edit acts at once, on clusters, routes and listener, and costs no
// request, safe to repeat or not.
func TestPolicyEdit_underLoad_noRequestFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("", a.Device("tag:weight-1"), b.Device("tag:weight-2"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 2)
	laptop := r.Host("laptop")
	gets, posts := laptop.Flow(4, harness.Get(entry.URL(10000), "")), laptop.Flow(4, harness.Post(entry.URL(10000), ""))

	edits := []string{
		"defaults: {limits: {requests: %d}}",
		"defaults: {limits: {requests: %d}, health_check: {path: /healthz?, interval: 500ms}}",
		"defaults: {limits: {requests: %d}, load_balancing: least_request, connect_timeout: 1s}",
		"defaults: {limits: {requests: %d}, timeout: 5s, retries: 1, outlier_detection: {consecutive_5xx: 9}}",
		"{defaults: {limits: {requests: %d}}, ingress: {allow: [tailnet, 10.0.0.0/8]}, services: {server: {hosts: [x.io]}}}",
		"defaults: {limits: {requests: %d}}", // as the first, under the same name but for the number
	}
	for i, edit := range edits {
		requests := 50000 + i
		start := time.Now()
		control.SetPolicy(fmt.Sprintf(edit, requests))
		awaitLimit(r, entry, requests)
		took := time.Since(start)
		t.Logf("edit %d acted after %s", i, took.Round(time.Millisecond))
		if took > soon {
			t.Errorf("the edit %q took %s", edit, took)
		}
		entry.AwaitHealthy("server", 2)
		gets.AwaitMore(r, 200)
		posts.AwaitMore(r, 200)
	}
	for name, load := range map[string]*harness.Load{"GET": gets, "POST": posts} {
		tally := load.Stop()
		t.Logf("%s: %d answered", name, tally.Answered())
		if tally.Failed > 0 {
			t.Errorf("%d of %d %ss failed: %s", tally.Failed, tally.Failed+tally.Answered(), name, tally.Reasons)
		}
	}
	if rejected := control.Rejected(); rejected != "" {
		t.Errorf("Envoy rejected: %s", rejected)
	}

	// What changes afterwards arrives, under the name that is asked for now.
	control.SetDevices(a.Device("tag:weight-1"))
	control.SetDevices(a.Device("tag:weight-1"), b.Device("tag:weight-2"), r.Server("c").Device("tag:weight-1"))
	entry.AwaitHealthy("server", 3)
}

// The name of a new service is the default service's until the new one can
// answer: its routes wait for the first health check of its servers.
func TestPolicyEdit_newService_noRequestFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 1)
	b.SetHealthCheckDelay(700 * time.Millisecond) // within the check's timeout of 1 s
	load := r.Host("laptop").Flow(4, harness.Get(entry.URL(10000), "fresh"))
	load.AwaitMore(r, 200)
	control.SetDevices(a.Device("tag:weight-1"), b.Device("tag:service-fresh"))
	r.Await("the new service answers", func() error {
		if b.Served.Load() == 0 {
			return errors.New("nobody asked it")
		}
		return nil
	})
	load.AwaitMore(r, 200)
	if tally := load.Stop(); tally.Failed > 0 {
		t.Errorf("%d of %d requests failed: %s", tally.Failed, tally.Failed+tally.Answered(), tally.Reasons)
	}
}

// An edit that is taken back while Envoy still follows it leaves what was.
func TestPolicyEdit_takenBack_leavesWhatWas(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 1)
	load := r.Host("laptop").Flow(4, harness.Get(entry.URL(10000), ""))
	for _, text := range []string{"defaults: {limits: {requests: 7777}}", "", "defaults: {limits: {requests: 7777}}", ""} {
		control.SetPolicy(text)
		if text == "" {
			awaitLimit(r, entry, 100000)
		} else {
			awaitLimit(r, entry, 7777)
		}
	}
	control.SetDevices(a.Device("tag:weight-1"), b.Device("tag:weight-1"))
	entry.AwaitHealthy("server", 2)
	if tally := load.Stop(); tally.Failed > 0 {
		t.Errorf("%d requests failed: %s", tally.Failed, tally.Reasons)
	}
}

// A server that is away keeps an edit waiting for one health check, and no
// longer: the new cluster is taken once each of its servers was asked.
func TestPolicyEdit_serverAway_actsAfterOneCheck(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.Server("a")
	gone := harness.Device{ID: "gone", Name: "gone", Addresses: []string{"100.64.99.99"}, Tags: []string{"tag:weight-1"}, Online: true}
	control := r.ControlPlane("", a.Device("tag:weight-1"), gone)
	entry := control.Envoy("entry")
	entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 1, "cluster.server.membership_total": 2})
	load := r.Host("laptop").Flow(4, harness.Post(entry.URL(10000), ""))
	start := time.Now()
	control.SetPolicy("defaults: {limits: {requests: 7777}}")
	awaitLimit(r, entry, 7777)
	if took := time.Since(start); took > 2*soon {
		t.Errorf("the edit took %s", took)
	}
	load.AwaitMore(r, 200)
	if tally := load.Stop(); tally.Failed > 0 {
		t.Errorf("%d requests failed: %s", tally.Failed, tally.Reasons)
	}
}

// An Envoy whose control plane comes back with another policy asks for a name
// that is served no more. It keeps what it has until it has the new one.
func TestPolicyEdit_controlPlaneAway_noRequestFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 1)
	load := r.Host("laptop").Flow(4, harness.Post(entry.URL(10000), ""))
	control.Stop()
	entry.AwaitStats(map[string]int{"control_plane.connected_state": 0})
	control.SetPolicy("defaults: {limits: {requests: 7777}}")
	control.SetDevices(a.Device("tag:weight-1"), b.Device("tag:weight-1"))
	load.AwaitMore(r, 200)
	control.Start()
	awaitLimit(r, entry, 7777)
	entry.AwaitHealthy("server", 2)
	load.AwaitMore(r, 200)
	if tally := load.Stop(); tally.Failed > 0 {
		t.Errorf("%d requests failed: %s", tally.Failed, tally.Reasons)
	}
}

// awaitLimit waits until Envoy's cluster has so many requests for its limit.
func awaitLimit(r *harness.Rig, e *harness.Envoy, requests int) {
	r.Await("the edit acts", func() error {
		page, err := e.Admin("/clusters")
		if err == nil && !strings.Contains(page, fmt.Sprintf("server::default_priority::max_requests::%d\n", requests)) {
			err = fmt.Errorf("the limit is not %d yet", requests)
		}
		return err
	})
}
