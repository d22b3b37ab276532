package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
)

// What a slip, a lie or a restart may do to a control plane, each tried on a
// whole one, and seen by a client of its real stream.

// hold is how long a loss must stand in these trials.
const hold = time.Second

// trial starts a control plane on a list of devices.
func trial(t *testing.T, all []topology.Device) *control {
	t.Helper()
	c := &control{t: t, dir: t.TempDir(), log: &lockedBuffer{}}
	c.list(all)
	c.write("policy.yaml", "")
	return c.restart()
}

// restart ends the control plane, if it runs, and starts it anew on what it kept.
func (c *control) restart(change ...func(*options)) *control {
	c.t.Helper()
	if c.stop != nil {
		if err := c.stop(); err != nil {
			c.t.Fatal(err)
		}
	}
	return startControl(c.t, c.dir, append([]func(*options){func(o *options) {
		o.HoldFor, o.OfflineGrace, o.DrainWindow = hold, 300*time.Millisecond, 10*time.Minute
	}}, change...)...)
}

// list replaces the list of devices.
func (c *control) list(all []topology.Device) {
	c.t.Helper()
	text, err := json.Marshal(all)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write("devices.json", string(text))
}

// machine is an online device, whose address is one of loopback so that its
// Envoy can be played.
func machine(n int, tags ...string) topology.Device {
	return topology.Device{ID: fmt.Sprint(n), Name: fmt.Sprintf("d%02d", n), Addresses: []string{fmt.Sprintf("127.0.0.%d", n+10)}, Tags: tags, Online: true}
}

// machines are n devices with the same tags.
func machines(n int, tags ...string) []topology.Device {
	var all []topology.Device
	for i := range n {
		all = append(all, machine(i+1, tags...))
	}
	return all
}

// each is a copy of the devices, changed from one index to another.
func each(all []topology.Device, from, to int, change func(*topology.Device)) []topology.Device {
	all = append([]topology.Device{}, all...)
	for i := from; i < to; i++ {
		change(&all[i])
	}
	return all
}

func offline(d *topology.Device) { d.Online = false }

func TestTrialMistypedWeightsAndARestart(t *testing.T) {
	t.Parallel()
	all := machines(4, "tag:weight-2")
	c := trial(t, all)
	c.connect("127.0.0.1", "server").await("server", "d01=2 d02=2 d03=2 d04=2")
	c.list(each(all, 0, 4, func(d *topology.Device) { d.Tags = []string{"tag:weight-two"} }))
	c.await("the problems", func() bool { return len(c.status().Problems) == 8 })
	c = c.restart()
	e := c.connect("127.0.0.1", "server")
	e.keeps(3*hold, "server", "d01=2 d02=2 d03=2 d04=2")
	// What was kept is as good as what was there: a new weight still acts.
	c.list(each(all, 0, 1, func(d *topology.Device) { d.Tags = []string{"tag:weight-9"} }))
	e.await("server", "d01=9 d02=2 d03=2 d04=2")
}

func TestTrialABadGrantOfTwo(t *testing.T) {
	t.Parallel()
	grants := func(weight string) func(*topology.Device) {
		return func(d *topology.Device) {
			d.Grants = []json.RawMessage{json.RawMessage(`{"service":"hello","weight":` + weight + `}`), json.RawMessage(`{"service":"web","port":81,"weight":3}`)}
		}
	}
	all := each(machines(2), 0, 2, grants("2"))
	c := trial(t, all)
	e := c.connect("127.0.0.1", "hello", "web")
	e.await("hello", "d01=2 d02=2")
	c.list(each(all, 0, 2, grants(`"5"`)))
	c.await("the problems", func() bool { return len(c.status().Problems) == 4 })
	e.keeps(3*hold, "hello", "d01=2 d02=2")
	if e.has("web") != "d01=3 d02=3" || e.host("hello") != "hello" || e.host("web") != "web" {
		t.Errorf("web has %q, hello goes to %s", e.has("web"), e.host("hello"))
	}
}

func TestTrialAMistypedService(t *testing.T) {
	t.Parallel()
	all := machines(2, "tag:service-hello", "tag:weight-2")
	c := trial(t, all)
	e := c.connect("127.0.0.1", "hello", "server")
	e.await("hello", "d01=2 d02=2")
	c.list(each(all, 0, 1, func(d *topology.Device) { d.Tags = []string{"tag:service-hello_v2", "tag:weight-3"} }))
	e.await("hello", "d01=3 d02=2") // its weight is no mistake
	if e.has("server") != "" || e.host("hello") != "hello" {
		t.Errorf("the default service has %q, hello goes to %s", e.has("server"), e.host("hello"))
	}
}

func TestTrialAMistypedDrain(t *testing.T) {
	t.Parallel()
	all := each(machines(2, "tag:weight-2"), 0, 1, func(d *topology.Device) { d.Tags = []string{"tag:weight-0"} })
	c := trial(t, all)
	e := c.connect("127.0.0.1", "server")
	e.await("server", "d02=2")
	c.list(each(all, 0, 1, func(d *topology.Device) { d.Tags = []string{"tag:weight-O"} }))
	c.await("the problem", func() bool { return len(c.status().Problems) == 2 })
	c = c.restart()
	c.connect("127.0.0.1", "server").keeps(2*hold, "server", "d02=2")
}

func TestTrialAFirstListSaysOfflineOfAll(t *testing.T) {
	t.Parallel()
	c := trial(t, each(machines(3, "tag:weight-1"), 0, 3, offline))
	e := c.connect("127.0.0.1", "server")
	e.keeps(3*hold, "server", "d01=1 d02=1 d03=1")
	c.wantHeld("server", "the last 3 that serve are offline at once; they stay until another serves, or until `tailxds accept server`")
}

func TestTrialAnEmptyListForLong(t *testing.T) {
	t.Parallel()
	c := trial(t, machines(4, "tag:weight-1"))
	e := c.connect("127.0.0.1", "server")
	e.await("server", "d01=1 d02=1 d03=1 d04=1")
	c.list([]topology.Device{})
	e.keeps(5*hold, "server", "d01=1 d02=1 d03=1 d04=1")
	c.wantHeld("server", "the last 4 that serve are missing at once")
	if s := c.status(); len(s.Degraded) != 1 || s.Degraded[0] != "server: 0 of 4 serving" || !s.Ready {
		t.Errorf("degraded %v, ready %v", s.Degraded, s.Ready)
	}
	if out := c.log.String(); !strings.Contains(out, "level=ERROR msg=\"DEGRADED: nobody serves\" service=server serving=0 of=4") {
		t.Errorf("the log:\n%s", out)
	}
	// Only a person says that it is the truth.
	if code, body := c.do(http.MethodPost, "/accept?service=server"); code != http.StatusOK {
		t.Errorf("accept: %d %s", code, body)
	}
	e.await("server", "")
}

func TestTrialTwoOfThreeBesideThirtyOthers(t *testing.T) {
	t.Parallel()
	all := append(machines(30, "tag:weight-1"), machine(31, "tag:service-hello"), machine(32, "tag:service-hello"), machine(33, "tag:service-hello"))
	c := trial(t, all)
	e := c.connect("127.0.0.1", "hello", "server")
	e.await("hello", "d31=1 d32=1 d33=1")
	c.list(all[:31])
	c.wantHeld("hello", "hello: 2 of 3 serving devices are missing at once; applied at ")
	if got := e.has("hello"); got != "d31=1 d32=1 d33=1" {
		t.Errorf("applied at once: %s", got)
	}
	e.await("hello", "d31=1") // it stood
	c.await("the end of the hold", func() bool { return len(c.status().Held) == 0 })
}

func TestTrialFlappingWearsNobodyDown(t *testing.T) {
	t.Parallel()
	all := machines(10, "tag:weight-1")
	c := trial(t, all).restart(func(o *options) { o.HoldFor = 4 * hold })
	e := c.connect("127.0.0.1", "server")
	const half = "d06=1 d07=1 d08=1 d09=1 d10=1"
	c.list(each(all, 0, 5, offline))
	e.await("server", half)
	// Never for as long as the hold, also on a busy machine, and by far longer than
	// it in all.
	for range 4 {
		for _, n := range []int{6, 5, 6, 7} {
			c.list(each(all, 0, n, offline))
			e.keeps(hold/2, "server", half)
		}
	}
}

func TestTrialTheSourceFailsDuringAHold(t *testing.T) {
	t.Parallel()
	all := machines(4, "tag:weight-1")
	c := trial(t, all)
	e := c.connect("127.0.0.1", "server")
	e.await("server", "d01=1 d02=1 d03=1 d04=1")
	c.list(all[:1])
	c.wantHeld("server", "3 of 4")
	c.write("devices.json", "[{")
	c.await("a failure that lasts", func() bool {
		s := c.status()
		return s.Provider.Failures > 1 && time.Since(s.Provider.LastGood) > 2*hold
	})
	mended := time.Now()
	c.list(all[:1])
	e.await("server", "d01=1")
	if stood := time.Since(mended); stood < hold {
		t.Errorf("applied %v after the source was mended: the clock of the hold ran on", stood)
	}
}

// Two keys look at two tailnets: the second is another one's, and is empty.
func TestTrialAnotherTailnetsCredential(t *testing.T) {
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
	use := func(name string) func(*options) {
		return func(o *options) { o.Provider, o.Devices, o.APIURL, o.APIToken = name, "", api.URL, "key" }
	}
	c := &control{t: t, dir: t.TempDir(), log: &lockedBuffer{}}
	c.write("policy.yaml", "")
	c = c.restart(use(provider.Headscale))
	c.connect("127.0.0.1", "server").await("server", "d01=2 d02=3")

	c = c.restart(use(provider.Tailscale))
	e := c.connect("127.0.0.1", "server")
	c.wantHeld("server", "the last 2 that serve are missing at once")
	e.keeps(3*hold, "server", "d01=2 d02=3")

	// The same machines, by this provider's IDs: nothing is lost.
	devices.Store(`{"devices":[{"nodeId":"nB","name":"d02.example.ts.net","addresses":["127.0.0.12"],"tags":["tag:weight-3"],"connectedToControl":true},
		{"nodeId":"nA","name":"d01.example.ts.net","addresses":["127.0.0.11"],"tags":["tag:weight-7"],"connectedToControl":true}]}`)
	e.await("server", "d01=7 d02=3")
	c.await("nothing to be held", func() bool { return len(c.status().Held) == 0 })
}

func TestTrialAllKeysExpireTogether(t *testing.T) {
	t.Parallel()
	all := machines(4, "tag:weight-1")
	c := trial(t, all)
	e := c.connect("127.0.0.1", "server")
	e.await("server", "d01=1 d02=1 d03=1 d04=1")
	soon := time.Now().Add(2 * time.Second)
	expire := func(d *topology.Device) { d.Expires = &soon }
	c.list(each(all, 0, 4, expire))
	c.wantHeld("server", "the last 4 that serve are expiring at once")
	e.keeps(3*hold, "server", "d01=1 d02=1 d03=1 d04=1")
	// With one whose key lasts, the others drain as they should.
	c.list(each(all, 0, 3, expire))
	e.await("server", "d04=1")
}

func TestTrialARegionLosesOnlyItsCoordinationServer(t *testing.T) {
	t.Parallel()
	all := machines(4, "tag:weight-1")
	c := trial(t, all)
	e := c.connect("127.0.0.1", "server")
	e.await("server", "d01=1 d02=1 d03=1 d04=1")
	first, second := c.connect("127.0.0.11", "server"), c.connect("127.0.0.12", "server")
	c.list(each(all, 0, 2, offline))
	c.await("the problems", func() bool { return len(c.status().Problems) == 2 })
	e.keeps(3*hold, "server", "d01=1 d02=1 d03=1 d04=1")
	if p := c.status().Problems[0]; p.Subject != "offline" || !strings.Contains(p.Reason, "its own Envoy is connected") {
		t.Errorf("problem %+v", p)
	}
	// The last word of a witness is that it leaves.
	first.stop()
	e.await("server", "d02=1 d03=1 d04=1")
	second.stop()
	e.await("server", "d03=1 d04=1")
}

func TestTrialABadPolicyAtAStart(t *testing.T) {
	t.Parallel()
	all := machines(2, "tag:weight-1")
	c := trial(t, all)
	c.write("policy.yaml", "services: {server: {hosts: [shop.example.com]}}\n")
	c.connect("127.0.0.1", "server").await("server", "d01=1 d02=1")
	c.await("the policy to be kept", func() bool {
		text, _ := os.ReadFile(filepath.Join(c.dir, "state", "memory.json"))
		return strings.Contains(string(text), "shop.example.com")
	})
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	c.write("policy.yaml", "services: {server: {hots: [shop.example.com]}}\n")
	c = c.restart()
	e := c.connect("127.0.0.1", "server")
	c.await("the last good routes", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.hosts["shop.example.com"] == "server"
	})
	if s := c.status(); !strings.Contains(s.Policy.Error, "hots") {
		t.Errorf("policy: %+v", s.Policy)
	}
}

// A memory that makes no sense stops no start, and is kept for whoever wonders.
func TestTrialAMemoryOfNonsense(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"cut short":      `{"version":1,"memory":{`,
		"no memory":      `{"version":1,"devices":[]}`,
		"no devices":     `{"version":1,"memory":{}}`,
		"from to-morrow": `{"version":2,"memory":{},"devices":[]}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := &control{t: t, dir: t.TempDir(), log: &lockedBuffer{}}
			c.list(machines(2, "tag:weight-1"))
			c.write("policy.yaml", "")
			if err := os.Mkdir(filepath.Join(c.dir, "state"), 0o700); err != nil {
				t.Fatal(err)
			}
			c.write("state/memory.json", text)
			c = c.restart()
			c.connect("127.0.0.1", "server").await("server", "d01=1 d02=1")
			if kept, _ := os.ReadFile(filepath.Join(c.dir, "state", "memory.json.corrupt")); string(kept) != text {
				t.Errorf("set aside: %q", kept)
			}
			if !strings.Contains(c.log.String(), "the saved state cannot be read; starting without it") {
				t.Errorf("the log:\n%s", c.log.String())
			}
			c.wantLostState(true)
			if code, answer := c.do(http.MethodPost, "/accept"); code != http.StatusOK {
				t.Errorf("accept: %d %s", code, answer)
			}
			c.wantLostState(false)
			if code, _ := c.do(http.MethodPost, "/accept"); code != http.StatusConflict {
				t.Errorf("accept with nothing left: %d", code)
			}
		})
	}
}

// wantLostState checks everywhere an operator looks whether it says that the saved
// state was lost.
func (c *control) wantLostState(want bool) {
	c.t.Helper()
	_, ready := c.do(http.MethodGet, "/readyz")
	_, metrics := c.do(http.MethodGet, "/metrics")
	problems := slices.ContainsFunc(c.status().Problems, func(p topology.Problem) bool {
		return p.Subject == "state" && strings.Contains(p.Reason, "drains and held endpoints from before the start are lost") && strings.Contains(p.Reason, "memory.json.corrupt")
	})
	if got := strings.HasPrefix(ready, "ready, but the saved state cannot be read"); got != want || strings.Contains(metrics, "\ntailxds_state_lost 1\n") != want || problems != want {
		c.t.Errorf("lost %t: readyz %q, problem %t", want, ready, problems)
	}
}

// A disk that is full is told everywhere an operator looks, and once there is room
// the state is saved without news.
func TestState_diskFull_isToldAndSavedLater(t *testing.T) {
	t.Parallel()
	c := &control{t: t, dir: t.TempDir(), log: &lockedBuffer{}}
	c.list(machines(2, "tag:weight-1"))
	c.write("policy.yaml", "")
	c = c.restart()
	c.awaitWeights("d01=1 d02=1")
	// A directory where the file belongs can't be replaced by it. A save may come in
	// between.
	memory := filepath.Join(c.dir, "state", "memory.json")
	c.await("a directory in place of the state", func() bool {
		return os.RemoveAll(memory) == nil && os.MkdirAll(filepath.Join(memory, "x"), 0o700) == nil
	})
	answer := c.operate("drain", "device", "d01")
	if !strings.Contains(answer, "BUT a restart would forget it") {
		t.Errorf("drain says %q", answer)
	}
	told := func() bool {
		_, ready := c.do(http.MethodGet, "/readyz")
		_, metrics := c.do(http.MethodGet, "/metrics")
		problem := slices.ContainsFunc(c.status().Problems, func(p topology.Problem) bool {
			return p.Subject == "state" && strings.Contains(p.Reason, "the state cannot be saved since")
		})
		return strings.Contains(ready, "the state cannot be saved since") && strings.Contains(metrics, "\ntailxds_state_unsaved 1\n") && problem
	}
	c.await("word of the disk", told)
	if err := os.RemoveAll(memory); err != nil {
		t.Fatal(err)
	}
	c.await("the state", func() bool {
		text, err := os.ReadFile(memory)
		return err == nil && strings.Contains(string(text), `"drain":true`)
	})
	c.await("no word of the disk", func() bool { return !told() })
}
