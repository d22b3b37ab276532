package balance

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"
)

// Reporter is a device whose Envoys report requests, and the region where these
// enter.
type Reporter struct {
	Device netip.Addr
	Region string
}

// IngressLoad is the load by the region where requests enter, as measured and as
// published.
//
// Envoys report it themselves, and a report may be wrong. So a reporter's load is
// bounded by its own recent peak, or by that of the others, and a measurement
// expires with the window. A reporter that exaggerates for long is believed in the
// end, like one that really sends as many requests.
type IngressLoad struct {
	// Published are the weights that Envoys have, by region, out of [totalWeight].
	Published map[string]uint32

	intervals []interval           // the last ones, the newest last
	peaks     map[Reporter]float64 // of late, as believed, in requests a second
}

// interval is the accepted load of one interval.
type interval struct {
	over     time.Duration
	requests map[Reporter]float64
}

const (
	// totalWeight is about the sum of all regions' weights: fine enough for a share of
	// one in ten thousand.
	totalWeight = 10_000
	// window is how long a measurement counts.
	window = 10 * time.Second
	// maxGrowth is how much above its peak a reporter's load counts in an interval:
	// ten times as many requests count whole in the fourth, after some eight seconds.
	maxGrowth = 2
	// freeRate is a rate, in requests a second, that counts whole from any reporter.
	freeRate = 25
	// peakHalfLife is the time in which a peak loses half of itself, so that an Envoy
	// that was away for a minute does not begin anew.
	peakHalfLife = time.Minute
	// minChange is the least change of a region's share that is published: each change
	// is sent to every Envoy.
	minChange = 0.02
)

// Next adds the requests of a period, and how many devices with Envoys are connected
// in each region, which counts while nothing is measured. It reports whether there
// is something new to publish.
func (e IngressLoad) Next(requests map[Reporter]float64, envoys map[string]int, over time.Duration) (IngressLoad, bool) {
	next := IngressLoad{Published: e.Published, intervals: e.lastIntervals(window - over)}
	step := interval{over, e.boundRequests(requests, over)}
	next.intervals = append(next.intervals, step)
	next.peaks = e.peaksAfter(step)

	shares := next.Rates()
	var total float64
	for _, rate := range shares {
		total += rate
	}
	if total == 0 {
		shares = make(map[string]float64)
		for region, n := range envoys {
			shares[region] = float64(n)
		}
	} else {
		// A region whose Envoys are connected and idle may get requests at any moment:
		// the smallest weight keeps it known.
		for region, n := range envoys {
			if n > 0 && shares[region] == 0 {
				shares[region] = total / totalWeight
			}
		}
	}
	shares = normalize(shares)
	if !e.differs(shares) {
		return next, false
	}
	next.Published = make(map[string]uint32, len(shares))
	for region, share := range shares {
		next.Published[region] = max(1, uint32(math.Round(share*totalWeight)))
	}
	return next, true
}

// Rates returns the accepted requests a second by region.
func (e IngressLoad) Rates() map[string]float64 {
	sums := make(map[string]float64)
	var over time.Duration
	for _, s := range e.intervals {
		over += s.over
		for r, n := range s.requests {
			sums[r.Region] += n
		}
	}
	for region := range sums {
		sums[region] /= over.Seconds()
	}
	return sums
}

// lastIntervals returns the newest intervals that last no longer than a time
// together.
func (e IngressLoad) lastIntervals(long time.Duration) []interval {
	first := len(e.intervals)
	for first > 0 && e.intervals[first-1].over <= long {
		first--
		long -= e.intervals[first].over
	}
	return slices.Clone(e.intervals[first:])
}

// boundRequests bounds each reporter's requests by its own peak, by the median of
// the others, or by [freeRate]. While nothing is measured there is no bound, and all
// count.
func (e IngressLoad) boundRequests(requests map[Reporter]float64, over time.Duration) map[Reporter]float64 {
	out := make(map[Reporter]float64, len(requests))
	idle := !slices.ContainsFunc(e.intervals, func(s interval) bool { return len(s.requests) > 0 })
	rates := make(map[Reporter]float64, len(requests))
	for r, peak := range e.peaks {
		rates[r] = peak
	}
	for r, n := range requests {
		rates[r] = max(rates[r], n/over.Seconds())
	}
	sorted := make([]float64, 0, len(rates))
	for _, rate := range rates {
		sorted = append(sorted, rate)
	}
	slices.Sort(sorted)
	for r, n := range requests {
		switch {
		case n <= 0:
		case idle:
			out[r] = n
		default:
			limit := maxGrowth * max(e.peaks[r], medianWithout(sorted, rates[r]), freeRate)
			out[r] = min(n, limit*over.Seconds())
		}
	}
	return out
}

// medianWithout returns the median of sorted values without one of them; infinity if
// that is the only one.
func medianWithout(sorted []float64, value float64) float64 {
	n := len(sorted) - 1
	if n == 0 {
		return math.Inf(1)
	}
	at, _ := slices.BinarySearch(sorted, value)
	without := func(i int) float64 {
		if i >= at {
			i++
		}
		return sorted[i]
	}
	return (without((n-1)/2) + without(n/2)) / 2
}

// peaksAfter returns the peaks after an interval.
func (e IngressLoad) peaksAfter(step interval) map[Reporter]float64 {
	const forget = 0.01 // requests a second
	peaks := make(map[Reporter]float64, len(e.peaks))
	left := math.Exp2(-step.over.Seconds() / peakHalfLife.Seconds())
	for r, peak := range e.peaks {
		if peak *= left; peak >= forget {
			peaks[r] = peak
		}
	}
	for r, n := range step.requests {
		peaks[r] = max(peaks[r], n/step.over.Seconds())
	}
	if len(peaks) > maxReporters {
		all := make([]Reporter, 0, len(peaks))
		for r := range peaks {
			all = append(all, r)
		}
		slices.SortFunc(all, func(a, b Reporter) int {
			return cmp.Or(cmp.Compare(peaks[b], peaks[a]), a.Device.Compare(b.Device), cmp.Compare(a.Region, b.Region))
		})
		for _, r := range all[maxReporters:] {
			delete(peaks, r)
		}
	}
	return peaks
}

// maxReporters bounds the peaks that are kept: more than report at a time.
const maxReporters = 8_000

// differs reports whether any region's share differs from the published one.
func (e IngressLoad) differs(shares map[string]float64) bool {
	before := make(map[string]float64, len(e.Published))
	for region, w := range e.Published {
		before[region] = float64(w)
	}
	before = normalize(before)
	for region := range union(shares, before) {
		_, now := shares[region]
		_, was := before[region]
		if now != was || math.Abs(shares[region]-before[region]) > minChange {
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
