// Package shares decides whether counted answers fit the shares that the
// weights promise.
//
// The test is the exact binomial one, two-sided, host by host, with
// Bonferroni's correction: a tally is refused when some host's count would be
// that far out with a probability below Alpha (1e-9) divided by the number of
// hosts. A chi-square test would need the normal approximation, which is poor
// that far out in the tail, and it could not name the host that is wrong.
//
// It does not flake. If every request picked its host at random, one right
// tally in 10^9 would be refused. Envoy's weighted round robin strays far less
// than chance does (a few requests, whatever their number), so the real rate is
// lower still.
//
// It does not sleep through a wrong weight either. Enough says how many
// requests are needed so that each of the given wrong answers is refused with a
// probability above 1 - Alpha, even if the hosts were picked at random. Tests
// choose their number of requests with it, and OneStepWrong lists the wrong
// weights nearest to the right ones.
package shares

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"gonum.org/v1/gonum/stat/distuv"
)

// Alpha bounds both errors: refusing a right tally and accepting a wrong one.
const Alpha = 1e-9

// Shares are the requests each host should get, relative to one another. They
// need not add up to 1: weights are shares.
type Shares map[string]float64

// Sum is the total of all shares.
func (s Shares) Sum() float64 {
	sum := 0.0
	for _, share := range s {
		sum += share
	}
	return sum
}

// Portion is the part of all requests, from 0 to 1, that host should get.
func (s Shares) Portion(host string) float64 { return s[host] / s.Sum() }

// hosts lists the hosts that either names, in order.
func hosts(a, b Shares) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

// Check returns nil if the tally fits the shares: no request failed, no host
// answered that should not, and each host's count is within the bound. The
// error says which host is out, and by how much.
func Check(tally Tally, want Shares) error {
	if want.Sum() <= 0 {
		return fmt.Errorf("the expected shares %v add up to nothing: name at least one host with a share", want)
	}
	n := tally.Answered()
	if n == 0 {
		return fmt.Errorf("nothing was answered (%d failed)", tally.Failed)
	}
	var faults []string
	if tally.Failed > 0 {
		faults = append(faults, strings.TrimSuffix(fmt.Sprintf("%d of %d requests failed: %s", tally.Failed, n+tally.Failed, tally.Reasons), ": "))
	}
	for _, host := range slices.Sorted(maps.Keys(tally.Counts)) {
		if want[host] == 0 && tally.Counts[host] > 0 {
			faults = append(faults, fmt.Sprintf("%s answered %d times but should get nothing", host, tally.Counts[host]))
		}
	}
	for _, host := range slices.Sorted(maps.Keys(want)) {
		if fault := checkHost(host, tally.Counts[host], n, want, len(want)); fault != "" {
			faults = append(faults, fault)
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("shares of %d requests: %s", n+tally.Failed, strings.Join(faults, "; "))
	}
	return nil
}

func checkHost(host string, count, n int, want Shares, tests int) string {
	portion := want.Portion(host)
	low, high := bounds(n, portion, tests)
	if count >= low && count <= high {
		return ""
	}
	return fmt.Sprintf("%s got %.1f%% (%d), expected %.1f%% (%d to %d)",
		host, 100*float64(count)/float64(n), count, 100*portion, low, high)
}

// bounds are the lowest and highest counts that are accepted for a host that
// should get this portion of n requests, when so many hosts are tested at once.
func bounds(n int, portion float64, tests int) (low, high int) {
	tail := Alpha / float64(tests) / 2
	low = firstAbove(n, portion, tail)
	high = n - firstAbove(n, 1-portion, tail)
	return low, high
}

// firstAbove is the smallest k with P(X <= k) > tail: the lowest count that is
// not too rare.
func firstAbove(n int, portion, tail float64) int {
	low, high := 0, n
	for low < high {
		middle := (low + high) / 2
		if cdf(middle, n, portion) > tail {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

// cdf is P(X <= k) for n draws that each hit with probability p.
func cdf(k, n int, p float64) float64 {
	switch {
	case k < 0:
		return 0
	case k >= n || p <= 0:
		return 1
	case p >= 1:
		return 0
	}
	return distuv.Binomial{N: float64(n), P: p}.CDF(float64(k))
}

// Tells reports whether n requests are enough to refuse a system that deals out
// wrong instead of want: whether some host's count would be accepted with a
// probability of less than Alpha.
func Tells(n int, want, wrong Shares) bool {
	for _, host := range hosts(want, wrong) {
		low, high := bounds(n, want.Portion(host), len(want))
		p := wrong.Portion(host)
		if cdf(high, n, p)-cdf(low-1, n, p) < Alpha {
			return true
		}
	}
	return false
}

// Enough is the number of requests, at least 1,000 and rounded up to full
// hundreds, that tells want from each of the wrong shares. It panics when one
// of them can't be told from want at all, because then the test that asks is
// unable to fail.
func Enough(want Shares, wrong ...Shares) int {
	const least, step, most = 1_000, 100, 1_000_000
	n := least
	for _, other := range wrong {
		for !Tells(n, want, other) {
			if n += step; n > most {
				panic(fmt.Sprintf("no number of requests below %d tells %v from %v", most, want, other))
			}
		}
	}
	return n
}

// OneStepWrong lists the wrong weights nearest to the given ones: each host in
// turn with a weight of one more and, if it stays above 0, of one less. Weights
// that mean the same shares (all hosts but one absent) are left out.
func OneStepWrong(weights Shares) []Shares {
	if len(weights) < 2 {
		return nil
	}
	var wrong []Shares
	for _, host := range slices.Sorted(maps.Keys(weights)) {
		for _, step := range []float64{1, -1} {
			if weights[host]+step <= 0 {
				continue
			}
			other := maps.Clone(weights)
			other[host] += step
			wrong = append(wrong, other)
		}
	}
	return wrong
}
