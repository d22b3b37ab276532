package traffic

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"time"
)

// Latency is a histogram of how long requests took. Histograms can be added up,
// so that a quantile is one of all requests and no mean of quantiles. The zero
// value is empty.
type Latency struct {
	counts []float64 // one a bound, and one for what is beyond; nil if empty
}

// bounds are the upper ends of the buckets in milliseconds: each at most half
// as wide again as the one before it, from Envoy's resolution to what nobody
// waits for.
var bounds = [...]float64{
	0.5, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80,
	100, 120, 150, 200, 250, 300, 400, 500, 600, 800, 1_000, 1_200, 1_500, 2_000, 2_500, 3_000, 4_000, 5_000, 6_000, 8_000,
	10_000, 15_000, 20_000, 30_000, 60_000, 300_000,
}

// Bounds are the upper ends of the buckets, in milliseconds. An Envoy that is
// given them (histogram_bucket_settings) reports without a loss.
func Bounds() []float64 { return slices.Clone(bounds[:]) }

// Observe adds a histogram with bounds of its own, as OpenTelemetry has it: one
// count more than bounds. What lies across several buckets here is spread over
// them evenly, and what is beyond its last bound counts as just beyond. A
// histogram that tells nothing adds nothing.
func (l *Latency) Observe(upper []float64, counts []uint64) {
	if len(upper) == 0 || len(counts) != len(upper)+1 || !slices.IsSorted(upper) || slices.ContainsFunc(upper, func(b float64) bool { return math.IsNaN(b) || b < 0 }) {
		return
	}
	l.allocate()
	low := 0.0
	for i, n := range counts {
		high := math.Inf(1)
		if i < len(upper) {
			high = upper[i]
		}
		l.addUniformly(low, high, float64(n))
		low = high
	}
}

func (l *Latency) allocate() {
	if l.counts == nil {
		l.counts = make([]float64, len(bounds)+1)
	}
}

// addUniformly adds n requests that took between low and high.
func (l *Latency) addUniformly(low, high, n float64) {
	first := sort.SearchFloat64s(bounds[:], math.Nextafter(low, math.Inf(1)))
	last := sort.SearchFloat64s(bounds[:], high)
	if first >= last || math.IsInf(high, 1) {
		l.counts[min(first, len(bounds))] += n
		return
	}
	for i := first; i <= last; i++ {
		from, to := low, high
		if i > 0 {
			from = max(from, bounds[i-1])
		}
		if i < len(bounds) {
			to = min(to, bounds[i])
		}
		l.counts[i] += n * (to - from) / (high - low)
	}
}

// Add adds a part of another histogram: all of it by 1.
func (l *Latency) Add(o Latency, part float64) {
	if o.counts == nil || part == 0 {
		return
	}
	l.allocate()
	for i, n := range o.counts {
		l.counts[i] += n * part
	}
}

// Clone is a histogram of its own.
func (l Latency) Clone() Latency { return Latency{slices.Clone(l.counts)} }

// Count is how many requests there are.
func (l Latency) Count() float64 {
	var sum float64
	for _, n := range l.counts {
		sum += n
	}
	return sum
}

// Quantile is the time within which a share q of the requests, from 0 to 1, was
// answered; 0 if there are none.
func (l Latency) Quantile(q float64) time.Duration {
	total := l.Count()
	if total == 0 {
		return 0
	}
	rank, low := q*total, 0.0
	for i, n := range l.counts {
		if i == len(bounds) {
			break
		}
		if n > 0 && rank <= n {
			return milliseconds(low + (bounds[i]-low)*max(rank, 0)/n)
		}
		rank -= n
		low = bounds[i]
	}
	return milliseconds(low) // or more
}

// MarshalJSON writes its middle and its end in milliseconds, {"p50", "p99"}; null
// if it is empty.
func (l Latency) MarshalJSON() ([]byte, error) {
	if l.Count() == 0 {
		return []byte("null"), nil
	}
	p50, p99 := quantiles(l)
	return fmt.Appendf(nil, `{"p50":%.3f,"p99":%.3f}`, p50, p99), nil
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
