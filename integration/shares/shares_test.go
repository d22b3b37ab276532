package shares_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/shares"
)

var (
	even     = shares.Shares{"west-1": 1, "west-2": 1}
	weighted = shares.Shares{"west-1": 1, "west-2": 1, "east-1": 2, "east-2": 2}
	// One of two west servers is out: west keeps 1.4 of its weight of 2.
	oneOut = shares.Shares{"west-2": 1.4, "east-1": 2, "east-2": 2}
)

// deal hands out n requests at random by weight, the widest spread that any
// balancer worth testing has.
func deal(n int, by shares.Shares, random *rand.Rand) shares.Tally {
	tally := shares.Tally{Counts: map[string]int{}}
	hosts := slices.Sorted(maps.Keys(by))
	for range n {
		at := random.Float64() * by.Sum()
		for _, host := range hosts {
			if at -= by[host]; at < 0 {
				tally.Counts[host]++
				break
			}
		}
	}
	return tally
}

func TestCheck_rightShares_accepts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, want := range []shares.Shares{even, weighted, oneOut, {"west-1": 1}} {
		for range 200 {
			if err := shares.Check(deal(1_000, want, random), want); err != nil {
				t.Errorf("a right tally was refused: %v", err)
			}
		}
	}
}

func TestCheck_wrongShares_refuses(t *testing.T) {
	twice := func(host string, s shares.Shares) shares.Shares {
		other := maps.Clone(s)
		other[host] *= 2
		return other
	}
	for name, test := range map[string]struct{ want, wrong shares.Shares }{
		"east's weight is ignored":             {weighted, shares.Shares{"west-1": 1, "west-2": 1, "east-1": 1, "east-2": 1}},
		"one east server has weight 1":         {weighted, shares.Shares{"west-1": 1, "west-2": 1, "east-1": 2, "east-2": 1}},
		"one west server has weight 2":         {weighted, twice("west-1", weighted)},
		"a region's weight is split":           {weighted, shares.Shares{"west-1": 1, "west-2": 1, "east-1": 1, "east-2": 1}},
		"50/50 is 1:2":                         {even, twice("west-2", even)},
		"the overprovisioning factor is 1":     {oneOut, shares.Shares{"west-2": 1, "east-1": 2, "east-2": 2}},
		"the region keeps its whole weight":    {oneOut, shares.Shares{"west-2": 2, "east-1": 2, "east-2": 2}},
		"a host gets nothing":                  {weighted, shares.Shares{"west-1": 1, "west-2": 1, "east-1": 2}},
		"a host that should get nothing, does": {oneOut, shares.Shares{"west-1": 0.1, "west-2": 1.4, "east-1": 2, "east-2": 2}},
	} {
		t.Run(name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(3, 4))
			n := shares.Enough(test.want, test.wrong)
			for range 200 {
				if shares.Check(deal(n, test.wrong, random), test.want) == nil {
					t.Fatalf("%d requests dealt as %v were accepted as %v", n, test.wrong, test.want)
				}
			}
		})
	}
}

func TestEnough_oneStepWrong_tellsEach(t *testing.T) {
	wrong := shares.OneStepWrong(weighted)
	if len(wrong) != 6 { // up by one each, down by one in east only
		t.Fatalf("got %d wrong weights: %v", len(wrong), wrong)
	}
	n := shares.Enough(weighted, wrong...)
	if n < 1_000 || n > 10_000 {
		t.Errorf("%d requests are needed, a test can't wait for that", n)
	}
	for _, other := range wrong {
		if !shares.Tells(n, weighted, other) {
			t.Errorf("%d requests do not tell %v from %v", n, weighted, other)
		}
		if shares.Tells(50, weighted, other) {
			t.Errorf("50 requests are said to tell %v from %v", weighted, other)
		}
	}
}

func TestEnough_sameShares_panics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a test that can't fail was planned without complaint")
		}
	}()
	shares.Enough(even, shares.Shares{"west-1": 3, "west-2": 3})
}

func TestCheck_wrongShares_saysWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		tally shares.Tally
		want  shares.Shares
		says  []string
	}{
		"a failed request": {
			shares.Tally{Counts: map[string]int{"west-1": 500, "west-2": 500}, Failed: 1},
			even,
			[]string{"1 of 1001 requests failed"},
		},
		"a stranger": {
			shares.Tally{Counts: map[string]int{"west-1": 500, "west-2": 500, "north-1": 1}},
			even,
			[]string{"north-1 answered 1 times but should get nothing"},
		},
		"a silent host": {
			shares.Tally{Counts: map[string]int{"west-1": 1000}},
			even,
			[]string{"west-1 got 100.0% (1000), expected 50.0%", "west-2 got 0.0% (0), expected 50.0%"},
		},
		"silence": {shares.Tally{Failed: 7}, even, []string{"nothing was answered (7 failed)"}},
		"no expectation": {
			shares.Tally{Counts: map[string]int{"west-1": 1}},
			shares.Shares{},
			[]string{"name at least one host"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := shares.Check(test.tally, test.want)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, says := range test.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%q does not say %q", err, says)
				}
			}
		})
	}
}
