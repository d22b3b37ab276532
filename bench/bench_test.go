package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// TestMain lets the test's own program be a peer, as bench's is.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "-peer" {
		if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
			panic(err)
		}
		return
	}
	m.Run()
}

// Whether the rows can be measured is tested, and what must be so whatever the
// machine does. No time is.
func TestRows_quick_areMeasured(t *testing.T) {
	for _, r := range rows() {
		switch r.name {
		case "fanout-100", "snapshots-100":
			if f, err := r.run(t.Context(), quick); err != nil || f.value == "" {
				t.Errorf("%s: %+v, %v", r.name, f, err)
			}
		case "others", "growth-bytes":
			if f, err := r.run(t.Context(), quick); err != nil || !f.ok {
				t.Errorf("%s: %+v, %v", r.name, f, err)
			}
		}
	}
}

func TestRegions_output_isRead(t *testing.T) {
	text := `goos: linux
BenchmarkRegions/nearest-2     1   10.5 crossing-%   1.4 off-points   2 west-p50-ms
BenchmarkRegions/weighted-2    1   50 crossing-%
BenchmarkRegions/failover-2    1   0 crossing-%
PASS
`
	of := newRegions().once.read
	modes, err := of(text)
	if err != nil || modes["nearest"]["crossing-%"] != 10.5 || modes["nearest"]["west-p50-ms"] != 2 || modes["weighted"]["crossing-%"] != 50 {
		t.Errorf("%v, %v", modes, err)
	}
	for _, bad := range []string{"", strings.Replace(text, "failover", "over", 1), strings.Replace(text, "10.5", "ten", 1)} {
		if modes, err := of(bad); err == nil {
			t.Errorf("%q is read as %v", bad, modes)
		}
	}
}

func TestFrame_protobuf_isRead(t *testing.T) {
	b, err := proto.Marshal(&discovery.DeltaDiscoveryResponse{
		SystemVersionInfo: "7", TypeUrl: resource.EndpointType, Nonce: "42", RemovedResources: []string{"a", "b"},
		Resources: []*discovery.Resource{{Name: "s0", Version: "v"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	f := frame{keep: true}
	if err := f.read(b); err != nil || f.typ != resource.EndpointType || f.nonce != "42" || f.size != len(b) || !bytes.Equal(f.whole, b) {
		t.Errorf("read %+v, %v", f, err)
	}
	if f.read(b[:len(b)-1]) == nil {
		t.Error("half a message was read")
	}
	f = frame{typ: resource.EndpointType, nonce: "42"}
	var request discovery.DeltaDiscoveryRequest
	if err := proto.Unmarshal(ask("n", f.typ, []string{"s0", "s1"}), &request); err != nil {
		t.Fatal(err)
	}
	if request.GetNode().GetId() != "n" || request.GetTypeUrl() != f.typ || len(request.GetResourceNamesSubscribe()) != 2 {
		t.Errorf("asks %v", &request)
	}
	if err := proto.Unmarshal(ack(f), &request); err != nil || request.GetTypeUrl() != f.typ || request.GetResponseNonce() != "42" {
		t.Errorf("answers %v, %v", &request, err)
	}
	r := frame{request: true}
	if err := r.read(ack(f)); err != nil || r.typ != f.typ || r.nonce != "42" {
		t.Errorf("the bare server reads %+v, %v", r, err)
	}
}

func TestSeries_values_haveQuantiles(t *testing.T) {
	s := series{5, 1, 3, 2, 4}
	if s.median() != 3 || s.quantile(0) != 1 || s.quantile(1) != 5 || s.String() != "3.00 (2.00 to 4.00)" {
		t.Errorf("%v has the median %v", s, s.median())
	}
	if got := s.over(series{10, 1, 1}); len(got) != 3 || got[0] != 0.5 || got[2] != 3 {
		t.Errorf("neighbours' ratios are %v", got)
	}
	if !math.IsNaN(series{}.median()) {
		t.Error("nothing has a median")
	}
	if !near(1.04, 0.05, "").ok || near(1.06, 0.05, "").ok || near(0.94, 0.05, "").ok {
		t.Error("what is near 1?")
	}
	if !ratio(series{1.3}, 1.3, "").ok || ratio(series{1.31}, 1.3, "").ok {
		t.Error("what reaches the limit?")
	}
}

func TestTable_rows_areMarkdown(t *testing.T) {
	all := []measured{{row{what: "WHAT", beside: "BESIDE", target: "TARGET"}, figure{value: "VALUE", ok: true}}}
	var text bytes.Buffer
	if err := table(&text, all); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if row := strings.Join(strings.Fields(lines[len(lines)-1]), " "); row != "| WHAT | BESIDE | TARGET | VALUE | yes |" {
		t.Errorf("the row is %q", row)
	}
}
