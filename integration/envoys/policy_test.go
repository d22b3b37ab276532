package envoys_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/envoys"
)

// The control plane looks at its policy file once a second.
const soon = 3 * time.Second

// A policy edit acts at once, on clusters, routes and listener, and costs no
// request, safe to repeat or not.
func TestAPolicyEditActsAtOnceAndCostsNoRequest(t *testing.T) {
	t.Parallel()
	r := envoys.New(t, programs)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("", a.Device("tag:weight-1"), b.Device("tag:weight-2"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 2)
	laptop := r.Host("laptop")
	gets, posts := laptop.Flow(4, envoys.Get(entry.URL(10000), "")), laptop.Flow(4, envoys.Post(entry.URL(10000), ""))

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
		r.Await("the edit acts", func() error {
			page, err := entry.Admin("/clusters")
			if err == nil && !strings.Contains(page, fmt.Sprintf("server::default_priority::max_requests::%d\n", requests)) {
				err = fmt.Errorf("not yet")
			}
			return err
		})
		took := time.Since(start)
		t.Logf("edit %d acted after %s", i, took.Round(time.Millisecond))
		if took > soon {
			t.Errorf("the edit %q took %s", edit, took)
		}
		entry.AwaitHealthy("server", 2)
		gets.More(r, 200)
		posts.More(r, 200)
	}
	for name, load := range map[string]*envoys.Load{"GET": gets, "POST": posts} {
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

// An edit that is taken back while Envoy still follows it leaves what was.
func TestAnEditThatIsTakenBack(t *testing.T) {
	t.Parallel()
	r := envoys.New(t, programs)
	a, b := r.Server("a"), r.Server("b")
	control := r.ControlPlane("", a.Device("tag:weight-1"))
	entry := control.Envoy("entry")
	entry.AwaitHealthy("server", 1)
	load := r.Host("laptop").Flow(4, envoys.Get(entry.URL(10000), ""))
	for _, text := range []string{"defaults: {limits: {requests: 7777}}", "", "defaults: {limits: {requests: 7777}}", ""} {
		control.SetPolicy(text)
		want := "max_requests::100000\n"
		if text != "" {
			want = "max_requests::7777\n"
		}
		r.Await("the edit acts", func() error {
			page, err := entry.Admin("/clusters")
			if err == nil && !strings.Contains(page, want) {
				err = fmt.Errorf("not yet")
			}
			return err
		})
	}
	control.SetDevices(a.Device("tag:weight-1"), b.Device("tag:weight-1"))
	entry.AwaitHealthy("server", 2)
	if tally := load.Stop(); tally.Failed > 0 {
		t.Errorf("%d requests failed: %s", tally.Failed, tally.Reasons)
	}
}
