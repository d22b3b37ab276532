// Package controlplanetest runs control planes, Envoys and coordination servers in
// the process of a test.
package controlplanetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/controlplane"
	"github.com/tailxds/tailxds/internal/topology"
)

// Control is a control plane that runs in this process, without a tailnet.
type Control struct {
	T     *testing.T
	Dir   string
	Admin string
	Log   *LockedBuffer
	Stop  func() error
}

// New makes a directory for a control plane, and starts none.
func New(t *testing.T) *Control {
	return &Control{T: t, Dir: t.TempDir(), Log: &LockedBuffer{}}
}

// Start starts a control plane on the files in a directory: devices.json and
// policy.yaml.
func Start(t *testing.T, dir string, change ...func(*controlplane.Config)) *Control {
	t.Helper()
	c := &Control{T: t, Dir: dir, Log: &LockedBuffer{}}
	o := controlplane.Config{
		Provider: "file", Devices: filepath.Join(dir, "devices.json"), PolicyFile: filepath.Join(dir, "policy.yaml"),
		Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", StateDir: filepath.Join(dir, "state"),
		Rules:        topology.Rules{DefaultService: "server", DefaultPort: 8080},
		PollInterval: 100 * time.Millisecond, HoldFraction: 0.5, HoldFor: time.Hour,
		APIToken: "the-secret-token", AuthKey: "the-secret-key",
	}
	for _, f := range change {
		f(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- controlplane.Run(ctx, o, slog.New(slog.NewTextHandler(c.Log, nil))) }()
	c.Stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	c.Await("the admin pages", func() bool {
		c.Admin = c.addresses().Admin
		return c.Admin != ""
	})
	return c
}

// addresses are those that the control plane listens on; empty until it does.
func (c *Control) addresses() api.Addresses {
	a, err := api.ReadAddresses(filepath.Join(c.Dir, "state"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.T.Fatal(err)
	}
	return a
}

// Await waits until ok, and fails the test after a minute.
func (c *Control) Await(what string, ok func() bool) {
	c.T.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !ok(); {
		select {
		case <-deadline:
			c.T.Fatalf("waited in vain for %s; the log:\n%s", what, c.Log.String())
		case <-tick.C:
		}
	}
}

func (c *Control) Write(name, text string) {
	c.T.Helper()
	temporary := filepath.Join(c.Dir, name+".new")
	if err := os.WriteFile(temporary, []byte(text), 0o600); err != nil {
		c.T.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(c.Dir, name)); err != nil {
		c.T.Fatal(err)
	}
}

// Do asks a page of the admin API, and returns the status and the body.
func (c *Control) Do(method, path string) (int, string) {
	c.T.Helper()
	request, _ := http.NewRequestWithContext(c.T.Context(), method, "http://"+c.Admin+path, nil)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.T.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

// Status returns what /status says.
func (c *Control) Status() api.Status {
	c.T.Helper()
	_, body := c.Do(http.MethodGet, "/status")
	var doc api.Status
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		c.T.Fatalf("%v: %s", err, body)
	}
	return doc
}

// Weights are the serving endpoints' weights by device name.
func (c *Control) Weights() string {
	c.T.Helper()
	var all []string
	for _, s := range c.Status().Services {
		for _, l := range s.Localities {
			for _, e := range l.Endpoints {
				all = append(all, fmt.Sprintf("%s=%d", e.Name, e.Weight))
			}
		}
	}
	return strings.Join(all, " ")
}

// AwaitWeights waits until the serving endpoints have these weights: "a=1 b=2".
func (c *Control) AwaitWeights(want string) {
	c.T.Helper()
	c.Await("weights "+want, func() bool { return c.Weights() == want })
}

// DeviceList writes a device document: name=tag pairs.
func DeviceList(pairs ...string) string {
	var all []topology.Device
	for i, p := range pairs {
		name, tag, _ := strings.Cut(p, "=")
		all = append(all, topology.Device{ID: fmt.Sprint(i + 1), Name: name, Addresses: []string{fmt.Sprintf("100.64.0.%d", i+1)}, Tags: []string{tag}, Online: true})
	}
	text, _ := json.Marshal(all)
	return string(text)
}

// Hold is how long a loss must stand in these trials.
const Hold = time.Second

// Trial starts a control plane on a list of devices.
func Trial(t *testing.T, all []topology.Device) *Control {
	t.Helper()
	c := &Control{T: t, Dir: t.TempDir(), Log: &LockedBuffer{}}
	c.List(all)
	c.Write("policy.yaml", "")
	return c.Restart()
}

// Restart ends the control plane, if it runs, and starts it anew on what it kept.
func (c *Control) Restart(change ...func(*controlplane.Config)) *Control {
	c.T.Helper()
	if c.Stop != nil {
		if err := c.Stop(); err != nil {
			c.T.Fatal(err)
		}
	}
	return Start(c.T, c.Dir, append([]func(*controlplane.Config){func(o *controlplane.Config) {
		o.HoldFor, o.Rules.OfflineGrace, o.Rules.DrainWindow = Hold, 300*time.Millisecond, 10*time.Minute
	}}, change...)...)
}

// List replaces the list of devices.
func (c *Control) List(all []topology.Device) {
	c.T.Helper()
	text, err := json.Marshal(all)
	if err != nil {
		c.T.Fatal(err)
	}
	c.Write("devices.json", string(text))
}

// Machine is an online device, whose address is one of loopback so that its
// Envoy can be played.
func Machine(n int, tags ...string) topology.Device {
	return topology.Device{ID: fmt.Sprint(n), Name: fmt.Sprintf("d%02d", n), Addresses: []string{fmt.Sprintf("127.0.0.%d", n+10)}, Tags: tags, Online: true}
}

// Machines are n devices with the same tags.
func Machines(n int, tags ...string) []topology.Device {
	var all []topology.Device
	for i := range n {
		all = append(all, Machine(i+1, tags...))
	}
	return all
}

// Each is a copy of the devices, changed from one index to another.
func Each(all []topology.Device, from, to int, change func(*topology.Device)) []topology.Device {
	all = append([]topology.Device{}, all...)
	for i := from; i < to; i++ {
		change(&all[i])
	}
	return all
}

// Offline takes a device offline.
func Offline(d *topology.Device) { d.Online = false }

// LockedBuffer is a log that is read while it is written.
type LockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *LockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *LockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Operate posts as the commands do, and returns what an operator is told.
func Operate(c *Control, command string, pairs ...string) string {
	c.T.Helper()
	query := url.Values{"user": {"alice"}}
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	_, body := c.Do(http.MethodPost, "/"+command+"?"+query.Encode())
	return strings.TrimSpace(body)
}
