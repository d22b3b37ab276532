package envoys_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/alerts"
	"github.com/tailxds/tailxds/integration/harness"
)

// watch is what Prometheus would make of a control plane.
type watch struct {
	t       *testing.T
	rig     *harness.Rig
	control *harness.ControlPlane
	rules   alerts.Rules
	fired   map[string]bool // names of alerts
}

// fire waits until just these alerts fire, each as NAME{label="value"}.
func (w *watch) fire(when string, want ...string) {
	w.t.Helper()
	slices.Sort(want)
	w.rig.Await("alerts "+when, func() error {
		got, err := w.rules.Firing(w.t.Context(), w.control.Metrics())
		if err == nil && !slices.Equal(got, want) {
			err = fmt.Errorf("%v fire, want %v", got, want)
		}
		return err
	})
	for _, alert := range want {
		name, _, _ := strings.Cut(alert, "{")
		w.fired[name] = true
	}
}

// Each alert of deploy/monitoring fires when its fault is there, and is silent
// before and after.
func TestAlerts_realFault_fires(t *testing.T) {
	t.Parallel()
	rules, err := alerts.Load("../../deploy/monitoring/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	a, b, c, d, e := r.Host("a"), r.Host("b"), r.Host("c"), r.Host("d"), r.Host("e")
	devices := []harness.Device{a.Device("tag:weight-1", "tag:region-west"), b.Device("tag:weight-1", "tag:region-east")}
	control := r.ControlPlane("", devices...)
	control.EnvoyOn(a)
	control.EnvoyOn(b)
	w := &watch{t: t, rig: r, control: control, rules: rules, fired: make(map[string]bool)}
	w.fire("while all is well")

	control.SetPolicy("defaults: {retries: many}")
	w.fire("with a bad policy file", "TailxdsPolicyFileBad{}")
	control.SetPolicy("")
	w.fire("with a mended policy file")

	wrong := slices.Clone(devices)
	wrong[0] = a.Device("tag:weight-1", "tag:region-west", "tag:port-http")
	control.SetDevices(wrong...)
	w.fire("with a bad tag", `TailxdsProblems{kind="device"}`, `TailxdsProblems{kind="tag"}`)

	expiring := slices.Clone(devices)
	expiring[0].Expires = time.Now().Add(6 * 24 * time.Hour).UTC().Format(time.RFC3339)
	control.SetDevices(expiring...)
	w.fire("with a key that expires", `TailxdsDeviceKeyExpires{device="a"}`)
	control.SetDevices(devices...)
	w.fire("with a key that does not")

	control.EnvoyWithoutIPv6("laptop")
	w.fire("with an Envoy that has no IPv6", `TailxdsConfigurationRejected{type="listeners"}`)
	control.SetPolicy("ingress: {allow: [100.64.0.0/10]}")
	w.fire("with a policy that wants no IPv6")

	// A service of three without Envoys.
	without := `TailxdsServerWithoutEnvoy{service="batch"}`
	batch := []harness.Device{
		c.Device("tag:service-batch", "tag:region-west"), d.Device("tag:service-batch", "tag:region-east"), e.Device("tag:service-batch", "tag:region-east"),
	}
	control.Stop()
	control.SetDevices(slices.Concat(devices, batch)...)
	control.Start("--offline-grace", "0s", "--hold-for", "1h")
	w.fire("with servers without Envoys", without)

	batch[0].Online = false
	control.SetDevices(slices.Concat(devices, batch)...)
	w.fire("with a region that is down", without, `TailxdsRegionNotServed{region="west", service="batch"}`)
	batch[0].Online = true
	control.SetDevices(slices.Concat(devices, batch)...)
	w.fire("with a region that is back", without)

	control.SetDevices(slices.Concat(devices, batch[:1])...)
	w.fire("with a list that lacks too many", without, `TailxdsRemovalHeld{service="batch"}`)
	control.SetDevices(devices...)
	w.fire("with a list that lacks all", without, `TailxdsRemovalHeld{service="batch"}`, `TailxdsServiceNotServed{service="batch"}`)
	control.SetDevices(slices.Concat(devices, batch)...)
	w.fire("with a list that is whole again", without)
	control.AwaitState(`"held":`)

	// Stopped, and started again without its source, hours later.
	control.Stop()
	w.fire("without a control plane", "TailxdsControlPlaneDown{}")
	control.SetDevicesText("[")
	listed := regexp.MustCompile(`"list":"[^"]*"`)
	control.EditState(func(document []byte) []byte {
		if len(listed.FindAll(document, -1)) != 1 {
			t.Fatalf("the memory does not say once when the last list was taken: %s", document)
		}
		return listed.ReplaceAll(document, fmt.Appendf(nil, `"list":%q`, time.Now().Add(-time.Hour).Format(time.RFC3339)))
	})
	control.Start()
	w.fire("with an old list", without, "TailxdsSourceTooOld{}")
	control.Stop()
	control.EditState(func([]byte) []byte { return nil })
	control.Launch("--provider", "headscale", "--api-url", "http://127.0.0.1:1", "--api-token", "unused")
	w.fire("with no list at all", "TailxdsNotReady{}")
	control.Stop()
	control.SetDevices(devices...)
	control.Start("--provider", "file")
	w.fire("in the end")

	for _, name := range rules.Names() {
		if !w.fired[name] && name != "TailxdsOwnKeyExpires" && name != "TailxdsLinkDown" { // see integration/alerts
			t.Errorf("%s was never seen to fire", name)
		}
	}
}
