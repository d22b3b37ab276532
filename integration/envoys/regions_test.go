package envoys_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/envoys"
	"github.com/tailxds/tailxds/integration/shares"
)

// world is servers in regions, with weights: a 1 and b 3 in west, c and d with 2
// each in east.
type world struct {
	*envoys.Rig
	control *envoys.ControlPlane
	servers map[string]*envoys.Server
}

func newWorld(t *testing.T, policy string) *world {
	t.Helper()
	w := &world{Rig: newRig(t), servers: map[string]*envoys.Server{}}
	var devices []envoys.Device
	for name, tags := range map[string]string{"a": "weight-1 region-west", "b": "weight-3 region-west", "c": "weight-2 region-east", "d": "weight-2 region-east"} {
		w.servers[name] = w.Server(name)
		devices = append(devices, w.servers[name].Device(strings.Fields("tag:"+strings.ReplaceAll(tags, " ", " tag:"))...))
	}
	w.control = w.ControlPlane(policy, devices...)
	return w
}

// expect makes some servers sick, and holds the shares of requests that enter
// at an Envoy against what is wanted, and against what must not be taken for it.
func (w *world) expect(t *testing.T, entry *envoys.Envoy, sick string, want shares.Shares, wrong ...shares.Shares) {
	t.Helper()
	for name, server := range w.servers {
		server.Sick(strings.Contains(sick, name))
	}
	defer func() {
		for _, server := range w.servers {
			server.Sick(false)
		}
		entry.AwaitHealthy("server", len(w.servers))
	}()
	entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": len(w.servers) - len(sick), "cluster.server.membership_total": len(w.servers)})
	// Envoy hands such changes to its workers once a second.
	w.Await("nobody who is sick answers", func() error {
		for name, n := range entry.Ask(100, envoys.Get(entry.URL(10000), "")).By(shares.Host).Counts {
			if strings.Contains(sick, name) {
				return fmt.Errorf("%s answers %d times", name, n)
			}
		}
		return nil
	})
	tally := entry.Ask(shares.Enough(want, wrong...), envoys.Get(entry.URL(10000), ""))
	if err := shares.Check(tally.By(shares.Host), want); err != nil {
		t.Errorf("with %q sick: %v", sick, err)
	}
}

func TestExactSharesOfWhatIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "defaults: {locality: exact}")
	entry := w.control.EnvoyIn("west", "entry")
	entry.AwaitHealthy("server", 4)
	w.expect(t, entry, "", shares.Shares{"a": 1, "b": 3, "c": 2, "d": 2})
	w.expect(t, entry, "b", shares.Shares{"a": 1, "c": 2, "d": 2}, shares.Shares{"a": 2.8, "c": 2, "d": 2}) // the other mode's
	w.expect(t, entry, "ab", shares.Shares{"c": 1, "d": 1})
}

func TestLocalKeepsRequestsInTheirRegion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "defaults: {locality: local}")
	west, east, nowhere := w.control.EnvoyIn("west", "west"), w.control.EnvoyIn("east", "east"), w.control.Envoy("nowhere")
	for _, entry := range []*envoys.Envoy{west, east, nowhere} {
		entry.AwaitHealthy("server", 4)
	}
	all := shares.Shares{"a": 1, "b": 3, "c": 2, "d": 2}
	w.expect(t, west, "", shares.Shares{"a": 1, "b": 3})
	w.expect(t, east, "", shares.Shares{"c": 1, "d": 1})
	w.expect(t, nowhere, "", all)
	// What a lost server carried spills; who is left is not overloaded.
	w.expect(t, west, "b", shares.Shares{"a": 25, "c": 37.5, "d": 37.5}, shares.Shares{"a": 70, "c": 15, "d": 15})
	w.expect(t, west, "a", shares.Shares{"b": 75, "c": 12.5, "d": 12.5})
	w.expect(t, east, "b", shares.Shares{"c": 1, "d": 1})
	w.expect(t, west, "ab", shares.Shares{"c": 1, "d": 1})
	w.expect(t, east, "cd", shares.Shares{"a": 1, "b": 3})
}

func TestFailoverOrdersTheOtherRegions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	servers := map[string]*envoys.Server{}
	var devices []envoys.Device
	for _, region := range []string{"west", "east", "central", "eu"} {
		servers[region] = r.Server(region)
		devices = append(devices, servers[region].Device("tag:weight-1", "tag:region-"+region))
	}
	control := r.ControlPlane("defaults: {locality: local, failover: [central, east]}", devices...)
	west := control.EnvoyIn("west", "entry")
	west.AwaitHealthy("server", 4)
	order := []string{"west", "central", "east", "eu"}
	for i, region := range order {
		r.Await(fmt.Sprintf("%v are sick, and %s serves", order[:i], region), func() error {
			if got := west.Ask(100, envoys.Get(west.URL(10000), "")).By(shares.Host); got.Counts[region] != 100 {
				return fmt.Errorf("%v, %d failed", got.Counts, got.Failed)
			}
			return nil
		})
		servers[region].Sick(true)
		west.AwaitStats(map[string]int{"cluster.server.membership_healthy": len(order) - i - 1})
	}
}

// Whatever mode follows another while requests flow, none of them fails.
func TestNoRequestFailsWhileTheModeChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	west := w.control.EnvoyIn("west", "entry")
	west.AwaitHealthy("server", 4)
	flow := west.Flow(4, envoys.Get(west.URL(10000), ""))
	for _, mode := range []string{"exact", "local", "nearest", "weighted", "local", "exact"} {
		updates := func() int {
			return west.Stat("cluster_manager.cds.update_success") + west.Stat("cluster.server.update_success")
		}
		before := updates()
		w.control.SetPolicy("defaults: {locality: " + mode + "}")
		w.Await("the mode "+mode, func() error {
			if updates() == before {
				return errors.New("not yet")
			}
			return nil
		})
		west.AwaitHealthy("server", 4)
		flow.More(w.Rig, 200)
	}
	if tally := flow.Stop(); tally.Failed > 0 {
		t.Errorf("%d of %d requests failed: %s", tally.Failed, tally.Answered(), tally.Reasons)
	}
}

// entering is how many requests enter in each region.
type entering map[string]int

// TestNearest holds the world's shares and the requests that cross regions, over
// five servers in three regions, to what is exact and the least that must.
func TestNearest(t *testing.T) {
	t.Parallel()
	w := &world{Rig: newRig(t), servers: map[string]*envoys.Server{}}
	var devices []envoys.Device
	home := map[string]string{"a": "west", "b": "west", "c": "east", "d": "east", "e": "eu"}
	for name, weight := range map[string]int{"a": 1, "b": 3, "c": 2, "d": 2, "e": 4} {
		w.servers[name] = w.Server(name)
		devices = append(devices, w.servers[name].Device(fmt.Sprintf("tag:weight-%d", weight), "tag:region-"+home[name]))
	}
	w.control = w.ControlPlane("defaults: {locality: nearest}", devices...)
	entries := map[string]*envoys.Envoy{}
	for _, region := range []string{"west", "east", "eu", "asia"} {
		entries[region] = w.control.EnvoyIn(region, "entry-"+region)
		entries[region].AwaitHealthy("server", 5)
	}
	for _, test := range []struct {
		name  string
		enter entering
		sick  string
		want  shares.Shares
		least float64 // percent that must cross
	}{
		{"60/30/10", entering{"west": 60, "east": 30, "eu": 10}, "", shares.Shares{"a": 1, "b": 3, "c": 2, "d": 2, "e": 4}, 26.7},
		{"the same, e down", entering{"west": 60, "east": 30, "eu": 10}, "e", shares.Shares{"a": 1, "b": 3, "c": 2, "d": 2}, 20},
		{"the same, b down", entering{"west": 60, "east": 30, "eu": 10}, "b", shares.Shares{"a": 1, "c": 2, "d": 2, "e": 4}, 48.9},
		{"even", entering{"west": 1, "east": 1, "eu": 1}, "", shares.Shares{"a": 1, "b": 3, "c": 2, "d": 2, "e": 4}, 0},
		{"a region without servers", entering{"west": 30, "east": 20, "eu": 20, "asia": 30}, "", shares.Shares{"a": 1, "b": 3, "c": 2, "d": 2, "e": 4}, 30},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, server := range w.servers {
				server.Sick(strings.Contains(test.sick, name))
			}
			for _, entry := range entries {
				entry.AwaitStats(map[string]int{"cluster.server.membership_healthy": 5 - len(test.sick)})
			}
			flow(t, w, entries, test.enter, home, test.want, test.least)
		})
	}
}

// flow sends requests into the regions at their rates until shares and crossing
// are as they should be: Envoys report each five seconds, and what they report
// is smoothed.
func flow(t *testing.T, w *world, entries map[string]*envoys.Envoy, enter entering, home map[string]string, want shares.Shares, least float64) {
	t.Helper()
	const rounds = 20
	var sum int
	for _, n := range enter {
		sum += n
	}
	deadline := time.Now().Add(90 * time.Second)
	for {
		tally, crossing, all := shares.Tally{Counts: map[string]int{}}, 0, 0
		for range rounds {
			for region, n := range enter {
				part := entries[region].Ask(120*n/sum, envoys.Get(entries[region].URL(10000), "")).By(shares.Host)
				tally.Failed += part.Failed
				for name, n := range part.Counts {
					tally.Counts[name] += n
					all += n
					if home[name] != region {
						crossing += n
					}
				}
			}
		}
		err := shares.Check(tally, want)
		percent := 100 * float64(crossing) / float64(all)
		if err == nil && (percent > least+1.5 || percent < least-1.5) {
			err = fmt.Errorf("%.1f %% of %d requests cross regions, want %.1f", percent, all, least)
		}
		if tally.Failed > 0 {
			t.Fatalf("%d requests failed: %s", tally.Failed, tally.Reasons)
		}
		if err == nil {
			t.Logf("%v, %.1f %% cross", tally.Counts, percent)
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
