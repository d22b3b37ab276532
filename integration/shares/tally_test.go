package shares_test

import (
	"maps"
	"testing"

	"github.com/tailxds/tailxds/integration/shares"
)

func TestParse(t *testing.T) {
	tally, err := shares.Parse("Hello from east-1! in east: 50.0% (20)\n" +
		"Hello from west-1! in west: 25.0% (10)\n" +
		"Hello from west-2! in west: 25.0% (10)\n" +
		"Failed: 1\n")
	if err != nil {
		t.Fatal(err)
	}
	if tally.Answered() != 40 || tally.Failed != 1 {
		t.Errorf("got %d answered and %d failed", tally.Answered(), tally.Failed)
	}
	if got, want := tally.By(shares.Host).Counts, (map[string]int{"east-1": 20, "west-1": 10, "west-2": 10}); !maps.Equal(got, want) {
		t.Errorf("by host: got %v, want %v", got, want)
	}
	if got, want := tally.By(shares.Region).Counts, (map[string]int{"east": 20, "west": 20}); !maps.Equal(got, want) {
		t.Errorf("by region: got %v, want %v", got, want)
	}
}

func TestParse_latencies_accepted(t *testing.T) {
	tally, err := shares.Parse("Hello from west-1! in west: 100.0% (3)\nFailed: 0\nLatency: p50 0.9 ms, max 2.0 ms\n")
	if err != nil || tally.Answered() != 3 {
		t.Errorf("got %v, %v", tally, err)
	}
}

func TestParse_malformed_isError(t *testing.T) {
	for name, output := range map[string]string{
		"nothing":            "",
		"no failures line":   "Hello from west-1! in west: 100.0% (10)\n",
		"noise":              "starting\nFailed: 0\n",
		"a wrong order":      "Hello from a! in x: 25.0% (1)\nHello from b! in x: 75.0% (3)\nFailed: 0\n",
		"a wrong percentage": "Hello from a! in x: 60.0% (1)\nHello from b! in x: 50.0% (1)\nFailed: 0\n",
		"an answer twice":    "Hello from a! in x: 50.0% (1)\nHello from a! in x: 50.0% (1)\nFailed: 0\n",
		"only latencies":     "Latency: p50 0.9 ms\n",
		"a trailing line":    "Hello from a! in x: 100.0% (1)\nFailed: 0\nbye\n",
	} {
		t.Run(name, func(t *testing.T) {
			if tally, err := shares.Parse(output); err == nil {
				t.Errorf("accepted as %v", tally)
			}
		})
	}
}
