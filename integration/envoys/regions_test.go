package envoys_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

// world is servers in regions.
type world struct {
	*harness.Rig
	control *harness.ControlPlane
	servers map[string]*harness.Server
}

// sick makes the servers with these letters sick, and no others.
func (w *world) sick(letters string) {
	for name, server := range w.servers {
		server.SetUnhealthy(strings.Contains(letters, name))
	}
}

// settled waits until an Envoy does as its servers' health asks. It hands such
// changes to its workers once a second.
func (w *world) settled(entry *harness.Envoy, service, sick string) {
	entry.AwaitStats(map[string]int{
		"cluster." + service + ".membership_healthy": len(w.servers) - len(sick), "cluster." + service + ".membership_total": len(w.servers),
	})
	w.Await("nobody who is sick answers", func() error {
		for name, n := range entry.Ask(100, harness.Get(entry.URL(10000), service)).By(shares.Host).Counts {
			if strings.Contains(sick, name) {
				return fmt.Errorf("%s answers %d times", name, n)
			}
		}
		return nil
	})
}

// matrix is what internal/balance says of each mode: its servers, and each
// one's share in percent.
type matrix struct {
	Servers []string
	Cases   []struct {
		Mode, Caller, Sick string
		Shares             shares.Shares
	}
}

// wrong are the shares of other modes and callers, where they can be told from
// those of case i.
func (m matrix) wrong(i int) []shares.Shares {
	var all []shares.Shares
	for _, other := range m.Cases {
		if other.Sick != m.Cases[i].Sick {
			continue
		}
		for name, share := range other.Shares {
			if math.Abs(share-m.Cases[i].Shares[name]) > 5 {
				all = append(all, other.Shares)
				break
			}
		}
	}
	return all
}

// TestLocality_modesCallersAndFailures_sharesAsSpecified holds real Envoys to the arithmetic of internal/balance: each
// mode, for callers in a region with servers, in one without, and in none, while
// all is well, one server is sick and a region is. Nearest has a test of its own.
func TestLocality_modesCallersAndFailures_sharesAsSpecified(t *testing.T) {
	t.Parallel()
	var m matrix
	text, err := os.ReadFile("../../internal/balance/testdata/matrix.json")
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil || len(m.Cases) == 0 {
		t.Fatalf("what balance says: %d cases, %v", len(m.Cases), err)
	}
	w := &world{Rig: newRig(t), servers: map[string]*harness.Server{}}
	var devices []harness.Device
	modes := []string{"weighted", "exact", "local"}
	for _, line := range m.Servers {
		f := strings.Fields(line)
		weight, err := strconv.Atoi(f[2])
		if err != nil {
			t.Fatal(err)
		}
		w.servers[f[0]] = w.Server(f[0])
		device := w.servers[f[0]].Device()
		for _, mode := range modes {
			device.Grants = append(device.Grants, map[string]any{"service": mode, "region": f[1], "weight": weight})
		}
		devices = append(devices, device)
	}
	w.control = w.ControlPlane("services: {weighted: {locality: weighted}, exact: {locality: exact}, local: {locality: local}}", devices...)
	entries := map[string]*harness.Envoy{"": w.control.Envoy("nowhere")}
	for _, region := range []string{"west", "asia"} {
		entries[region] = w.control.EnvoyIn(region, "entry-"+region)
	}
	for _, sick := range []string{"", "b", "ab"} {
		w.sick(sick)
		for i, c := range m.Cases {
			if c.Sick != sick {
				continue
			}
			entry := entries[c.Caller]
			w.settled(entry, c.Mode, sick)
			if err := entry.CheckShares(harness.Get(entry.URL(10000), c.Mode), c.Shares, m.wrong(i)...); err != nil {
				t.Errorf("%s, called from %q, with %q sick: %v", c.Mode, c.Caller, sick, err)
			}
		}
	}
}

func TestFailover_regionUnhealthy_nextInOrderServes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	servers := map[string]*harness.Server{}
	var devices []harness.Device
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
			if got := west.Ask(100, harness.Get(west.URL(10000), "")).By(shares.Host); got.Counts[region] != 100 {
				return fmt.Errorf("%v, %d failed", got.Counts, got.Failed)
			}
			return nil
		})
		servers[region].SetUnhealthy(true)
		west.AwaitStats(map[string]int{"cluster.server.membership_healthy": len(order) - i - 1})
	}
}

// Whatever mode follows another while requests flow, none of them fails.
func TestLocality_modeChanges_noRequestFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var devices []harness.Device
	for name, region := range map[string]string{"a": "west", "b": "west", "c": "east", "d": "east"} {
		devices = append(devices, r.Server(name).Device("tag:weight-1", "tag:region-"+region))
	}
	control := r.ControlPlane("", devices...)
	west := control.EnvoyIn("west", "entry")
	west.AwaitHealthy("server", 4)
	gets, posts := west.Flow(2, harness.Get(west.URL(10000), "")), west.Flow(2, harness.Post(west.URL(10000), ""))
	for _, mode := range []string{"exact", "local", "nearest", "weighted", "local", "exact"} {
		updates := func() int {
			return west.Stat("cluster_manager.cds.update_success") + west.Stat("cluster.server.update_success")
		}
		before := updates()
		control.SetPolicy("defaults: {locality: " + mode + "}")
		r.Await("the mode "+mode, func() error {
			if updates() == before {
				return errors.New("not yet")
			}
			return nil
		})
		west.AwaitHealthy("server", 4)
		gets.AwaitMore(r, 200)
		posts.AwaitMore(r, 200)
	}
	for name, load := range map[string]*harness.Load{"GET": gets, "POST": posts} {
		if tally := load.Stop(); tally.Failed > 0 {
			t.Errorf("%d of %d %ss failed: %s", tally.Failed, tally.Failed+tally.Answered(), name, tally.Reasons)
		}
	}
}

// entering is how many requests enter in each region.
type entering map[string]int

// TestLocality_nearest_crossesAsLittleAsWeightsAllow holds the world's shares and the requests that cross regions, over
// five servers in three regions, to what is exact and the least that must.
func TestLocality_nearest_crossesAsLittleAsWeightsAllow(t *testing.T) {
	t.Parallel()
	w := &world{Rig: newRig(t), servers: map[string]*harness.Server{}}
	var devices []harness.Device
	home := map[string]string{"a": "west", "b": "west", "c": "east", "d": "east", "e": "eu"}
	for name, weight := range map[string]int{"a": 1, "b": 3, "c": 2, "d": 2, "e": 4} {
		w.servers[name] = w.Server(name)
		devices = append(devices, w.servers[name].Device(fmt.Sprintf("tag:weight-%d", weight), "tag:region-"+home[name]))
	}
	w.control = w.ControlPlane("defaults: {locality: nearest}", devices...)
	entries := map[string]*harness.Envoy{}
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
		{"a region without entries", entering{"west": 50, "east": 50}, "", shares.Shares{"a": 1, "b": 3, "c": 2, "d": 2, "e": 4}, 33.3},
		{"a region without servers", entering{"west": 30, "east": 20, "eu": 20, "asia": 30}, "", shares.Shares{"a": 1, "b": 3, "c": 2, "d": 2, "e": 4}, 30},
	} {
		t.Run(test.name, func(t *testing.T) {
			w.sick(test.sick)
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
func flow(t *testing.T, w *world, entries map[string]*harness.Envoy, enter entering, home map[string]string, want shares.Shares, least float64) {
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
				part := entries[region].Ask(120*n/sum, harness.Get(entries[region].URL(10000), "")).By(shares.Host)
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
