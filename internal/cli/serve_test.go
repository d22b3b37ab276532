package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// control is a control plane that runs in this process, without a tailnet.
type control struct {
	t     *testing.T
	dir   string
	admin string
	log   *lockedBuffer
	stop  func() error
}

func startControl(t *testing.T, dir string, change ...func(*options)) *control {
	t.Helper()
	c := &control{t: t, dir: dir, log: &lockedBuffer{}}
	o := options{
		Provider: "file", Devices: filepath.Join(dir, "devices.json"), Config: filepath.Join(dir, "policy.yaml"),
		Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", StateDir: filepath.Join(dir, "state"),
		DefaultService: "server", DefaultPort: 8080, LogLevel: "info", LogFormat: "text",
		PollInterval: 100 * time.Millisecond, HoldFraction: 0.5, HoldFor: time.Hour,
		APIToken: "the-secret-token", AuthKey: "the-secret-key",
	}
	for _, f := range change {
		f(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, o, c.log) }()
	c.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := c.stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	address := regexp.MustCompile(`admin=(\S+)`)
	c.await("the admin pages", func() bool {
		if m := address.FindStringSubmatch(c.log.String()); m != nil {
			c.admin = m[1]
		}
		return c.admin != ""
	})
	return c
}

func (c *control) await(what string, ok func() bool) {
	c.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !ok(); {
		select {
		case <-deadline:
			c.t.Fatalf("waited in vain for %s; the log:\n%s", what, c.log.String())
		case <-tick.C:
		}
	}
}

func (c *control) write(name, text string) {
	c.t.Helper()
	temporary := filepath.Join(c.dir, name+".new")
	if err := os.WriteFile(temporary, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(temporary, filepath.Join(c.dir, name)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *control) do(method, path string) (int, string) {
	c.t.Helper()
	request, _ := http.NewRequest(method, "http://"+c.admin+path, nil)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

func (c *control) status() statusDocument {
	c.t.Helper()
	_, body := c.do(http.MethodGet, "/status")
	var doc statusDocument
	if err := json.Unmarshal([]byte(body), &doc); err != nil {
		c.t.Fatalf("%v: %s", err, body)
	}
	return doc
}

// weights are the serving endpoints' weights by device name.
func (c *control) weights() string {
	c.t.Helper()
	var all []string
	for _, s := range c.status().Services {
		for _, l := range s.Localities {
			for _, e := range l.Endpoints {
				all = append(all, fmt.Sprintf("%s=%d", e.Name, e.Weight))
			}
		}
	}
	return strings.Join(all, " ")
}

func (c *control) awaitWeights(want string) {
	c.t.Helper()
	c.await("weights "+want, func() bool { return c.weights() == want })
}

// devices writes a device document: name=tag pairs.
func devices(pairs ...string) string {
	var all []topology.Device
	for i, p := range pairs {
		name, tag, _ := strings.Cut(p, "=")
		all = append(all, topology.Device{ID: fmt.Sprint(i + 1), Name: name, Addresses: []string{fmt.Sprintf("100.64.0.%d", i+1)}, Tags: []string{tag}, Online: true})
	}
	text, _ := json.Marshal(all)
	return string(text)
}

func TestServe(t *testing.T) {
	c := &control{t: t, dir: t.TempDir(), log: &lockedBuffer{}}
	c.write("devices.json", devices("a=tag:weight-1", "b=tag:weight-2", "c=tag:weight-3", "d=tag:weight-4"))
	c.write("policy.yaml", "defaults: {retries: 1}\n")
	c = startControl(t, c.dir)
	c.awaitWeights("a=1 b=2 c=3 d=4")

	t.Run("a changed tag acts", func(t *testing.T) {
		c.write("devices.json", devices("a=tag:weight-9", "b=tag:weight-2", "c=tag:weight-3", "d=tag:weight-4"))
		c.awaitWeights("a=9 b=2 c=3 d=4")
	})
	t.Run("a bad tag is a problem and costs nothing", func(t *testing.T) {
		c.write("devices.json", devices("a=tag:weight-nine", "b=tag:weight-5", "c=tag:weight-3", "d=tag:weight-4"))
		c.awaitWeights("a=9 b=5 c=3 d=4")
		if p := c.status().Problems; len(p) != 2 || p[0].Subject != "tag:weight-nine" {
			t.Errorf("problems: %+v", p)
		}
		if _, metrics := c.do(http.MethodGet, "/metrics"); !strings.Contains(metrics, "tailxds_problems{kind=\"device\"} 1\n") || !strings.Contains(metrics, "tailxds_problems{kind=\"tag\"} 1\n") {
			t.Errorf("the metric does not say 2 problems:\n%s", metrics)
		}
		if n := strings.Count(c.log.String(), "subject=tag:weight-nine"); n != 1 {
			t.Errorf("the problem was logged %d times, want once", n)
		}
	})
	t.Run("a bad file leaves the last good devices", func(t *testing.T) {
		c.write("devices.json", `[{"id":`)
		c.await("an error", func() bool { p := c.status().Provider; return p != nil && p.Error != "" })
		if code, detail := c.do(http.MethodGet, "/readyz"); code != http.StatusOK || !strings.Contains(detail, "ready, but") {
			t.Errorf("readyz: %d %s", code, detail)
		}
		c.awaitWeights("a=9 b=5 c=3 d=4")
	})
	t.Run("a list without most devices is held until accepted", func(t *testing.T) {
		c.write("devices.json", devices("a=tag:weight-7"))
		c.await("a held list", func() bool { return len(c.status().Held) == 1 })
		if got := c.weights(); got != "a=7 b=5 c=3 d=4" {
			t.Errorf("while it is held: %s", got)
		}
		if code, body := c.do(http.MethodPost, "/accept"); code != http.StatusOK {
			t.Errorf("accept: %d %s", code, body)
		}
		c.awaitWeights("a=7")
		if code, body := c.do(http.MethodPost, "/accept"); code != http.StatusConflict {
			t.Errorf("accept with nothing held: %d %s", code, body)
		}
	})
	t.Run("a bad policy leaves the last good one", func(t *testing.T) {
		c.write("policy.yaml", "defaults: {retries: many}\n")
		c.await("a policy error", func() bool { return strings.Contains(c.status().Policy.Error, "policy.yaml") })
		c.write("policy.yaml", "defaults: {retries: 2}\n")
		c.await("the mended policy", func() bool { return c.status().Policy.Error == "" })
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
		c.write("devices.json", string(text))
		c.awaitWeights("a=7 b=2")
		c.awaitWeights("a=7")
		if idle := c.status().Services[0].Idle; len(idle) != 1 || idle[0].State != topology.Expired {
			t.Errorf("idle: %+v", idle)
		}
	})
	t.Run("no secret shows", func(t *testing.T) {
		_, status := c.do(http.MethodGet, "/status")
		if all := status + c.log.String(); strings.Contains(all, "the-secret") {
			t.Errorf("a secret shows:\n%s", all)
		}
	})
}

// A control plane whose source is down when it starts serves what it served
// last, and says that it is stale.
func TestServeRestartsWithoutItsSource(t *testing.T) {
	c := &control{t: t, dir: t.TempDir(), log: &lockedBuffer{}}
	c.write("devices.json", devices("a=tag:weight-1", "b=tag:weight-2"))
	c.write("policy.yaml", "")
	c = startControl(t, c.dir)
	c.awaitWeights("a=1 b=2")
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(c.dir, "devices.json")); err != nil {
		t.Fatal(err)
	}
	c = startControl(t, c.dir)
	c.awaitWeights("a=1 b=2")
	if s := c.status(); !s.Ready || !s.Provider.Stale {
		t.Errorf("status: %+v", s)
	}
}

// Two control planes with one state would throw each other off the tailnet.
func TestAStateDirectoryHasOneControlPlane(t *testing.T) {
	t.Parallel()
	c := trial(t, machines(1, "tag:weight-1"))
	o := defaults()
	o.Provider, o.Devices, o.Listen, o.Admin, o.StateDir = "file", filepath.Join(c.dir, "devices.json"), "127.0.0.1:0", "127.0.0.1:0", filepath.Join(c.dir, "state")
	err := serve(t.Context(), o, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "is in use by another control plane: stop it, or give this one its own with --state-dir") {
		t.Errorf("a second one: %v", err)
	}
	c.restart().awaitWeights("d01=1") // it is given back
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
