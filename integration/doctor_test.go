package integration_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/engine"
)

// aHostIsExamined runs `tailxds doctor --control-plane` where a tailscaled and an
// Envoy of their own are: on the laptop, on a server whose resolver does not ask
// MagicDNS, and on the laptop again without the tag that lets it in. What doctor
// says of the mend is done, and it finds nothing more.
func aHostIsExamined(ctx context.Context, t *testing.T, w *walk) {
	w.bringProgram(ctx, t)
	says := func(device, controlPlane string, want ...string) error {
		// It fails where a check does; what it says is held, not that.
		said, err := engine.Exec(ctx, w.Container(device), "tailxds", "doctor", "--control-plane", controlPlane)
		if err != nil {
			said = err.Error()
		}
		said = strings.Join(strings.Fields(said), " ")
		for _, words := range want {
			if !strings.Contains(said, words) {
				return fmt.Errorf("on %s doctor says %q, which lacks %q", device, said, words)
			}
		}
		return nil
	}
	well := []string{
		"PASS name of the control plane 100.64.", "PASS control plane's port tsnet-dynamic-eds:18000 can be reached", "PASS let in",
		"PASS tailscaled as laptop.tailnet.lab tag:laptop tag:region-west",
		"WARN direct path to the control plane by relay lab", // the lab has no other
		"PASS Envoy 1.40.0, connected to the control plane", " 5 passed, 1 to look at, 0 failed",
	}
	await(ctx, t, func() error { return says("laptop", "tsnet-dynamic-eds", well...) })
	if err := says("west-1", "tsnet-dynamic-eds", "WARN name of the control plane its tailscaled knows it, 100.64.", "PASS let in", "→ run `tailscale set --accept-dns=true`; or leave it", " 0 failed"); err != nil {
		t.Error(err)
	}

	laptop, err := w.Node(ctx, "laptop")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.SetTags(ctx, laptop, "tag:region-west"); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, func() error {
		return says("laptop", "tsnet-dynamic-eds", "FAIL let in the control plane refuses this host: device laptop.tailnet.lab", "→ give it a weight or a service by tag, grant or attribute, or let --allow name a tag of it")
	})
	if err := w.SetTags(ctx, laptop, laptop.Tags...); err != nil { // tag:laptop, which --allow names
		t.Fatal(err)
	}
	await(ctx, t, func() error { return says("laptop", "tsnet-dynamic-eds", well...) })
}

// bringProgram puts the control plane's program where the devices have their client.
func (w *walk) bringProgram(ctx context.Context, t *testing.T) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "tailxds")
	volume := w.Run.ID + "-program"
	for _, command := range [][]string{
		{"cp", w.Container("control-plane") + ":/usr/local/bin/tailxds", program},
		{"create", "--name", volume, "--label", engine.Label + "=" + w.Run.ID, "--volume", w.Project + "_shared:/lab", w.Probe.Image()},
		{"cp", program, volume + ":/lab/tailxds"},
		{"rm", volume},
	} {
		if _, err := engine.Docker(ctx, command...); err != nil {
			t.Fatal(err)
		}
	}
}
