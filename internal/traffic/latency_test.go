package traffic

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestQuantile_observations_interpolates(t *testing.T) {
	observed := func(upper []float64, counts ...uint64) (l Latency) {
		l.Observe(upper, counts)
		return l
	}
	ms := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
	for name, test := range map[string]struct {
		of       Latency
		p50, p99 time.Duration
		count    float64
	}{
		"nothing":            {},
		"one bucket":         {observed([]float64{1, 2}, 0, 100, 0), ms(1.5), ms(1.99), 100},
		"two buckets":        {observed([]float64{1, 2, 3}, 50, 0, 50, 0), ms(1), ms(2.98), 100},
		"the lowest":         {observed([]float64{0.5}, 10, 0), ms(0.25), ms(0.495), 10},
		"beyond all":         {observed([]float64{300_000}, 0, 10), ms(300_000), ms(300_000), 10},
		"coarse":             {observed([]float64{10, 20}, 0, 100, 0), ms(15), ms(19.9), 100},
		"not in order":       {observed([]float64{2, 1}, 1, 1, 1), 0, 0, 0},
		"one bound too many": {observed([]float64{1, 2}, 1, 1), 0, 0, 0},
		"no number":          {observed([]float64{math.NaN()}, 1, 1), 0, 0, 0},
		"less than no time":  {observed([]float64{-1}, 1, 1), 0, 0, 0},
		"finer than is kept": {observed([]float64{1.2, 1.4}, 0, 10, 0), ms(1.5), ms(1.99), 10},
		"the same twice":     {observed([]float64{1.2, 1.2}, 0, 10, 0), ms(1.5), ms(1.99), 10},
		"no bounds":          {observed(nil, 10), 0, 0, 0},
		"beyond its own":     {observed([]float64{10}, 0, 10), ms(11), ms(11.98), 10},
	} {
		t.Run(name, func(t *testing.T) {
			near := func(a, b time.Duration) bool { return (a - b).Abs() < time.Microsecond }
			if p50, p99 := test.of.Quantile(0.5), test.of.Quantile(0.99); !near(p50, test.p50) || !near(p99, test.p99) || math.Abs(test.of.Count()-test.count) > 1e-6 {
				t.Errorf("%s, %s of %v, want %s, %s of %v", p50, p99, test.of.Count(), test.p50, test.p99, test.count)
			}
		})
	}
}

func TestQuantile_zero_isTheFirstBucket(t *testing.T) {
	var l Latency
	l.Observe([]float64{10, 20}, []uint64{0, 100, 0})
	if got := l.Quantile(0); got != 10*time.Millisecond {
		t.Errorf("%s, want 10ms", got)
	}
}

// However histograms are cut and added up, nothing is lost, and a quantile is
// where it was within a bucket.
func TestObserve_anyBounds_keepsTheCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		upper := slices.Compact(slices.Sorted(slices.Values(rapid.SliceOfN(rapid.Float64Range(0, 400_000), 1, 20).Draw(t, "bounds"))))
		counts := rapid.SliceOfN(rapid.Uint64Range(0, 1e6), len(upper)+1, len(upper)+1).Draw(t, "counts")
		var l, half Latency
		l.Observe(upper, counts)
		sum := 0.0
		for _, n := range counts {
			sum += float64(n)
		}
		if math.Abs(l.Count()-sum) > 1e-6*sum {
			t.Fatalf("%v of %v", l.Count(), sum)
		}
		half.Add(l, 0.25)
		half.Add(l.Clone(), 0.75)
		if math.Abs(half.Count()-sum) > 1e-6*sum {
			t.Fatalf("%v of %v after adding", half.Count(), sum)
		}
		if sum > 0 && (half.Quantile(0.5)-l.Quantile(0.5)).Abs() > l.Quantile(0.5)/1000+time.Microsecond {
			t.Fatalf("median %s, and %s of the parts", l.Quantile(0.5), half.Quantile(0.5))
		}
		if l.Quantile(0.1) > l.Quantile(0.9) {
			t.Fatalf("p10 %s, p90 %s", l.Quantile(0.1), l.Quantile(0.9))
		}
	})
}

func TestMarshalJSON_latency_hasCounts(t *testing.T) {
	var l Latency
	l.Observe([]float64{10, 20}, []uint64{0, 100, 0})
	text, err := json.Marshal([]Latency{{}, l})
	if err != nil || string(text) != `[null,{"p50":15.000,"p99":19.900}]` {
		t.Errorf("%s, %v", text, err)
	}
}

func TestObserve_sameBounds_isExact(t *testing.T) {
	bounds := Bounds()
	for i := range len(bounds) + 1 {
		counts := make([]uint64, len(bounds)+1)
		counts[i] = 7
		var l Latency
		l.Observe(bounds, counts)
		if l.counts[i] != 7 {
			t.Errorf("bucket %d: %v", i, l.counts)
		}
	}
}
