package envoys_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

const units = "../../deploy/systemd"

// settle adds lines to a file of settings that the package has installed.
func settle(t *testing.T, m *harness.Machine, file string, lines ...string) {
	t.Helper()
	text, err := os.ReadFile(m.Path(file))
	if err != nil {
		t.Fatal(err)
	}
	m.Write(file, string(text)+strings.Join(lines, "\n")+"\n")
}

// What docs/servers.md tells who runs an application of their own.
const app = `
[Unit]
Before=tailxds-drain.service
[Service]
DynamicUser=yes
ExecStart=/usr/bin/server
[Install]
WantedBy=multi-user.target
`

// bootServer boots a server of the pool, and does what docs/servers.md says.
func bootServer(t *testing.T, h *harness.Host, deb string, plane *harness.Machine) *harness.Machine {
	t.Helper()
	m := h.Boot(map[string]string{"/etc/systemd/system/app.service": app})
	m.Install(deb)
	settle(t, m, "/etc/tailxds/envoy.env",
		"CONTROL_PLANE="+plane.V4.String(), "REGION=west", "CONCURRENCY=1", "UNHEALTHY_URL=http://127.0.0.1:8080/unhealthy",
		"HEALTHY_URL=http://127.0.0.1:8080/healthy", "DRAIN_SECONDS=6")
	m.MustRun("systemctl", "enable", "--now", "app", "tailxds-envoy", "tailxds-drain")
	return m
}

// The package, installed on machines of their own, and its units, started there by
// systemd itself with all their sandbox: a control plane that keeps its state and
// takes in edits, and servers that join, drain, upgrade and shut down without a
// request that fails.
func TestUnits_bootDrainUpgrade_run(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hosts := []*harness.Host{r.Host("a"), r.Host("b")}
	list, err := json.Marshal([]harness.Device{hosts[0].Device("tag:weight-1"), hosts[1].Device("tag:weight-1")})
	if err != nil {
		t.Fatal(err)
	}
	// No request is tried again: whoever is sent one must answer.
	const policy = "defaults: {retries: 0}\n"
	deb := r.Package("0.1.0", true)
	plane := r.Host("plane").Boot(map[string]string{"/etc/tailxds/devices.json": string(list), "/etc/tailxds/policy.yaml": policy})
	plane.Install(deb)
	settle(t, plane, "/etc/tailxds/tailxds.env", "TS_ENVOY_CONFIG=/etc/tailxds/policy.yaml",
		"TS_ENVOY_LISTEN=:18000", "TS_ENVOY_PROVIDER=file", "TS_ENVOY_DEVICES=/etc/tailxds/devices.json")
	plane.MustRun("systemctl", "enable", "--now", "tailxds")
	// That has returned, so it serves.
	plane.MustRun("tailxds", "status", "--exit-code")
	if says := plane.MustRun("systemctl", "show", "--property=StatusText", "--value", "tailxds"); says != "ready" {
		t.Errorf("systemctl status says of it %q", says)
	}
	a, b := bootServer(t, hosts[0], deb, plane), bootServer(t, hosts[1], deb, plane)
	entry := harness.Envoy{Host: b.Host}
	for _, server := range hosts {
		beside := harness.Envoy{Host: server}
		beside.AwaitHealthy("server", 2)
		beside.AwaitNonzero("listener_manager.total_listeners_active")
	}
	for machine, of := range map[*harness.Machine][]string{plane: {"tailxds"}, a: {"tailxds-envoy", "tailxds-drain"}} {
		for _, unit := range of {
			assertLockedIn(t, machine, unit)
		}
	}
	laptop := r.Host("laptop")
	load := laptop.Flow(4, harness.Get(b.URL(10000), ""))

	// The control plane dies: it starts again, and knows what it knew.
	plane.MustRun("tailxds", "drain", "a")
	entry.AwaitHealthy("server", 1)
	assertKept(t, plane)
	before := plane.MustRun("systemctl", "show", "--property=MainPID", "--value", "tailxds")
	plane.MustRun("systemctl", "kill", "--signal=KILL", "tailxds")
	r.Await("it runs again", func() error {
		if now := plane.MustRun("systemctl", "show", "--property=MainPID", "--value", "tailxds"); now == "0" || now == before {
			return fmt.Errorf("its process is %s, and was %s", now, before)
		}
		said, err := plane.Run("tailxds", "status")
		if err == nil && !strings.Contains(said, "drained") {
			err = fmt.Errorf("it has forgotten the drain: %s", said)
		}
		return err
	})
	plane.MustRun("tailxds", "restore", "a")
	entry.AwaitHealthy("server", 2)

	// An edit of the policy, without a restart.
	plane.Write("/etc/tailxds/policy.yaml", policy+"services: {shop: {hosts: [shop.example.com]}}\n")
	r.Await("the edit acts", func() error {
		status, body, err := laptop.Once(harness.Get(b.URL(10000), "shop.example.com"))
		if err == nil && status != http.StatusServiceUnavailable {
			err = fmt.Errorf("%d: %s", status, body)
		}
		return err
	})

	// A new version of the application alone.
	a.MustRun("systemctl", "stop", "tailxds-drain")
	entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 1})
	a.MustRun("systemctl", "is-active", "app", "tailxds-envoy")
	a.MustRun("systemctl", "restart", "app")
	a.MustRun("systemctl", "start", "tailxds-drain")
	entry.AwaitHealthy("server", 2)
	besideA := harness.Envoy{Host: a.Host}
	besideA.AwaitStats(map[string]int{"server.live": 1}) // it closes clients' connections no more

	// A new Envoy alone, or a new bootstrap.
	a.MustRun("systemctl", "restart", "tailxds-envoy")
	besideA.AwaitHealthy("server", 2)
	entry.AwaitHealthy("server", 2)

	// An upgrade starts and stops nothing, and keeps the settings.
	runs := func(m *harness.Machine, unit string) string {
		return m.MustRun("systemctl", "show", "--property=ActiveState,MainPID", unit)
	}
	before = runs(b, "tailxds-envoy")
	b.Install(r.Package("0.1.1", false))
	if now := runs(b, "tailxds-envoy"); now != before {
		t.Errorf("after the upgrade Envoy is %s, and it was %s", now, before)
	}
	if settings := b.MustRun("cat", "/etc/tailxds/envoy.env"); !strings.Contains(settings, "CONTROL_PLANE="+plane.V4.String()) {
		t.Errorf("after the upgrade the settings are\n%s", settings)
	}

	a.PowerOff()
	entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 1})
	if tally := load.Stop(); tally.Failed > 0 || tally.By(shares.Host).Counts["a"] == 0 || tally.By(shares.Host).Counts["b"] == 0 {
		t.Errorf("of the requests %d failed (%s), and they were answered by %v", tally.Failed, tally.Reasons, tally.By(shares.Host).Counts)
	}
	plane.MustRun("systemctl", "stop", "tailxds")
	if ended := plane.MustRun("systemctl", "show", "--property=Result,ExecMainStatus,ActiveState", "tailxds"); ended != "Result=success\nExecMainStatus=0\nActiveState=inactive" {
		t.Errorf("the control plane was stopped, and %s", ended)
	}

	// Whoever removes the package is left with nothing that runs, and their settings.
	b.MustRun("dpkg", "--remove", "tailxds")
	for _, unit := range []string{"tailxds-envoy", "tailxds-drain"} {
		if now := runs(b, unit); now != "MainPID=0\nActiveState=inactive" {
			t.Errorf("the package is removed, and of %s there is %s", unit, now)
		}
	}
	b.MustRun("test", "-s", "/etc/tailxds/envoy.env")
}

// assertLockedIn finds that what the unit says of its sandbox is so: systemd
// leaves out without a word some of what it can't do.
func assertLockedIn(t *testing.T, m *harness.Machine, unit string) {
	t.Helper()
	pid := m.MustRun("systemctl", "show", "--property=MainPID", "--value", unit)
	facts := m.MustRun("cat", "/proc/"+pid+"/status")
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(facts, want+"\n") {
			t.Errorf("%s runs without %q:\n%s", unit, want, facts)
		}
	}
	if regexp.MustCompile(`(?m)^[UG]id:.*\t0\b`).MatchString(facts) {
		t.Errorf("%s runs as root:\n%s", unit, facts)
	}
	for _, own := range []string{"user", "mnt"} {
		if m.MustRun("readlink", "/proc/"+pid+"/ns/"+own) == m.MustRun("readlink", "/proc/1/ns/"+own) {
			t.Errorf("%s has no %s namespace of its own", unit, own)
		}
	}
}

// assertKept finds the control plane's state where the unit says, and that nobody
// else can read it.
func assertKept(t *testing.T, m *harness.Machine) {
	t.Helper()
	file, err := os.Stat(m.Path("/var/lib/private/tailxds/memory.json"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Stat(m.Path("/var/lib/private/tailxds"))
	if err != nil {
		t.Fatal(err)
	}
	if file.Mode().Perm() != 0o600 || dir.Mode().Perm() != 0o700 {
		t.Errorf("the state's modes are %v and %v", dir.Mode(), file.Mode())
	}
}

// systemd itself must find nothing wrong with the units, and little that they
// may do. Nothing is started for that.
func TestUnits_systemdAnalyze_noFault(t *testing.T) {
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
