package controlplane_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/controlplane"
	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
)

// What a slip, a lie or a restart may do to a control plane, each tried on a
// whole one, and seen by a client of its real stream.

func TestGuard_mistypedWeightsAndRestart_keepsLastWeights(t *testing.T) {
	t.Parallel()
	all := controlplanetest.Machines(4, "tag:weight-2")
	c := controlplanetest.Trial(t, all)
	c.Connect("127.0.0.1", "server").Await("server", "d01=2 d02=2 d03=2 d04=2")
	c.List(controlplanetest.Each(all, 0, 4, func(d *topology.Device) { d.Tags = []string{"tag:weight-two"} }))
	c.Await("the problems", func() bool { return len(c.Status().Problems) == 8 })
	c = c.Restart()
	e := c.Connect("127.0.0.1", "server")
	e.Keeps(3*controlplanetest.Hold, "server", "d01=2 d02=2 d03=2 d04=2")
	// What was kept is as good as what was there: a new weight still acts.
	c.List(controlplanetest.Each(all, 0, 1, func(d *topology.Device) { d.Tags = []string{"tag:weight-9"} }))
	e.Await("server", "d01=9 d02=2 d03=2 d04=2")
}

func TestGuard_badGrantOfTwo_costsNothing(t *testing.T) {
	t.Parallel()
	grants := func(weight string) func(*topology.Device) {
		return func(d *topology.Device) {
			d.Grants = []json.RawMessage{json.RawMessage(`{"service":"hello","weight":` + weight + `}`), json.RawMessage(`{"service":"web","port":81,"weight":3}`)}
		}
	}
	all := controlplanetest.Each(controlplanetest.Machines(2), 0, 2, grants("2"))
	c := controlplanetest.Trial(t, all)
	e := c.Connect("127.0.0.1", "hello", "web")
	e.Await("hello", "d01=2 d02=2")
	c.List(controlplanetest.Each(all, 0, 2, grants(`"5"`)))
	c.Await("the problems", func() bool { return len(c.Status().Problems) == 4 })
	e.Keeps(3*controlplanetest.Hold, "hello", "d01=2 d02=2")
	if e.Has("web") != "d01=3 d02=3" || e.Host("hello") != "hello" || e.Host("web") != "web" {
		t.Errorf("web has %q, hello goes to %s", e.Has("web"), e.Host("hello"))
	}
}

func TestGuard_mistypedService_costsNothing(t *testing.T) {
	t.Parallel()
	all := controlplanetest.Machines(2, "tag:service-hello", "tag:weight-2")
	c := controlplanetest.Trial(t, all)
	e := c.Connect("127.0.0.1", "hello", "server")
	e.Await("hello", "d01=2 d02=2")
	c.List(controlplanetest.Each(all, 0, 1, func(d *topology.Device) { d.Tags = []string{"tag:service-hello_v2", "tag:weight-3"} }))
	e.Await("hello", "d01=3 d02=2") // its weight is no mistake
	if e.Has("server") != "" || e.Host("hello") != "hello" {
		t.Errorf("the default service has %q, hello goes to %s", e.Has("server"), e.Host("hello"))
	}
}

func TestGuard_mistypedDrain_costsNothing(t *testing.T) {
	t.Parallel()
	all := controlplanetest.Each(controlplanetest.Machines(2, "tag:weight-2"), 0, 1, func(d *topology.Device) { d.Tags = []string{"tag:weight-0"} })
	c := controlplanetest.Trial(t, all)
	e := c.Connect("127.0.0.1", "server")
	e.Await("server", "d02=2")
	c.List(controlplanetest.Each(all, 0, 1, func(d *topology.Device) { d.Tags = []string{"tag:weight-O"} }))
	c.Await("the problem", func() bool { return len(c.Status().Problems) == 2 })
	c = c.Restart()
	c.Connect("127.0.0.1", "server").Keeps(2*controlplanetest.Hold, "server", "d02=2")
}

func TestGuard_firstListAllOffline_serves(t *testing.T) {
	t.Parallel()
	c := controlplanetest.Trial(t, controlplanetest.Each(controlplanetest.Machines(3, "tag:weight-1"), 0, 3, controlplanetest.Offline))
	e := c.Connect("127.0.0.1", "server")
	e.Keeps(3*controlplanetest.Hold, "server", "d01=1 d02=1 d03=1")
	c.WantHeld("server", "the last 3 that serve are offline at once; they stay until another serves, or until `tailxds accept server`")
}

func TestGuard_emptyListForLong_isHeld(t *testing.T) {
	t.Parallel()
	c := controlplanetest.Trial(t, controlplanetest.Machines(4, "tag:weight-1"))
	e := c.Connect("127.0.0.1", "server")
	e.Await("server", "d01=1 d02=1 d03=1 d04=1")
	c.List([]topology.Device{})
	e.Keeps(5*controlplanetest.Hold, "server", "d01=1 d02=1 d03=1 d04=1")
	c.WantHeld("server", "the last 4 that serve are missing at once")
	if s := c.Status(); len(s.Degraded) != 1 || s.Degraded[0] != "server: 0 of 4 serving" || !s.Ready {
		t.Errorf("degraded %v, ready %v", s.Degraded, s.Ready)
	}
	if out := c.Log.String(); !strings.Contains(out, "level=ERROR msg=\"DEGRADED: nobody serves\" service=server serving=0 of=4") {
		t.Errorf("the log:\n%s", out)
	}
	// Only a person says that it is the truth.
	if code, body := c.Do(http.MethodPost, "/accept?service=server"); code != http.StatusOK {
		t.Errorf("accept: %d %s", code, body)
	}
	e.Await("server", "")
}

func TestGuard_twoOfThreeLost_areHeld(t *testing.T) {
	t.Parallel()
	all := append(controlplanetest.Machines(30, "tag:weight-1"), controlplanetest.Machine(31, "tag:service-hello"), controlplanetest.Machine(32, "tag:service-hello"), controlplanetest.Machine(33, "tag:service-hello"))
	c := controlplanetest.Trial(t, all)
	e := c.Connect("127.0.0.1", "hello", "server")
	e.Await("hello", "d31=1 d32=1 d33=1")
	c.List(all[:31])
	c.WantHeld("hello", "hello: 2 of 3 serving devices are missing at once; applied at ")
	if got := e.Has("hello"); got != "d31=1 d32=1 d33=1" {
		t.Errorf("applied at once: %s", got)
	}
	e.Await("hello", "d31=1") // it stood
	c.Await("the end of the hold", func() bool { return len(c.Status().Held) == 0 })
}

func TestGuard_flapping_losesNothing(t *testing.T) {
	t.Parallel()
	all := controlplanetest.Machines(10, "tag:weight-1")
	c := controlplanetest.Trial(t, all).Restart(func(o *controlplane.Config) { o.HoldFor = 4 * controlplanetest.Hold })
	e := c.Connect("127.0.0.1", "server")
	const half = "d06=1 d07=1 d08=1 d09=1 d10=1"
	c.List(controlplanetest.Each(all, 0, 5, controlplanetest.Offline))
	e.Await("server", half)
	// Never for as long as the hold, also on a busy machine, and by far longer than
	// it in all.
	for range 4 {
		for _, n := range []int{6, 5, 6, 7} {
			c.List(controlplanetest.Each(all, 0, n, controlplanetest.Offline))
			e.Keeps(controlplanetest.Hold/2, "server", half)
		}
	}
}

func TestGuard_sourceFailsDuringHold_isHeldOn(t *testing.T) {
	t.Parallel()
	all := controlplanetest.Machines(4, "tag:weight-1")
	c := controlplanetest.Trial(t, all)
	e := c.Connect("127.0.0.1", "server")
	e.Await("server", "d01=1 d02=1 d03=1 d04=1")
	c.List(all[:1])
	c.WantHeld("server", "3 of 4")
	c.Write("devices.json", "[{")
	c.Await("a failure that lasts", func() bool {
		s := c.Status()
		return s.Provider.Failures > 1 && time.Since(s.Provider.LastGood) > 2*controlplanetest.Hold
	})
	mended := time.Now()
	c.List(all[:1])
	e.Await("server", "d01=1")
	if stood := time.Since(mended); stood < controlplanetest.Hold {
		t.Errorf("applied %v after the source was mended: the clock of the hold ran on", stood)
	}
}

// Two keys look at two tailnets: the second is another one's, and is empty.
func TestGuard_otherTailnetsCredential_isHeld(t *testing.T) {
	t.Parallel()
	var nodes, devices atomic.Value
	nodes.Store(`{"nodes":[{"id":"7","givenName":"d01","ipAddresses":["127.0.0.11"],"tags":["tag:weight-2"],"online":true},
		{"id":"8","givenName":"d02","ipAddresses":["127.0.0.12"],"tags":["tag:weight-3"],"online":true}]}`)
	devices.Store(`{"devices":[]}`)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.Contains(r.URL.Path, "/v1/"):
			_, _ = w.Write([]byte(nodes.Load().(string)))
		case strings.HasSuffix(r.URL.Path, "/attributes"):
			_, _ = w.Write([]byte(`{"attributes":{}}`))
		default:
			_, _ = w.Write([]byte(devices.Load().(string)))
		}
	}))
	defer api.Close()
	use := func(name string) func(*controlplane.Config) {
		return func(o *controlplane.Config) { o.Provider, o.Devices, o.APIURL, o.APIToken = name, "", api.URL, "key" }
	}
	c := controlplanetest.New(t)
	c.Write("policy.yaml", "")
	c = c.Restart(use(provider.Headscale))
	c.Connect("127.0.0.1", "server").Await("server", "d01=2 d02=3")

	c = c.Restart(use(provider.Tailscale))
	e := c.Connect("127.0.0.1", "server")
	c.WantHeld("server", "the last 2 that serve are missing at once")
	e.Keeps(3*controlplanetest.Hold, "server", "d01=2 d02=3")

	// The same machines, by this provider's IDs: nothing is lost.
	devices.Store(`{"devices":[{"nodeId":"nB","name":"d02.example.ts.net","addresses":["127.0.0.12"],"tags":["tag:weight-3"],"connectedToControl":true},
		{"nodeId":"nA","name":"d01.example.ts.net","addresses":["127.0.0.11"],"tags":["tag:weight-7"],"connectedToControl":true}]}`)
	e.Await("server", "d01=7 d02=3")
	c.Await("nothing to be held", func() bool { return len(c.Status().Held) == 0 })
}

func TestGuard_allKeysExpire_isHeld(t *testing.T) {
	t.Parallel()
	all := controlplanetest.Machines(4, "tag:weight-1")
	c := controlplanetest.Trial(t, all)
	e := c.Connect("127.0.0.1", "server")
	e.Await("server", "d01=1 d02=1 d03=1 d04=1")
	soon := time.Now().Add(2 * time.Second)
	expire := func(d *topology.Device) { d.Expires = &soon }
	c.List(controlplanetest.Each(all, 0, 4, expire))
	c.WantHeld("server", "the last 4 that serve are expiring at once")
	e.Keeps(3*controlplanetest.Hold, "server", "d01=1 d02=1 d03=1 d04=1")
	// With one whose key lasts, the others drain as they should.
	c.List(controlplanetest.Each(all, 0, 3, expire))
	e.Await("server", "d04=1")
}

func TestGuard_regionWithoutCoordinationServer_serves(t *testing.T) {
	t.Parallel()
	all := controlplanetest.Machines(4, "tag:weight-1")
	c := controlplanetest.Trial(t, all)
	e := c.Connect("127.0.0.1", "server")
	e.Await("server", "d01=1 d02=1 d03=1 d04=1")
	first, second := c.Connect("127.0.0.11", "server"), c.Connect("127.0.0.12", "server")
	c.List(controlplanetest.Each(all, 0, 2, controlplanetest.Offline))
	c.Await("the problems", func() bool { return len(c.Status().Problems) == 2 })
	e.Keeps(3*controlplanetest.Hold, "server", "d01=1 d02=1 d03=1 d04=1")
	if p := c.Status().Problems[0]; p.Subject != "offline" || !strings.Contains(p.Reason, "its own Envoy is connected") {
		t.Errorf("problem %+v", p)
	}
	// The last word of a witness is that it leaves.
	first.Stop()
	e.Await("server", "d02=1 d03=1 d04=1")
	second.Stop()
	e.Await("server", "d03=1 d04=1")
}

func TestRun_badPolicyAtStart_servesLastGood(t *testing.T) {
	t.Parallel()
	all := controlplanetest.Machines(2, "tag:weight-1")
	c := controlplanetest.Trial(t, all)
	c.Write("policy.yaml", "services: {server: {hosts: [shop.example.com]}}\n")
	c.Connect("127.0.0.1", "server").Await("server", "d01=1 d02=1")
	c.Await("the policy to be kept", func() bool {
		text, _ := os.ReadFile(filepath.Join(c.Dir, "state", "memory.json"))
		return strings.Contains(string(text), "shop.example.com")
	})
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	c.Write("policy.yaml", "services: {server: {hots: [shop.example.com]}}\n")
	c = c.Restart()
	e := c.Connect("127.0.0.1", "server")
	c.Await("the last good routes", func() bool {
		e.Mu.Lock()
		defer e.Mu.Unlock()
		return e.Hosts["shop.example.com"] == "server"
	})
	if s := c.Status(); !strings.Contains(s.Policy.Error, "hots") {
		t.Errorf("policy: %+v", s.Policy)
	}
}

// A memory that makes no sense stops no start, and is kept for whoever wonders.
func TestRun_corruptState_isSetAside(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"cut short":      `{"version":1,"memory":{`,
		"no memory":      `{"version":1,"devices":[]}`,
		"no devices":     `{"version":1,"memory":{}}`,
		"from to-morrow": `{"version":2,"memory":{},"devices":[]}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := controlplanetest.New(t)
			c.List(controlplanetest.Machines(2, "tag:weight-1"))
			c.Write("policy.yaml", "")
			if err := os.Mkdir(filepath.Join(c.Dir, "state"), 0o700); err != nil {
				t.Fatal(err)
			}
			c.Write("state/memory.json", text)
			c = c.Restart()
			c.Connect("127.0.0.1", "server").Await("server", "d01=1 d02=1")
			if kept, _ := os.ReadFile(filepath.Join(c.Dir, "state", "memory.json.corrupt")); string(kept) != text {
				t.Errorf("set aside: %q", kept)
			}
			if !strings.Contains(c.Log.String(), "the saved state cannot be read; starting without it") {
				t.Errorf("the log:\n%s", c.Log.String())
			}
			wantLostState(c, true)
			if code, answer := c.Do(http.MethodPost, "/accept"); code != http.StatusOK {
				t.Errorf("accept: %d %s", code, answer)
			}
			wantLostState(c, false)
			if code, _ := c.Do(http.MethodPost, "/accept"); code != http.StatusConflict {
				t.Errorf("accept with nothing left: %d", code)
			}
		})
	}
}

// wantLostState checks everywhere an operator looks whether it says that the saved
// state was lost.
func wantLostState(c *controlplanetest.Control, want bool) {
	c.T.Helper()
	_, ready := c.Do(http.MethodGet, "/readyz")
	_, metrics := c.Do(http.MethodGet, "/metrics")
	problems := slices.ContainsFunc(c.Status().Problems, func(p topology.Problem) bool {
		return p.Subject == "state" && strings.Contains(p.Reason, "drains and held endpoints from before the start are lost") && strings.Contains(p.Reason, "memory.json.corrupt")
	})
	if got := strings.HasPrefix(ready, "ready, but the saved state cannot be read"); got != want || strings.Contains(metrics, "\ntailxds_state_lost 1\n") != want || problems != want {
		c.T.Errorf("lost %t: readyz %q, problem %t", want, ready, problems)
	}
}

// A disk that is full is told everywhere an operator looks, and once there is room
// the state is saved without news.
func TestState_diskFull_isToldAndSavedLater(t *testing.T) {
	t.Parallel()
	c := controlplanetest.New(t)
	c.List(controlplanetest.Machines(2, "tag:weight-1"))
	c.Write("policy.yaml", "")
	c = c.Restart()
	c.AwaitWeights("d01=1 d02=1")
	// A directory where the file belongs can't be replaced by it. A save may come in
	// between.
	memory := filepath.Join(c.Dir, "state", "memory.json")
	c.Await("a directory in place of the state", func() bool {
		return os.RemoveAll(memory) == nil && os.MkdirAll(filepath.Join(memory, "x"), 0o700) == nil
	})
	answer := controlplanetest.Operate(c, "drain", "device", "d01")
	if !strings.Contains(answer, "BUT a restart would forget it") {
		t.Errorf("drain says %q", answer)
	}
	told := func() bool {
		_, ready := c.Do(http.MethodGet, "/readyz")
		_, metrics := c.Do(http.MethodGet, "/metrics")
		problem := slices.ContainsFunc(c.Status().Problems, func(p topology.Problem) bool {
			return p.Subject == "state" && strings.Contains(p.Reason, "the state cannot be saved since")
		})
		return strings.Contains(ready, "the state cannot be saved since") && strings.Contains(metrics, "\ntailxds_state_unsaved 1\n") && problem
	}
	c.Await("word of the disk", told)
	if err := os.RemoveAll(memory); err != nil {
		t.Fatal(err)
	}
	c.Await("the state", func() bool {
		text, err := os.ReadFile(memory)
		return err == nil && strings.Contains(string(text), `"drain":true`)
	})
	c.Await("no word of the disk", func() bool { return !told() })
}
