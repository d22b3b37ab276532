package balance

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata/matrix.json")

// matrixFile says what real Envoys do in each mode, in which servers that are
// sick, for whose callers: integration/envoys holds Envoys to it, and the test
// below holds this package to it.
const matrixFile = "testdata/matrix.json"

// matrix is a world of servers and the shares of their requests in percent.
type matrix struct {
	Servers []string     `json:"servers"` // name, region and weight
	Cases   []matrixCase `json:"cases"`
}

type matrixCase struct {
	Mode Mode `json:"mode"`
	// Caller is the region of who calls; empty is none.
	Caller string `json:"caller"`
	// Sick are the names of servers that fail their checks, a letter each.
	Sick   string             `json:"sick"`
	Shares map[string]float64 `json:"shares"`
}

func TestShares_matrix_matchesTheFile(t *testing.T) {
	// Six, for below that number Envoy does no zone-aware routing by itself.
	m := matrix{Servers: []string{"a west 1", "b west 3", "c east 2", "d east 2", "e eu 1", "f eu 3"}}
	s := service(m.Servers...)
	for _, mode := range []Mode{Weighted, Exact, Local} {
		for _, sick := range []string{"", "b", "ab"} {
			for _, caller := range []string{"west", "asia", ""} {
				c := matrixCase{Mode: mode, Caller: caller, Sick: sick, Shares: make(map[string]float64)}
				var names []string
				for _, letter := range sick {
					names = append(names, string(letter))
				}
				for i, share := range Shares(s, mode, Caller{Region: caller}, down(names...)) {
					if share > 0 {
						c.Shares[s.Serving()[i].Name] = math.Round(10000*share) / 100
					}
				}
				m.Cases = append(m.Cases, c)
			}
		}
	}
	got, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(matrixFile, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(matrixFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("(-want +got; with -update it is rewritten, and then Envoys must agree: make envoy-test):\n%s", diff)
	}
}
