package cli

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

	"github.com/tailxds/tailxds/internal/topology"
)

// What a restart may do, also where the source is away all the while.

// sourceFails leaves the control plane without a list until the next [control.list].
func (c *control) sourceFails() {
	c.t.Helper()
	c.write("devices.json", "[{")
}

// failures are those of the source in a row; 0 also while it is not asked yet.
func (c *control) failures() int {
	c.t.Helper()
	if p := c.status().Provider; p != nil {
		return p.Failures
	}
	return 0
}

func TestTrialRestartsWhileTheSourceIsAway(t *testing.T) {
	t.Parallel()
	c := trial(t, machines(3, "tag:weight-2"))
	c.connect("127.0.0.1", "server").await("server", "d01=2 d02=2 d03=2")
	c.sourceFails()
	for range 3 {
		c = c.restart()
		c.await("a failure", func() bool { return c.failures() > 1 })
		// A stream is a reason to judge again, by what was kept.
		c.connect("127.0.0.11", "server").await("server", "d01=2 d02=2 d03=2")
		c.await("it to be known", func() bool { return len(c.status().Envoys) == 1 })
		if s := c.status(); len(s.Held) > 0 || len(s.Degraded) > 0 || len(s.Devices) != 3 {
			t.Fatalf("held %+v, degraded %v, %d devices: what was kept is not what is judged", s.Held, s.Degraded, len(s.Devices))
		}
	}
}

// What is held is of devices that the list lacks: nothing of it would be kept
// if only the devices of the list were.
func TestTrialARestartOnWhatIsHeld(t *testing.T) {
	t.Parallel()
	c := trial(t, machines(2, "tag:weight-2"))
	c.connect("127.0.0.1", "server").await("server", "d01=2 d02=2")
	c.list([]topology.Device{})
	c.wantHeld("server", "the last 2 that serve are missing at once")
	c = c.restart(func(o *options) { o.Devices = filepath.Join(c.dir, "away.json") })
	c.connect("127.0.0.1", "server").await("server", "d01=2 d02=2")
	if s := c.status(); len(s.Held) != 1 || len(s.Held[0].Endpoints) != 2 {
		t.Errorf("held %+v", s.Held)
	}
}

// Nothing is published before there is anything to publish: Envoys of another
// control plane would lose what they have.
func TestTrialAPolicyEditBeforeTheFirstList(t *testing.T) {
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
	c := &control{t: t, dir: t.TempDir(), log: &lockedBuffer{}}
	c.write("policy.yaml", "")
	c = c.restart(func(o *options) { o.Provider, o.APIURL = "headscale", source.URL })
	c.await("a failure", func() bool { return c.failures() > 0 })
	c.write("policy.yaml", "defaults: {retries: 1}\n")
	c.await("the new policy", func() bool { return strings.Contains(c.log.String(), "policy reloaded") })
	c.await("a further failure", func() bool { return c.failures() > 2 })
	if s := c.status(); s.Ready || s.At != nil {
		t.Errorf("published without a list: %+v", s)
	}
	answers.Store(true)
	c.connect("127.0.0.1", "server").await("server", "d01=1")
}

func TestTrialADocumentOfALaterVersionOfTheProgram(t *testing.T) {
	t.Parallel()
	c := trial(t, machines(2, "tag:weight-2"))
	c.connect("127.0.0.1", "server").await("server", "d01=2 d02=2")
	c.sourceFails()
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.dir, "state", "memory.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// It knows more, and has taken nothing away: who rolls back loses nothing.
	c.write("state/memory.json", strings.Replace(string(text), `{"version":1,`, `{"version":1,"moods":{"d01":"fine"},`, 1))
	c = c.restart()
	c.connect("127.0.0.1", "server").await("server", "d01=2 d02=2")
}

// A region that lost only its path to the coordination server serves by the
// word of its Envoys. They come again after a restart, but not at once.
func TestTrialARestartWhileARegionLacksItsCoordinationServer(t *testing.T) {
	t.Parallel()
	all := machines(4, "tag:weight-1")
	c := trial(t, all)
	e := c.connect("127.0.0.1", "server")
	e.await("server", "d01=1 d02=1 d03=1 d04=1")
	c.connect("127.0.0.11", "server")
	c.connect("127.0.0.12", "server")
	c.list(each(all, 0, 2, offline))
	c.await("the problems", func() bool { return len(c.status().Problems) == 2 })
	c.passes(time.Second)
	c = c.restart()
	e = c.connect("127.0.0.1", "server")
	e.keeps(2*hold, "server", "d01=1 d02=1 d03=1 d04=1")
	if s := c.status(); len(s.Problems) != 2 || !strings.Contains(s.Problems[0].Reason, "its own Envoy was connected") {
		t.Errorf("problems %+v", s.Problems)
	}
	c.connect("127.0.0.11", "server")
	c.await("the first to be here again", func() bool {
		for _, p := range c.status().Problems {
			if strings.Contains(p.Reason, "its own Envoy is connected") {
				return true
			}
		}
		return false
	})
}
