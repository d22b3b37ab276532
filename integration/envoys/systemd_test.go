package envoys_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tailxds/tailxds/integration/envoys"
)

const units = "../../deploy/systemd"

// What the units run, run as they say: a control plane, an Envoy by its own
// bootstrap, and a drain that begins at SIGTERM.
func TestUnitsRun(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.Server("a")
	var unhealthy atomic.Int64
	a.Handle(func(w http.ResponseWriter, request *http.Request) {
		if request.URL.Path == "/unhealthy" {
			unhealthy.Add(1)
			a.Sick(true)
		}
		a.Hello(w)
	})
	devices := filepath.Join(t.TempDir(), "devices.json")
	list, err := json.Marshal([]envoys.Device{a.Device("tag:weight-1")})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(devices, list, 0o600); err != nil {
		t.Fatal(err)
	}
	plane := r.Host("plane")
	plane.Unit(units+"/tailxds.service", map[string]string{
		"TS_ENVOY_LISTEN": ":18000", "TS_ENVOY_PROVIDER": "file", "TS_ENVOY_DEVICES": devices, "HOME": t.TempDir(),
	}).Start()

	settings := map[string]string{
		"CONTROL_PLANE": plane.V4.String(), "REGION": "west", "CONCURRENCY": "1",
		"UNHEALTHY_URL": "http://127.0.0.1:8080/unhealthy", "DRAIN_SECONDS": "1",
	}
	a.Unit(units+"/tailxds-envoy.service", settings).Start()
	drain := a.Unit(units+"/tailxds-drain.service", settings)
	drain.Start()
	beside := envoys.Envoy{Host: a.Host}
	beside.AwaitHealthy("server", 1)
	beside.AwaitSome("listener_manager.total_listeners_active")
	if tally := r.Host("laptop").Ask(20, envoys.Get(a.URL(10000), "")); tally.Failed > 0 {
		t.Errorf("%d requests failed: %s", tally.Failed, tally.Reasons)
	}

	r.Await("the drain waits for SIGTERM", func() error { return says(drain, "waiting for SIGTERM") })
	drain.Stop()
	if unhealthy.Load() != 1 {
		t.Errorf("at its stop the drain asked %d times for /unhealthy, want once", unhealthy.Load())
	}
	beside.AwaitStats(map[string]int{"cluster.server.membership_healthy": 0})
}

func says(u *envoys.Unit, text string) error {
	if said := u.Said(); !strings.Contains(said, text) {
		return fmt.Errorf("it says %q", said)
	}
	return nil
}

// systemd itself must find nothing wrong with the units, and little that they
// may do. Nothing is started for that.
func TestUnitsAreSound(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze to check the units with")
	}
	all, err := filepath.Glob(units + "/*.service")
	if err != nil || len(all) != 3 {
		t.Fatalf("units: %v (%v)", all, err)
	}
	for _, unit := range all {
		// An exposure of 1.5 at most, of 10.
		out, err := exec.Command(analyze, "security", "--offline=true", "--no-pager", "--threshold=15", unit).CombinedOutput()
		if err != nil {
			t.Errorf("%s is not as locked in as it was: %v\n%s", unit, err, out)
		}
		out, err = exec.Command(analyze, "verify", "--man=no", "--generators=no", unit).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			// The programs need not be installed here.
			if !strings.Contains(line, "is not executable: No such file or directory") && strings.Contains(line, filepath.Base(unit)) {
				t.Errorf("systemd-analyze verify: %s", line)
			}
		}
		if err != nil && len(out) == 0 {
			t.Errorf("systemd-analyze verify %s: %v", unit, err)
		}
	}
}
