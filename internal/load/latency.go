package load

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// What is told of how long requests took, in percent of them.
var percentiles = []float64{50, 90, 99, 99.9}

// maxLatency is the longest time that is told apart; more counts as that.
const maxLatency = time.Hour

// Latency is how long requests took, within a thousandth of each value.
type Latency struct{ h *hdrhistogram.Histogram }

func newLatency() Latency {
	return Latency{hdrhistogram.New(1, maxLatency.Microseconds(), 3)}
}

func (l Latency) record(took time.Duration) {
	_ = l.h.RecordValue(min(max(took, 0), maxLatency).Microseconds()) // in range, so it can't fail
}

// Percentile is the time within which so many percent of the requests ended.
func (l Latency) Percentile(percent float64) time.Duration {
	return time.Duration(l.h.ValueAtPercentile(percent)) * time.Microsecond
}

// Max is the time of the slowest request.
func (l Latency) Max() time.Duration { return time.Duration(l.h.Max()) * time.Microsecond }

// String is what people read, in milliseconds.
func (l Latency) String() string {
	var b strings.Builder
	for _, p := range percentiles {
		fmt.Fprintf(&b, "p%s %s, ", percentileName(p), formatMilliseconds(l.Percentile(p)))
	}
	return b.String() + "max " + formatMilliseconds(l.Max())
}

func formatMilliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", d.Seconds()*1e3)
}

// milliseconds is for machines: p50, p90, p99, p99.9, mean and max.
func (l Latency) milliseconds() map[string]any {
	all := map[string]any{"mean": l.h.Mean() / 1e3, "max": float64(l.h.Max()) / 1e3}
	for _, p := range percentiles {
		all["p"+percentileName(p)] = l.Percentile(p).Seconds() * 1e3
	}
	return all
}

func percentileName(percent float64) string { return strconv.FormatFloat(percent, 'f', -1, 64) }
