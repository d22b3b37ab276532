package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tailxds/tailxds/integration/repository"
)

// Envoy is a real one.
type Envoy struct {
	*Host
	process *process
}

// Envoy starts an Envoy on a host of its own, by its own bootstrap, and waits
// until it takes requests.
func (c *ControlPlane) Envoy(name string) *Envoy {
	c.rig.t.Helper()
	return c.EnvoyOn(c.rig.Host(name))
}

// EnvoyOn starts an Envoy on a host.
func (c *ControlPlane) EnvoyOn(h *Host) *Envoy {
	c.rig.t.Helper()
	return c.envoy(h, false)
}

// EnvoyIn starts an Envoy on a host of its own, in a region.
func (c *ControlPlane) EnvoyIn(region, name string) *Envoy {
	c.rig.t.Helper()
	return c.envoy(c.rig.Host(name), false, "--region", region)
}

// EnvoyShowing starts an Envoy on a host of its own that shows its metrics at an
// address.
func (c *ControlPlane) EnvoyShowing(address, name string) *Envoy {
	c.rig.t.Helper()
	return c.envoy(c.rig.Host(name), false, "--envoy-metrics", address)
}

// EnvoyBy starts an Envoy on a host of its own, by the bootstrap that just these
// flags make, but for its name.
func (c *ControlPlane) EnvoyBy(name string, flags ...string) *Envoy {
	c.rig.t.Helper()
	return c.boot(c.rig.Host(name), false, flags)
}

// EnvoySharing starts an Envoy on a host of its own, by a bootstrap that is made for
// several: it calls the Envoy bootstrap, which is started under the host's name.
func (c *ControlPlane) EnvoySharing(bootstrap, name string) *Envoy {
	c.rig.t.Helper()
	return c.boot(c.rig.Host(name), false, c.about("--node", bootstrap), "--service-node", name)
}

// EnvoyWith starts an Envoy on a host of its own, with further arguments.
func (c *ControlPlane) EnvoyWith(name string, args ...string) *Envoy {
	c.rig.t.Helper()
	return c.boot(c.rig.Host(name), false, c.about(), args...)
}

// EnvoyWithoutIPv6 starts an Envoy on a host of its own, where the kernel answers it that
// there is no IPv6.
func (c *ControlPlane) EnvoyWithoutIPv6(name string) *Envoy {
	c.rig.t.Helper()
	return c.envoy(c.rig.Host(name), true)
}

func (c *ControlPlane) envoy(h *Host, withoutIPv6 bool, about ...string) *Envoy {
	c.rig.t.Helper()
	return c.boot(h, withoutIPv6, c.about(about...))
}

func (c *ControlPlane) about(flags ...string) []string {
	return append([]string{"--control-plane", c.V4.String(), "--envoy-admin", "127.0.0.1:" + envoyAdminPort, "--report-every", "1s"}, flags...)
}

func (c *ControlPlane) boot(h *Host, withoutIPv6 bool, flags []string, args ...string) *Envoy {
	r := c.rig
	r.t.Helper()
	bootstrap, err := repository.Output(exec.CommandContext(r.ctx, c.program, append([]string{"bootstrap", "--node", h.Name}, flags...)...))
	if err != nil {
		r.t.Fatal(err)
	}
	return h.envoy(bootstrap, withoutIPv6, args...)
}

// StaticEnvoy starts an Envoy on a host of its own that no control plane knows, by
// a configuration of the test's, with admin pages on 127.0.0.1:9901.
func (r *Rig) StaticEnvoy(name, config string) *Envoy {
	r.t.Helper()
	return r.Host(name).envoy(config, false)
}

func (h *Host) envoy(bootstrap string, withoutIPv6 bool, args ...string) *Envoy {
	r := h.rig
	r.t.Helper()
	config := filepath.Join(r.dir, fmt.Sprintf("%s-%d.yaml", h.Name, r.number()))
	if err := os.WriteFile(config, []byte(bootstrap), 0o600); err != nil {
		r.t.Fatal(err)
	}
	args = append([]string{"--config-path", config, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warn"}, args...)
	p, err := h.start(withoutIPv6, h.Name, r.programs.Envoy, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	e := &Envoy{h, p}
	r.Await(h.Name+" takes requests", func() error {
		return e.holds(map[string]int{"listener_manager.total_listeners_warming": 0, "listener_manager.workers_started": 1}, "listener_manager.total_listeners_active")
	})
	return e
}

// Stop kills Envoy.
func (e *Envoy) Stop() {
	e.rig.t.Helper()
	if err := e.process.stop(); err != nil {
		e.rig.t.Fatal(err)
	}
}

// AwaitHealthy waits until Envoy finds so many endpoints of a service healthy,
// and knows of no others.
func (e *Envoy) AwaitHealthy(service string, n int) {
	e.rig.t.Helper()
	e.AwaitStats(map[string]int{"cluster." + service + ".membership_healthy": n, "cluster." + service + ".membership_total": n})
}

// AwaitStats waits until statistics have just these values.
func (e *Envoy) AwaitStats(want map[string]int) {
	e.rig.t.Helper()
	e.rig.Await(fmt.Sprintf("%s shows %v", e.Name, want), func() error { return e.holds(want) })
}

// AwaitNonzero waits until a counter has counted.
func (e *Envoy) AwaitNonzero(name string) {
	e.rig.t.Helper()
	e.rig.Await(fmt.Sprintf("%s counts %s", e.Name, name), func() error { return e.holds(nil, name) })
}

// Stat is one statistic; 0 if Envoy does not have it.
func (e *Envoy) Stat(name string) int {
	e.rig.t.Helper()
	stats, err := e.Stats()
	if err != nil {
		e.rig.t.Fatal(err)
	}
	return stats[name]
}

// holds returns nil if statistics have just these values, and others any but 0.
func (e *Envoy) holds(want map[string]int, some ...string) error {
	stats, err := e.Stats()
	if err != nil {
		return err
	}
	for name, value := range want {
		if got, ok := stats[name]; !ok || got != value {
			return fmt.Errorf("%s is %d (there: %t), want %d", name, got, ok, value)
		}
	}
	for _, name := range some {
		if stats[name] == 0 {
			return fmt.Errorf("%s is 0", name)
		}
	}
	return nil
}

// Stats are Envoy's counters and gauges.
func (e *Envoy) Stats() (map[string]int, error) {
	text, err := e.Admin("/stats?type=All")
	if err != nil {
		return nil, err
	}
	stats := make(map[string]int)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		var n int
		if _, err := fmt.Sscan(value, &n); err == nil { // histograms are no numbers
			stats[name] = n
		}
	}
	return stats, nil
}

// LogTail is the end of what Envoy wrote, its access log included.
func (e *Envoy) LogTail() string { return e.process.logTail() }

// Admin is a page of Envoy's own.
func (e *Envoy) Admin(path string) (string, error) {
	return e.fetch("http://127.0.0.1:" + envoyAdminPort + path)
}
