// Package balance computes Envoy's load balancing: the share of the requests that
// each endpoint gets, by health and the caller's region. It is pure, and
// integration/envoys compares it with real Envoys.
//
// See
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/load_balancing/load_balancing.
package balance

import (
	"maps"
	"math"
	"slices"

	"github.com/tailxds/tailxds/internal/topology"
)

// Mode is a service's treatment of regions, as the policy file writes it.
type Mode string

// The modes.
const (
	// Weighted gives each region its weight, scaled by the share of its hosts
	// that is healthy.
	Weighted Mode = "weighted"
	// Exact gives each healthy endpoint its weight's share, wherever it is.
	Exact Mode = "exact"
	// Nearest gives each healthy endpoint its weight's share of all the world's
	// requests, and sends no more across regions than that takes.
	Nearest Mode = "nearest"
	// Local keeps requests in their region for as long as it can carry them.
	Local Mode = "local"
)

// Caller is where requests come from, and how they are balanced.
type Caller struct {
	// Region is the caller's.
	Region string
	// Entries are the requests that enter in each region, in any unit. Only [Nearest]
	// needs them.
	Entries map[string]float64
	// Failover orders the other regions for [Local]; regions that it lacks come last,
	// all at once.
	Failover []string
	// Overprovisioning is Envoy's factor in percent, 140 by default. [Local]
	// has its own, 100.
	Overprovisioning uint32
}

// host is an endpoint and its health.
type host struct {
	topology.Endpoint
	healthy bool
}

// Shares returns each endpoint's share of a caller's requests, from 0 to 1, in the
// order of [topology.Service.Serving]. Without a healthy endpoint all get requests.
func Shares(s topology.Service, mode Mode, c Caller, healthy func(topology.Endpoint) bool) []float64 {
	var hosts []host
	for _, e := range s.Serving() {
		hosts = append(hosts, host{e, healthy(e)})
	}
	if !slices.ContainsFunc(hosts, func(h host) bool { return h.healthy }) {
		for i := range hosts {
			hosts[i].healthy = true // panic: https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/load_balancing/panic_threshold
		}
	}
	levels := priorities(s, mode, c)
	loads := priorityLoads(hosts, levels, mode, c)
	shares := make([]float64, len(hosts))
	for level, load := range loads {
		if load == 0 {
			continue
		}
		in := func(i int) bool { return levels[i] == level }
		for i, share := range sharesWithin(hosts, in, mode, c, level) {
			shares[i] = load * share
		}
	}
	return shares
}

// priorities returns the priority that Envoy gets for each endpoint.
func priorities(s topology.Service, mode Mode, c Caller) []int {
	var levels []int
	for _, l := range s.Localities {
		for range l.Endpoints {
			level := int(l.Priority)
			if mode == Local {
				level = level*(len(c.Failover)+2) + Distance(l.Region, c.Region, c.Failover)
			}
			levels = append(levels, level)
		}
	}
	return compactLevels(levels)
}

// Distance returns a region's rank for a caller: 0 for its own, then those in
// failover in their order, then all others.
func Distance(region, caller string, failover []string) int {
	if region == caller {
		return 0
	}
	if i := slices.Index(failover, region); i >= 0 {
		return i + 1
	}
	return len(failover) + 1
}

// compactLevels closes the gaps between levels, as Envoy requires.
func compactLevels(levels []int) []int {
	distinct := slices.Compact(slices.Sorted(slices.Values(levels)))
	out := make([]int, len(levels))
	for i, level := range levels {
		out[i], _ = slices.BinarySearch(distinct, level)
	}
	return out
}

// priorityLoads returns the share of the requests that each priority takes, in whole
// percents as in Envoy. A priority that is healthy enough leaves nothing to the
// next.
func priorityLoads(hosts []host, levels []int, mode Mode, c Caller) []float64 {
	if len(levels) == 0 {
		return nil
	}
	n := slices.Max(levels) + 1
	well, all := make([]float64, n), make([]float64, n)
	for i, h := range hosts {
		weight := 1.0 // Envoy counts hosts
		if mode == Local {
			weight = float64(h.Weight) // weighted_priority_health
		}
		all[levels[i]] += weight
		if h.healthy {
			well[levels[i]] += weight
		}
	}
	factor := c.factor(mode)
	health := make([]int, n)
	total := 0
	for i := range n {
		health[i] = min(100, int(factor*100*well[i]/all[i]))
		total += health[i]
	}
	total = min(total, 100)
	loads, left := make([]float64, n), 100
	for i := range n {
		if total == 0 {
			break
		}
		load := min(left, int(math.Round(float64(health[i])*100/float64(total))))
		loads[i], left = float64(load)/100, left-load
	}
	for i := range n { // what rounding left goes to the first that takes any
		if loads[i] > 0 {
			loads[i] += float64(left) / 100
			break
		}
	}
	return loads
}

func (c Caller) factor(mode Mode) float64 {
	switch {
	case mode == Local:
		return 1
	case c.Overprovisioning == 0:
		return 1.4
	default:
		return float64(c.Overprovisioning) / 100
	}
}

// sharesWithin returns each endpoint's share within one priority.
func sharesWithin(hosts []host, in func(int) bool, mode Mode, c Caller, level int) map[int]float64 {
	regions := make(map[string]float64) // each region's share
	weights := make(map[string]float64) // healthy weight by group
	group := func(h host) string {
		if mode == Weighted {
			return h.Region + "/" + h.Zone // Envoy's localities
		}
		return h.Region
	}
	count, well, whole := make(map[string]float64), make(map[string]float64), make(map[string]float64)
	for i, h := range hosts {
		if !in(i) {
			continue
		}
		g := group(h)
		count[g]++
		whole[g] += float64(h.Weight)
		if h.healthy {
			well[g]++
			weights[g] += float64(h.Weight)
		}
	}
	switch {
	case mode == Weighted:
		for g := range count {
			regions[g] = whole[g] * min(1, c.factor(mode)*well[g]/count[g])
		}
	case mode == Nearest && level == 0 && c.Entries[c.Region] > 0:
		regions = nearest(weights, c)
	default:
		maps.Copy(regions, weights)
	}
	regions = normalize(regions)
	shares := make(map[int]float64)
	for i, h := range hosts {
		if g := group(h); in(i) && h.healthy {
			shares[i] = regions[g] * float64(h.Weight) / weights[g]
		}
	}
	return shares
}

// nearest is zone-aware routing by weight: a region keeps what it can carry of its
// own requests, and the rest goes where capacity is left.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/load_balancing/zone_aware
func nearest(weights map[string]float64, c Caller) map[string]float64 {
	capacity, entries := normalize(weights), normalize(c.Entries)
	kept := min(1, capacity[c.Region]/entries[c.Region])
	out := map[string]float64{c.Region: kept}
	free := make(map[string]float64)
	for region, share := range capacity {
		free[region] = max(0, share-entries[region])
	}
	for region, share := range normalize(free) {
		out[region] += (1 - kept) * share
	}
	return out
}

// normalize scales values to a sum of one; an empty sum gives none.
func normalize(of map[string]float64) map[string]float64 {
	var sum float64
	for _, v := range of {
		sum += v
	}
	out := make(map[string]float64, len(of))
	for k, v := range of {
		if sum > 0 {
			out[k] = v / sum
		}
	}
	return out
}

// Global returns each endpoint's share of all callers' requests, and the share that
// crosses regions.
func Global(s topology.Service, mode Mode, c Caller, healthy func(topology.Endpoint) bool) (shares []float64, crossing float64) {
	endpoints := s.Serving()
	shares = make([]float64, len(endpoints))
	for region, part := range normalize(c.Entries) {
		caller := c
		caller.Region = region
		for i, share := range Shares(s, mode, caller, healthy) {
			shares[i] += part * share
			if endpoints[i].Region != region {
				crossing += part * share
			}
		}
	}
	return shares, crossing
}
