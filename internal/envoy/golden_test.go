package envoy

import (
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Devices in, proto JSON out.
func TestRender_examples_equalGoldenFiles(t *testing.T) {
	inputs, err := filepath.Glob("testdata/in/*.json")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	golden := make(map[string]bool)
	for _, in := range inputs {
		out := filepath.Join("testdata/out", filepath.Base(in))
		golden[out] = true
		t.Run(filepath.Base(in), func(t *testing.T) {
			got := renderFile(t, in)
			if *update {
				if err := os.WriteFile(out, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatalf("%v (run go test ./internal/envoy -update)", err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("(-want +got; go test ./internal/envoy -update rewrites):\n%s", diff)
			}
		})
	}
	all, _ := filepath.Glob("testdata/out/*")
	for _, out := range all {
		if !golden[out] {
			t.Errorf("%s has no input; delete it", out)
		}
	}
}

func renderFile(t *testing.T, in string) []byte {
	t.Helper()
	text, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	var devices []topology.Device
	if err := json.Unmarshal(text, &devices); err != nil {
		t.Fatal(err)
	}
	p := policy.Default()
	if text, err = os.ReadFile(strings.TrimSuffix(in, ".json") + ".yaml"); !errors.Is(err, fs.ErrNotExist) {
		if p, err = policy.Parse(text); err != nil {
			t.Fatal(err)
		}
	}
	top, _ := topology.Build(devices, topologytest.Rules())
	resources, err := Render(top, p, "server")
	if err != nil {
		t.Fatal(err)
	}
	document := make(map[string][]json.RawMessage)
	for _, r := range resources {
		raw, err := protojson.Marshal(r.Message)
		if err != nil {
			t.Fatal(err)
		}
		document[r.Type] = append(document[r.Type], raw)
	}
	// protojson's own white space changes on purpose; this does not.
	out, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}
