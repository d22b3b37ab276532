package controlplane_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/controlplane"
	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
	"github.com/tailxds/tailxds/internal/topology"
)

func TestRun_edits_act(t *testing.T) {
	c := controlplanetest.New(t)
	c.Write("devices.json", controlplanetest.DeviceList("a=tag:weight-1", "b=tag:weight-2", "c=tag:weight-3", "d=tag:weight-4"))
	c.Write("policy.yaml", "defaults: {retries: 1}\n")
	c = controlplanetest.Start(t, c.Dir)
	c.AwaitWeights("a=1 b=2 c=3 d=4")

	t.Run("a changed tag acts", func(t *testing.T) {
		c.Write("devices.json", controlplanetest.DeviceList("a=tag:weight-9", "b=tag:weight-2", "c=tag:weight-3", "d=tag:weight-4"))
		c.AwaitWeights("a=9 b=2 c=3 d=4")
	})
	t.Run("a bad tag is a problem and costs nothing", func(t *testing.T) {
		c.Write("devices.json", controlplanetest.DeviceList("a=tag:weight-nine", "b=tag:weight-5", "c=tag:weight-3", "d=tag:weight-4"))
		c.AwaitWeights("a=9 b=5 c=3 d=4")
		if p := c.Status().Problems; len(p) != 2 || p[0].Subject != "tag:weight-nine" {
			t.Errorf("problems: %+v", p)
		}
		if _, metrics := c.Do(http.MethodGet, "/metrics"); !strings.Contains(metrics, "tailxds_problems{kind=\"device\"} 1\n") || !strings.Contains(metrics, "tailxds_problems{kind=\"tag\"} 1\n") {
			t.Errorf("the metric does not say 2 problems:\n%s", metrics)
		}
		if n := strings.Count(c.Log.String(), "subject=tag:weight-nine"); n != 1 {
			t.Errorf("the problem was logged %d times, want once", n)
		}
	})
	t.Run("a bad file leaves the last good devices", func(t *testing.T) {
		c.Write("devices.json", `[{"id":`)
		c.Await("an error", func() bool { p := c.Status().Provider; return p != nil && p.Error != "" })
		if code, detail := c.Do(http.MethodGet, "/readyz"); code != http.StatusOK || !strings.Contains(detail, "ready, but") {
			t.Errorf("readyz: %d %s", code, detail)
		}
		c.AwaitWeights("a=9 b=5 c=3 d=4")
	})
	t.Run("a list without most devices is held until accepted", func(t *testing.T) {
		c.Write("devices.json", controlplanetest.DeviceList("a=tag:weight-7"))
		c.Await("a held list", func() bool { return len(c.Status().Held) == 1 })
		if got := c.Weights(); got != "a=7 b=5 c=3 d=4" {
			t.Errorf("while it is held: %s", got)
		}
		if code, body := c.Do(http.MethodPost, "/accept"); code != http.StatusOK {
			t.Errorf("accept: %d %s", code, body)
		}
		c.AwaitWeights("a=7")
		if code, body := c.Do(http.MethodPost, "/accept"); code != http.StatusConflict {
			t.Errorf("accept with nothing held: %d %s", code, body)
		}
	})
	t.Run("a bad policy leaves the last good one", func(t *testing.T) {
		c.Write("policy.yaml", "defaults: {retries: many}\n")
		c.Await("a policy error", func() bool { return strings.Contains(c.Status().Policy.Error, "policy.yaml") })
		c.Write("policy.yaml", "defaults: {retries: 2}\n")
		c.Await("the mended policy", func() bool { return c.Status().Policy.Error == "" })
	})
	t.Run("a key that expires takes its device out, without a new list", func(t *testing.T) {
		soon := time.Now().Add(1500 * time.Millisecond)
		text, err := json.Marshal([]topology.Device{
			{ID: "1", Name: "a", Addresses: []string{"100.64.0.1"}, Tags: []string{"tag:weight-7"}, Online: true},
			{ID: "2", Name: "b", Addresses: []string{"100.64.0.2"}, Tags: []string{"tag:weight-2"}, Online: true, Expires: &soon},
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Write("devices.json", string(text))
		c.AwaitWeights("a=7 b=2")
		c.AwaitWeights("a=7")
		if idle := c.Status().Services[0].Idle; len(idle) != 1 || idle[0].State != topology.Expired {
			t.Errorf("idle: %+v", idle)
		}
	})
	t.Run("no secret shows", func(t *testing.T) {
		_, status := c.Do(http.MethodGet, "/status")
		if all := status + c.Log.String(); strings.Contains(all, "the-secret") {
			t.Errorf("a secret shows:\n%s", all)
		}
	})
}

// A control plane whose source is down when it starts serves what it served
// last, and says that it is stale.
func TestRun_sourceAwayAtStart_servesSavedState(t *testing.T) {
	c := controlplanetest.New(t)
	c.Write("devices.json", controlplanetest.DeviceList("a=tag:weight-1", "b=tag:weight-2"))
	c.Write("policy.yaml", "")
	c = controlplanetest.Start(t, c.Dir)
	c.AwaitWeights("a=1 b=2")
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(c.Dir, "devices.json")); err != nil {
		t.Fatal(err)
	}
	c = controlplanetest.Start(t, c.Dir)
	c.AwaitWeights("a=1 b=2")
	if s := c.Status(); !s.Ready || !s.Provider.Stale {
		t.Errorf("status: %+v", s)
	}
}

// With port 0 only the control plane knows where it listens.
func TestRun_listening_savesAddressesUntilItEnds(t *testing.T) {
	t.Parallel()
	c := controlplanetest.Trial(t, controlplanetest.Machines(1, "tag:weight-1"))
	c.AwaitWeights("d01=1")
	state := filepath.Join(c.Dir, "state")
	a, err := api.ReadAddresses(state)
	if err != nil {
		t.Fatal(err)
	}
	for what, address := range map[string]string{"admin": a.Admin, "xDS": a.XDS} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatalf("the %s address %q: %v", what, address, err)
		}
		_ = conn.Close()
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if a, err := api.ReadAddresses(state); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end: %+v, %v; want no file", a, err)
	}
}

// Two control planes with one state would throw each other off the tailnet.
func TestRun_stateDirectoryInUse_isRefused(t *testing.T) {
	t.Parallel()
	c := controlplanetest.Trial(t, controlplanetest.Machines(1, "tag:weight-1"))
	err := controlplane.Run(t.Context(), controlplane.Config{
		Provider: "file", Devices: filepath.Join(c.Dir, "devices.json"), Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", StateDir: filepath.Join(c.Dir, "state"),
		Rules: topology.Rules{DefaultService: "server", DefaultPort: 8080},
	}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "is in use by another control plane: stop it, or give this one its own with --state-dir") {
		t.Errorf("a second one: %v", err)
	}
	c.Restart().AwaitWeights("d01=1") // it is given back
}
