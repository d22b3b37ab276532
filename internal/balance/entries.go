package balance

import (
	"math"
	"time"
)

// Entries are how many requests enter in each region, smoothed, and what was
// published of them.
type Entries struct {
	// Rates are requests a second, by region.
	Rates map[string]float64
	// Published are the weights that Envoys have, by region, out of [whole].
	Published map[string]uint32
}

const (
	// whole is what the weights of all regions add up to, about: fine enough
	// for a share of one in ten thousand.
	whole = 10_000
	// settle is the time in which a new rate counts for two thirds.
	settle = 10 * time.Second
	// worthwhile is the change of a region's share below which nothing is
	// published: each change is sent to every Envoy.
	worthwhile = 0.02
)

// Next takes what was measured in some time: requests by region, and how many
// Envoys are connected in each, which counts while nothing is measured. It tells
// whether there is something new to publish.
func (e Entries) Next(requests map[string]float64, envoys map[string]int, over time.Duration) (Entries, bool) {
	next := Entries{Rates: make(map[string]float64), Published: e.Published}
	weight := 1 - math.Exp(-over.Seconds()/settle.Seconds())
	if len(e.Rates) == 0 {
		weight = 1
	}
	var total float64
	for region := range union(requests, e.Rates) {
		rate := e.Rates[region] + weight*(requests[region]/over.Seconds()-e.Rates[region])
		if rate >= 0.001 {
			next.Rates[region] = rate
			total += rate
		}
	}
	shares := next.Rates
	if total == 0 {
		shares = make(map[string]float64)
		for region, n := range envoys {
			shares[region] = float64(n)
		}
	} else {
		// A region whose Envoys are connected and idle has an entry that may be
		// used any moment: the smallest weight there is keeps it known.
		shares = union(shares, nil)
		for region, n := range envoys {
			if n > 0 && shares[region] == 0 {
				shares[region] = total / whole
			}
		}
	}
	shares = normal(shares)
	if !e.moved(shares) {
		return next, false
	}
	next.Published = make(map[string]uint32, len(shares))
	for region, share := range shares {
		next.Published[region] = max(1, uint32(math.Round(share*whole)))
	}
	return next, true
}

// moved tells whether any region's share is another than was published.
func (e Entries) moved(shares map[string]float64) bool {
	before := make(map[string]float64, len(e.Published))
	for region, w := range e.Published {
		before[region] = float64(w)
	}
	before = normal(before)
	for region := range union(shares, before) {
		_, now := shares[region]
		_, was := before[region]
		if now != was || math.Abs(shares[region]-before[region]) > worthwhile {
			return true
		}
	}
	return false
}

func union(a, b map[string]float64) map[string]float64 {
	all := make(map[string]float64, len(a)+len(b))
	for k, v := range b {
		all[k] = v
	}
	for k, v := range a {
		all[k] = v
	}
	return all
}
