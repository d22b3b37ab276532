package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// series are measurements of one thing, in the order in which they were made.
type series []float64

func (s series) quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[int(math.Round(q*float64(len(sorted)-1)))]
}

func (s series) median() float64 { return s.quantile(0.5) }

// over pairs each measurement with the one that was made next to it: what
// disturbed the machine meanwhile disturbed both.
func (s series) over(o series) series {
	all := make(series, min(len(s), len(o)))
	for i := range all {
		all[i] = s[i] / o[i]
	}
	return all
}

// String is the median, and between which values the middle half lies.
func (s series) String() string {
	return fmt.Sprintf("%.2f (%.2f to %.2f)", s.median(), s.quantile(0.25), s.quantile(0.75))
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

func ms(s series) string { return fmt.Sprintf("%.1f ms", s.median()) }

func inBytes(n float64) string {
	switch {
	case n >= 10e6:
		return fmt.Sprintf("%.0f MB", n/1e6)
	case n >= 10e3:
		return fmt.Sprintf("%.0f kB", n/1e3)
	default:
		return fmt.Sprintf("%.0f bytes", n)
	}
}
