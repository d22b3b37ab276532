package controlplane_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/controlplane"
	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
	"github.com/tailxds/tailxds/internal/topology"
)

// What a restart may do, also where the source is away all the while.

// sourceFails leaves the control plane without a list until the next [controlplanetest.Control.List].
func awaitFailingSource(c *controlplanetest.Control) {
	c.T.Helper()
	c.Write("devices.json", "[{")
}

// failures are those of the source in a row; 0 also while it is not asked yet.
func failures(c *controlplanetest.Control) int {
	c.T.Helper()
	if p := c.Status().Provider; p != nil {
		return p.Failures
	}
	return 0
}

func TestRestart_sourceAway_serves(t *testing.T) {
	t.Parallel()
	c := controlplanetest.Trial(t, controlplanetest.Machines(3, "tag:weight-2"))
	c.Connect("127.0.0.1", "server").Await("server", "d01=2 d02=2 d03=2")
	awaitFailingSource(c)
	for range 3 {
		c = c.Restart()
		c.Await("a failure", func() bool { return failures(c) > 1 })
		// A stream is a reason to judge again, by what was kept.
		c.Connect("127.0.0.11", "server").Await("server", "d01=2 d02=2 d03=2")
		c.Await("it to be known", func() bool { return len(c.Status().Envoys) == 1 })
		if s := c.Status(); len(s.Held) > 0 || len(s.Degraded) > 0 || len(s.Devices) != 3 {
			t.Fatalf("held %+v, degraded %v, %d devices: what was kept is not what is judged", s.Held, s.Degraded, len(s.Devices))
		}
	}
}

// What is held is of devices that the list lacks: nothing of it would be kept
// if only the devices of the list were.
func TestRestart_held_isStillHeld(t *testing.T) {
	t.Parallel()
	c := controlplanetest.Trial(t, controlplanetest.Machines(2, "tag:weight-2"))
	c.Connect("127.0.0.1", "server").Await("server", "d01=2 d02=2")
	c.List([]topology.Device{})
	c.WantHeld("server", "the last 2 that serve are missing at once")
	c = c.Restart(func(o *controlplane.Config) { o.Devices = filepath.Join(c.Dir, "away.json") })
	c.Connect("127.0.0.1", "server").Await("server", "d01=2 d02=2")
	if s := c.Status(); len(s.Held) != 1 || len(s.Held[0].Endpoints) != 2 {
		t.Errorf("held %+v", s.Held)
	}
}

// Nothing is published before there is anything to publish: Envoys of another
// control plane would lose what they have.
func TestRestart_policyEditBeforeFirstList_acts(t *testing.T) {
	t.Parallel()
	var answers atomic.Bool
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !answers.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"nodes": [{"id": "d01", "givenName": "d01", "ipAddresses": ["100.64.0.1"], "tags": ["tag:weight-1"], "online": true}]}`)
	}))
	t.Cleanup(source.Close)
	c := controlplanetest.New(t)
	c.Write("policy.yaml", "")
	c = c.Restart(func(o *controlplane.Config) { o.Provider, o.APIURL = "headscale", source.URL })
	c.Await("a failure", func() bool { return failures(c) > 0 })
	c.Write("policy.yaml", "defaults: {retries: 1}\n")
	c.Await("the new policy", func() bool { return strings.Contains(c.Log.String(), "policy reloaded") })
	c.Await("a further failure", func() bool { return failures(c) > 2 })
	if s := c.Status(); s.Ready || s.At != nil {
		t.Errorf("published without a list: %+v", s)
	}
	answers.Store(true)
	c.Connect("127.0.0.1", "server").Await("server", "d01=1")
}

func TestRestart_stateOfLaterVersion_isRead(t *testing.T) {
	t.Parallel()
	c := controlplanetest.Trial(t, controlplanetest.Machines(2, "tag:weight-2"))
	c.Connect("127.0.0.1", "server").Await("server", "d01=2 d02=2")
	awaitFailingSource(c)
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.Dir, "state", "memory.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// It knows more, and has taken nothing away: who rolls back loses nothing.
	c.Write("state/memory.json", strings.Replace(string(text), `{"version":1,`, `{"version":1,"moods":{"d01":"fine"},`, 1))
	c = c.Restart()
	c.Connect("127.0.0.1", "server").Await("server", "d01=2 d02=2")
}

// A region that lost only its path to the coordination server serves by the
// word of its Envoys. They come again after a restart, but not at once.
func TestRestart_regionWithoutCoordinationServer_serves(t *testing.T) {
	t.Parallel()
	all := controlplanetest.Machines(4, "tag:weight-1")
	c := controlplanetest.Trial(t, all)
	e := c.Connect("127.0.0.1", "server")
	e.Await("server", "d01=1 d02=1 d03=1 d04=1")
	c.Connect("127.0.0.11", "server")
	c.Connect("127.0.0.12", "server")
	c.List(controlplanetest.Each(all, 0, 2, controlplanetest.Offline))
	c.Await("the problems", func() bool { return len(c.Status().Problems) == 2 })
	c.Passes(time.Second)
	c = c.Restart()
	e = c.Connect("127.0.0.1", "server")
	e.Keeps(2*controlplanetest.Hold, "server", "d01=1 d02=1 d03=1 d04=1")
	if s := c.Status(); len(s.Problems) != 2 || !strings.Contains(s.Problems[0].Reason, "its own Envoy was connected") {
		t.Errorf("problems %+v", s.Problems)
	}
	c.Connect("127.0.0.11", "server")
	c.Await("the first to be here again", func() bool {
		for _, p := range c.Status().Problems {
			if strings.Contains(p.Reason, "its own Envoy is connected") {
				return true
			}
		}
		return false
	})
}
