package balance

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tailxds/tailxds/internal/topology"
)

// service makes a service of "name region weight" lines.
func service(lines ...string) topology.Service {
	var all []topology.Endpoint
	for i, line := range lines {
		e := topology.Endpoint{State: topology.Serving, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 0, byte(i + 1)}), 80)}
		if _, err := fmt.Sscanf(line, "%s %s %d %d", &e.Name, &e.Region, &e.Weight, &e.Priority); err != nil && !strings.Contains(line, " ") {
			panic(err)
		}
		e.Device = e.Name
		all = append(all, e)
	}
	return topology.NewService("s", all)
}

func down(names ...string) func(topology.Endpoint) bool {
	return func(e topology.Endpoint) bool { return !slices.Contains(names, e.Name) }
}

// text writes shares as "a 20.0 c 40.0", by name.
func text(s topology.Service, shares []float64) string {
	var all []string
	for i, e := range s.Serving() {
		all = append(all, fmt.Sprintf("%s %.1f", e.Name, 100*shares[i]))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// The figures were measured on real Envoys.
func TestShares_modes_matchEnvoy(t *testing.T) {
	four := []string{"a west 1", "b west 3", "c east 2", "d east 2"}
	for name, test := range map[string]struct {
		lines  []string
		mode   Mode
		caller Caller
		down   []string
		want   string
	}{
		"all is well":                           {four, Weighted, Caller{}, nil, "a 12.5 b 37.5 c 25.0 d 25.0"},
		"weighted scales by the count of hosts": {four, Weighted, Caller{}, []string{"b"}, "a 41.2 b 0.0 c 29.4 d 29.4"},
		"with a factor of one":                  {four, Weighted, Caller{Overprovisioning: 100}, []string{"b"}, "a 33.3 b 0.0 c 33.3 d 33.3"},
		"the walkthrough": {
			[]string{"w1 west 1", "w2 west 1", "e1 east 2", "e2 east 2"}, Weighted, Caller{}, []string{"w2"}, "e1 37.0 e2 37.0 w1 25.9 w2 0.0",
		},
		"what rounding leaves goes to the first level that takes any": {
			[]string{"x w 1 0", "a w 1 1", "a1 w 1 1", "a2 w 1 1", "b w 1 2", "b1 w 1 2", "b2 w 1 2", "c w 1 3", "c1 w 1 3", "c2 w 1 3"},
			Weighted,
			Caller{Overprovisioning: 100},
			[]string{"x", "a1", "a2", "b1", "b2", "c1", "c2"},
			"a 34.0 a1 0.0 a2 0.0 b 33.0 b1 0.0 b2 0.0 c 33.0 c1 0.0 c2 0.0 x 0.0",
		},
		"nearest of a region where none enters": {four, Nearest, Caller{Region: "west", Entries: map[string]float64{"west": 0, "east": 1}}, nil, "a 12.5 b 37.5 c 25.0 d 25.0"},
		"nearest before any entered":            {four, Nearest, Caller{Region: "west", Entries: map[string]float64{"west": 0, "east": 0}}, nil, "a 12.5 b 37.5 c 25.0 d 25.0"},
		"exact is exact":                        {four, Exact, Caller{}, []string{"b"}, "a 20.0 b 0.0 c 40.0 d 40.0"},
		"local keeps its own":                   {four, Local, Caller{Region: "west"}, nil, "a 25.0 b 75.0 c 0.0 d 0.0"},
		"local spills what it can't carry":      {four, Local, Caller{Region: "west"}, []string{"b"}, "a 25.0 b 0.0 c 37.5 d 37.5"},
		"local without a server of its own":     {four, Local, Caller{Region: "eu"}, nil, "a 12.5 b 37.5 c 25.0 d 25.0"},
		"a region is down":                      {four, Local, Caller{Region: "west"}, []string{"a", "b"}, "a 0.0 b 0.0 c 50.0 d 50.0"},
		"failover orders the others": {
			[]string{"a west 1", "b east 1", "c central 1", "d eu 1"},
			Local,
			Caller{Region: "west", Failover: []string{"central", "east"}},
			[]string{"a"},
			"a 0.0 b 0.0 c 100.0 d 0.0",
		},
		"and all that is not named comes last": {
			[]string{"a west 1", "b east 1", "c central 1", "d eu 1"},
			Local,
			Caller{Region: "west", Failover: []string{"central"}},
			[]string{"a", "c"},
			"a 0.0 b 50.0 c 0.0 d 50.0",
		},
		"three regions that are each a third well; the first takes what rounding leaves": {
			[]string{"a1 west 1", "a2 west 1", "a3 west 1", "b1 east 1", "b2 east 1", "b3 east 1", "c1 eu 1", "c2 eu 1", "c3 eu 1"},
			Local,
			Caller{Region: "west", Failover: []string{"east", "eu"}},
			[]string{"a2", "a3", "b2", "b3", "c2", "c3"},
			"a1 34.0 a2 0.0 a3 0.0 b1 33.0 b2 0.0 b3 0.0 c1 33.0 c2 0.0 c3 0.0",
		},
		"an endpoint's priority goes before its region": {
			[]string{"a west 1 1", "b east 1 0", "c eu 1 0", "d west 1 1"},
			Local,
			Caller{Region: "west", Failover: []string{"eu"}},
			[]string{"c"},
			"a 0.0 b 100.0 c 0.0 d 0.0",
		},
		"and its region before another's": {
			[]string{"a west 1 1", "b east 1 0", "c eu 1 0", "d east 1 1"},
			Local,
			Caller{Region: "west", Failover: []string{"eu"}},
			[]string{"c", "b"},
			"a 100.0 b 0.0 c 0.0 d 0.0",
		},
		"nearest, seen from where more enters than it can carry, and nobody else has room but one": {
			[]string{"a west 1", "b east 1", "c eu 2"},
			Nearest,
			Caller{Region: "west", Entries: map[string]float64{"west": 50, "east": 25, "eu": 25}},
			nil,
			"a 50.0 b 0.0 c 50.0",
		},
		"nearest, seen from where just as much enters": {
			[]string{"a west 1", "b east 1"}, Nearest, Caller{Region: "west", Entries: map[string]float64{"west": 50, "east": 50}}, nil, "a 100.0 b 0.0",
		},
		"nearest is of the first priority alone": {
			[]string{"a west 1 0", "b west 1 1", "c east 3 1"},
			Nearest,
			Caller{Region: "west", Entries: map[string]float64{"west": 50, "east": 50}},
			[]string{"a"},
			"a 0.0 b 25.0 c 75.0",
		},
		"nearest, seen from west": {
			four, Nearest, Caller{Region: "west", Entries: map[string]float64{"west": 75, "east": 25}}, []string{"b"}, "a 26.7 b 0.0 c 36.7 d 36.7",
		},
		"nearest without measured entries is flat": {four, Nearest, Caller{Region: "west"}, nil, "a 12.5 b 37.5 c 25.0 d 25.0"},
		"an endpoint's own priority": {
			[]string{"a west 1 0", "b west 1 0", "c east 1 1"}, Weighted, Caller{}, []string{"a"}, "a 0.0 b 70.0 c 30.0",
		},
		"nobody is healthy, so all are tried": {four, Weighted, Caller{}, []string{"a", "b", "c", "d"}, "a 12.5 b 37.5 c 25.0 d 25.0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := service(test.lines...)
			if got := text(s, Shares(s, test.mode, test.caller, down(test.down...))); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// Nearest gives each its exact share of all the world's requests, and crosses
// regions no more than it must.
func TestGlobal_nearest_isExact(t *testing.T) {
	lines := []string{"a west 1", "b west 3", "c east 2", "d east 2", "e eu 4"}
	for name, test := range map[string]struct {
		entries  map[string]float64
		down     []string
		want     string
		crossing float64
	}{
		"60/30/10":                 {map[string]float64{"west": 60, "east": 30, "eu": 10}, nil, "a 8.3 b 25.0 c 16.7 d 16.7 e 33.3", 26.7},
		"the same, e down":         {map[string]float64{"west": 60, "east": 30, "eu": 10}, []string{"e"}, "a 12.5 b 37.5 c 25.0 d 25.0 e 0.0", 20.0},
		"the same, b down":         {map[string]float64{"west": 60, "east": 30, "eu": 10}, []string{"b"}, "a 11.1 b 0.0 c 22.2 d 22.2 e 44.4", 48.9},
		"33/33/33":                 {map[string]float64{"west": 1, "east": 1, "eu": 1}, nil, "a 8.3 b 25.0 c 16.7 d 16.7 e 33.3", 0},
		"two entries":              {map[string]float64{"west": 1, "east": 1}, nil, "a 8.3 b 25.0 c 16.7 d 16.7 e 33.3", 33.3},
		"an entry without servers": {map[string]float64{"west": 30, "east": 20, "eu": 20, "asia": 30}, nil, "a 8.3 b 25.0 c 16.7 d 16.7 e 33.3", 30.0},
	} {
		t.Run(name, func(t *testing.T) {
			s := service(lines...)
			shares, crossing := Global(s, Nearest, Caller{Entries: test.entries}, down(test.down...))
			if got := text(s, shares); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if math.Abs(100*crossing-test.crossing) > 0.06 {
				t.Errorf("%.1f %% cross, want %.1f", 100*crossing, test.crossing)
			}
		})
	}
}

// Whatever there is, the shares are shares, nobody sick gets any beside the
// healthy, and nearest is exact in the whole and the least that can cross.
func TestGlobal_noEntries_isEmpty(t *testing.T) {
	shares, crossing := Global(service("a west 1", "b east 3"), Nearest, Caller{Entries: map[string]float64{"west": 0, "east": 0}}, down())
	if !slices.Equal(shares, []float64{0, 0}) || crossing != 0 {
		t.Errorf("nobody asks, and the shares are %v, of which %v cross", shares, crossing)
	}
}

func TestShares_anyService_addUpToOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		regions := []string{"west", "east", "eu", "asia"}
		var all []topology.Endpoint
		for i := range rapid.IntRange(1, 8).Draw(t, "endpoints") {
			all = append(all, topology.Endpoint{
				Device: fmt.Sprint(i), Name: fmt.Sprint(i), State: topology.Serving,
				Region: rapid.SampledFrom(regions).Draw(t, "region"), Weight: rapid.Uint32Range(1, 9).Draw(t, "weight"),
			})
		}
		s := topology.NewService("s", all)
		sick := make(map[string]bool)
		for _, e := range all {
			sick[e.Name] = rapid.IntRange(0, 3).Draw(t, "sick") == 0
		}
		healthy := func(e topology.Endpoint) bool { return !sick[e.Name] }
		c := Caller{Entries: map[string]float64{}, Failover: rapid.Permutation(regions).Draw(t, "failover")[:2]}
		for _, r := range regions {
			if rapid.Bool().Draw(t, "entry") {
				c.Entries[r] = float64(rapid.IntRange(1, 100).Draw(t, "rate"))
			}
		}
		c.Entries["west"]++
		anyWell := slices.ContainsFunc(all, healthy)
		exact := Shares(s, Exact, c, healthy)
		for _, mode := range []Mode{Weighted, Exact, Nearest, Local} {
			for region := range c.Entries {
				caller := c
				caller.Region = region
				var sum float64
				for i, share := range Shares(s, mode, caller, healthy) {
					if sum += share; share < 0 || (anyWell && share > 0 && !healthy(s.Serving()[i])) {
						t.Fatalf("%s from %s: %s", mode, region, text(s, Shares(s, mode, caller, healthy)))
					}
				}
				if math.Abs(sum-1) > 1e-9 {
					t.Fatalf("%s from %s adds up to %v", mode, region, sum)
				}
			}
		}
		world, crossing := Global(s, Nearest, c, healthy)
		capacity := make(map[string]float64)
		for i := range world {
			if math.Abs(world[i]-exact[i]) > 1e-9 {
				t.Fatalf("nearest gives %s, exact is %s", text(s, world), text(s, exact))
			}
			capacity[s.Serving()[i].Region] += exact[i]
		}
		var least float64
		for region, entry := range normalize(c.Entries) {
			least += max(0, entry-capacity[region])
		}
		if math.Abs(crossing-least) > 1e-9 {
			t.Fatalf("%v cross, and %v must", crossing, least)
		}
	})
}

func TestDistance_regions_followFailover(t *testing.T) {
	order := []string{"central", "east"}
	for region, want := range map[string]int{"west": 0, "central": 1, "east": 2, "eu": 3, "": 3} {
		if got := Distance(region, "west", order); got != want {
			t.Errorf("%q is %d away, want %d", region, got, want)
		}
	}
	if got := Distance("eu", "west", nil); got != 1 {
		t.Errorf("without an order, eu is %d away", got)
	}
}
