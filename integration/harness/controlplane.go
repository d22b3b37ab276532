package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tailxds/tailxds/integration/repository"
	"github.com/tailxds/tailxds/internal/api"
)

const (
	xdsPort        = "18000"
	envoyAdminPort = "9901" // as its bootstrap has it
	adminAddress   = "127.0.0.1:9090"
)

// Device is one of the list that the control plane reads from a file.
type Device struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
	Tags      []string `json:"tags"`
	Online    bool     `json:"online"`
	// Expires is when its node key does, as RFC 3339 has it; empty means never.
	Expires string `json:"expires,omitempty"`
	// Grants describe it in several services, instead of tags.
	Grants []map[string]any `json:"grants,omitempty"`
}

// Device is the host as the tailnet would list it.
func (h *Host) Device(tags ...string) Device {
	return Device{ID: h.V4.String(), Name: h.Name, Addresses: []string{h.V4.String(), h.V6.String()}, Tags: tags, Online: true}
}

// ControlPlane is tailxds on a host of its own, or on this machine's loopback.
type ControlPlane struct {
	*Host
	// XDS and Admin are the host:port of its listeners, once it was started.
	XDS, Admin string

	devices, policy string // files
	state           string // directory
	process         *process
	flags           []string
	program         string // the tailxds that runs here
}

// ControlPlane starts a control plane with a policy file's text and a list of
// devices, and waits until it serves them.
func (r *Rig) ControlPlane(policy string, devices ...Device) *ControlPlane {
	r.t.Helper()
	return r.ControlPlaneOf(r.programs.ControlPlane, policy, devices...)
}

// ControlPlaneOf is [Rig.ControlPlane] of another version of tailxds.
func (r *Rig) ControlPlaneOf(program, policy string, devices ...Device) *ControlPlane {
	r.t.Helper()
	c := r.StoppedControlPlane(policy, devices...)
	c.program = program
	c.Start()
	return c
}

// StoppedControlPlane makes a control plane that [ControlPlane.Start] starts.
func (r *Rig) StoppedControlPlane(policy string, devices ...Device) *ControlPlane {
	r.t.Helper()
	dir := filepath.Join(r.dir, fmt.Sprintf("control-plane-%d", r.number()))
	if err := os.Mkdir(dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	c := &ControlPlane{devices: filepath.Join(dir, "devices.json"), policy: filepath.Join(dir, "policy.yaml"), state: filepath.Join(dir, "state"), program: r.programs.ControlPlane}
	if r.hub.IsOpen() {
		c.Host = r.Host("control-plane")
		c.XDS, c.Admin = net.JoinHostPort(c.V4.String(), xdsPort), adminAddress
	} else {
		// Other tests run on this machine, too: the kernel chooses the ports.
		c.Host, c.XDS, c.Admin = r.here("control-plane"), "127.0.0.1:0", "127.0.0.1:0"
	}
	c.SetDevices(devices...)
	c.SetPolicy(policy)
	return c
}

// Pid is the process that runs, or ran last.
func (c *ControlPlane) Pid() int { return c.process.cmd.Process.Pid }

// Log is what was logged since the last start.
func (c *ControlPlane) Log() string {
	c.rig.t.Helper()
	text, err := os.ReadFile(c.process.log)
	if err != nil {
		c.rig.t.Fatal(err)
	}
	return string(text)
}

// Tailxds runs a command of tailxds on the host, and returns its standard output. The
// error of a command that failed has its standard error.
func (h *Host) Tailxds(args ...string) (printed string, err error) {
	return h.Run(h.rig.programs.ControlPlane, args...)
}

// Run runs a program on the host, and returns its standard output. The error of a
// program that failed has its standard error.
func (h *Host) Run(program string, args ...string) (printed string, err error) {
	err = h.Do(func() error {
		printed, err = repository.Output(exec.CommandContext(h.rig.ctx, program, args...))
		return err
	})
	return printed, err
}

// Stop kills the control plane.
func (c *ControlPlane) Stop() {
	c.rig.t.Helper()
	err := c.process.stop()
	// A killed control plane leaves the file behind, and the next start awaits a new one.
	if removed := os.Remove(filepath.Join(c.state, api.AddressesFile)); !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	if err != nil {
		c.rig.t.Fatal(err)
	}
}

// Start starts a control plane that was stopped, with what it kept and with
// further flags from now on, and waits until it serves.
func (c *ControlPlane) Start(flags ...string) {
	c.rig.t.Helper()
	c.Launch(flags...)
	c.rig.Await("the control plane serves", func() error {
		_, err := c.Get("/readyz")
		return err
	})
}

// SetProgram sets the version of tailxds that runs from the next start on, and makes the
// bootstraps of the Envoys to come.
func (c *ControlPlane) SetProgram(program string) { c.program = program }

// Tailxds is [Host.Tailxds] of the version that runs here.
func (c *ControlPlane) Tailxds(args ...string) (printed string, err error) {
	return c.Run(c.program, args...)
}

// Operate runs a command of an operator, such as drain, and fails the test if it fails.
func (c *ControlPlane) Operate(args ...string) {
	c.rig.t.Helper()
	if _, err := c.Tailxds(append(args, "--admin", c.Admin)...); err != nil {
		c.rig.t.Fatal(err)
	}
}

// Quarantined reports whether the control plane set aside a state file that it could not read.
func (c *ControlPlane) Quarantined() bool {
	_, err := os.Stat(filepath.Join(c.state, "memory.json.corrupt"))
	return err == nil
}

// Launch is [ControlPlane.Start] that waits until it listens, and not until it serves.
func (c *ControlPlane) Launch(flags ...string) {
	c.rig.t.Helper()
	c.flags = append(c.flags, flags...)
	listen := c.XDS
	if c.rig.hub.IsOpen() {
		listen = ":" + xdsPort
	}
	args := append([]string{
		"serve", "--listen", listen, "--admin", c.Admin, "--provider", "file",
		"--devices", c.devices, "--config", c.policy, "--state-dir", c.state,
	}, c.flags...)
	var err error
	if c.process, err = c.start(false, "control-plane", c.program, args...); err != nil {
		c.rig.t.Fatal(err)
	}
	if !c.rig.hub.IsOpen() {
		c.rig.Await("the control plane listens", func() error {
			addresses, err := api.ReadAddresses(c.state)
			if err == nil && addresses.XDS == "" {
				err = errors.New("it does not serve xDS yet")
			}
			c.XDS, c.Admin = addresses.XDS, addresses.Admin
			return err
		})
	}
}

// Metrics are what Prometheus would scrape; empty if the control plane does not answer.
func (c *ControlPlane) Metrics() string {
	text, err := c.Get("/metrics")
	if err != nil {
		return ""
	}
	return text
}

// EditState changes the saved state of a stopped control plane. A nil document removes it.
func (c *ControlPlane) EditState(edit func(document []byte) []byte) {
	c.rig.t.Helper()
	path := filepath.Join(c.state, "memory.json")
	document, err := os.ReadFile(path)
	if err != nil {
		c.rig.t.Fatal(err)
	}
	if document = edit(document); document != nil {
		c.write(path, document)
	} else if err := os.Remove(path); err != nil {
		c.rig.t.Fatal(err)
	}
}

// AwaitState waits until the saved state lacks a text: state is saved after what it
// describes is served.
func (c *ControlPlane) AwaitState(without string) {
	c.rig.t.Helper()
	c.rig.Await("the saved state lacks "+without, func() error {
		document, err := os.ReadFile(filepath.Join(c.state, "memory.json"))
		if err == nil && strings.Contains(string(document), without) {
			err = fmt.Errorf("it is %s", document)
		}
		return err
	})
}

// SetDevicesText writes any text where the list of devices is.
func (c *ControlPlane) SetDevicesText(text string) { c.write(c.devices, []byte(text)) }

// SetPolicy writes the policy file anew, as an editor does that replaces it.
func (c *ControlPlane) SetPolicy(text string) { c.write(c.policy, []byte(text)) }

// SetDevices writes the list of devices anew.
func (c *ControlPlane) SetDevices(devices ...Device) {
	text, err := json.Marshal(append([]Device{}, devices...))
	if err != nil {
		c.rig.t.Fatal(err)
	}
	c.write(c.devices, text)
}

func (c *ControlPlane) write(path string, text []byte) {
	c.rig.t.Helper()
	err := os.WriteFile(path+".new", text, 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		c.rig.t.Fatal(err)
	}
}

// Status is /status.
func (c *ControlPlane) Status() (status api.Status, err error) {
	return status, c.GetJSON("/status", &status)
}

// Traffic is /traffic.
func (c *ControlPlane) Traffic() (measured api.Traffic, err error) {
	return measured, c.GetJSON("/traffic", &measured)
}

// Get is the text of a page of the control plane's own.
func (c *ControlPlane) Get(path string) (string, error) { return c.fetch("http://" + c.Admin + path) }

// GetJSON is a page of the control plane's own, into a value that names what the
// test wants to know.
func (c *ControlPlane) GetJSON(path string, into any) error {
	text, err := c.Get(path)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

// Rejected is why Envoys rejected resources, from /status; empty if they rejected none.
func (c *ControlPlane) Rejected() string {
	status, err := c.Status()
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, e := range status.Envoys {
		for _, of := range e.Types {
			if of.Rejected != "" {
				all = append(all, of.Rejected)
			}
		}
	}
	return strings.Join(all, "\n")
}
