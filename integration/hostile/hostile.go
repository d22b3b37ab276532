// Package hostile holds the real control plane against clients that flood, stall
// and lie, and measures what they cost it: one peer must not exhaust, slow or
// mislead the others.
//
//	c := hostile.Start(t, tailxds, hostile.Options{Devices: devices})
//	cost := c.Measure(func() { … })
//	cost.Check(t, hostile.Bound{Memory: 64 << 20, CPU: 2 * time.Second})
//
// Each test starts a control plane of its own, on loopback, without a tailnet,
// root or Docker. Peers differ by their address: dial from 127.1.0.1, 127.1.0.2
// and so on with [From]. Memory is the peak of the process's resident memory
// above what it was before; CPU is its user and system time. Bounds have room,
// for a slow machine and another version of Go, but not for what grows with the
// number of messages that a client sends. A test takes a few seconds.
package hostile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// patience bounds how long a test waits for what must come.
	patience = 20 * time.Second
	// The two listeners differ by their address, so that the kernel tells which
	// port is whose.
	xdsAddress, adminAddress = "127.0.0.2", "127.0.0.1"
)

// Build builds tailxds of the working tree into a directory, and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "tailxds")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program, "./cmd/tailxds")
	_, here, _, _ := runtime.Caller(0)
	build.Dir = filepath.Join(filepath.Dir(here), "..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tailxds: %w: %s", err, out)
	}
	return program, nil
}

// Options are what a control plane starts with.
type Options struct {
	// Devices is the text of its device file, YAML or JSON.
	Devices string
	// Policy is the text of its policy file; empty is none.
	Policy string
	// Flags are further flags of tailxds serve.
	Flags []string
	// Unready starts it with an API that never answers in place of the device file.
	// Without a list of devices it refuses every peer.
	Unready bool
}

// ControlPlane is a tailxds that runs until the test ends.
type ControlPlane struct {
	// XDS and Admin are the host:port of its listeners.
	XDS, Admin string
	// Devices and Policy are the paths of its files.
	Devices, Policy string

	t       testing.TB
	process *os.Process
	log     string // path
	done    chan struct{}
}

// Start starts a program built by [Build], and waits until it is ready.
func Start(t testing.TB, program string, o Options) *ControlPlane {
	t.Helper()
	dir := t.TempDir()
	c := &ControlPlane{
		t: t, Devices: filepath.Join(dir, "devices.yaml"), Policy: filepath.Join(dir, "policy.yaml"),
		log: filepath.Join(dir, "log"), done: make(chan struct{}),
	}
	args := append([]string{
		"serve", "--listen", xdsAddress + ":0", "--admin", adminAddress + ":0", "--state-dir", filepath.Join(dir, "state"), "--log-format", "json",
	}, o.Flags...)
	if o.Unready {
		silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", adminAddress+":0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = silent.Close() })
		args = append(args, "--provider", "headscale", "--control-url", "http://"+silent.Addr().String(), "--api-token", "none")
	} else {
		c.Write(c.Devices, o.Devices)
		args = append(args, "--provider", "file", "--devices", c.Devices)
	}
	if o.Policy != "" {
		c.Write(c.Policy, o.Policy)
		args = append(args, "--config", c.Policy)
	}
	log, err := os.Create(c.log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...) //nolint:noctx // it ends with the test, by Kill
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The kernel tells a child of its parent's death by the thread that made it.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed
			close(c.done)
		}
		_ = log.Close()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	c.process = cmd.Process
	t.Cleanup(c.stop)
	c.Await("it listens", func() (err error) {
		if c.XDS, c.Admin, err = listeners(c.process.Pid); err != nil || o.Unready {
			return err
		}
		_, err = c.Get("/readyz")
		return err
	})
	return c
}

func (c *ControlPlane) stop() {
	_ = c.process.Kill() // it may have ended
	<-c.done
	if c.t.Failed() {
		text := c.Log()
		c.t.Logf("the end of the log:\n%s", text[max(0, len(text)-4<<10):])
	}
}

// Write replaces a file at once, as an editor does.
func (c *ControlPlane) Write(path, text string) {
	c.t.Helper()
	err := os.WriteFile(path+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// Log is what the control plane has logged, a JSON object a line.
func (c *ControlPlane) Log() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// Lines is how many lines of the log have a text.
func (c *ControlPlane) Lines(with string) int {
	n := 0
	for line := range strings.Lines(c.Log()) {
		if strings.Contains(line, with) {
			n++
		}
	}
	return n
}

// Get fetches an admin page. An answer other than 200 is an error.
func (c *ControlPlane) Get(path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Admin+path, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %s", path, response.Status, text)
	}
	return string(text), err
}

// Status reads /status into a value that names what the test wants to know.
func (c *ControlPlane) Status(into any) error {
	text, err := c.Get("/status")
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), into)
}

// Await fails the test unless check returns nil in time.
func (c *ControlPlane) Await(what string, check func() error) {
	c.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-c.done:
			c.t.Fatalf("%s: the control plane has ended; %v", what, err)
		case <-deadline:
			c.t.Fatalf("%s: not within %s: %v", what, patience, err)
		case <-tick.C:
		}
	}
}

// From dials from an address of loopback, such as 127.1.0.1: the control plane
// takes peers apart by their addresses.
func From(address string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: patience}
}

var errNotListening = errors.New("it does not listen on both addresses yet")
