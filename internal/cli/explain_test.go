package cli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// printed is what a command prints of a control plane.
func printed(c *controlplanetest.Control, args ...string) string {
	c.T.Helper()
	var out bytes.Buffer
	root := rootCommand(nil)
	root.SetArgs(append(args, "--admin", c.Admin))
	root.SetOut(&out)
	root.SetErr(&out)
	if err := root.ExecuteContext(c.T.Context()); err != nil {
		out.WriteString("error: " + err.Error())
	}
	return out.String()
}

func TestExplain_running_printsSources(t *testing.T) {
	c := controlplanetest.New(t)
	text := controlplanetest.DeviceList("a=tag:weight-1", "b=tag:weight-3", "laptop=tag:web", "slip=tag:wieght-2")
	c.Write("devices.json", text)
	c.Write("policy.yaml", "defaults: {locality: exact}\n")
	c = controlplanetest.Start(t, c.Dir)
	c.AwaitWeights("a=1 b=3")
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"explain"}, []string{
			"a in server: weight 1 (tag:weight-1), port 8080 (default)\n  100.64.0.1:8080 serving; no Envoy tells of its health; expected 25.0 %, observed 0.0 %, 0.0 req/s; no Envoy of its own is connected\n",
			"b in server: weight 3 (tag:weight-3)", "expected 75.0 %",
			"slip (100.64.0.4) is no endpoint: what it says of a service can't be read: see its problems\n  problem: tag:wieght-2: unknown tag: did you mean tag:weight-2? a device that is new joins no service until this is fixed\n",
		}},
		{[]string{"explain", "laptop"}, []string{"laptop (100.64.0.3) is no endpoint: it names neither a weight nor a service"}},
		{[]string{"explain", "server", "--from", "a"}, []string{"as the Envoy of a sees it:\n", "b in server"}},
		{[]string{"explain", "nix"}, []string{`error: there is no service or device "nix"`}},
		{[]string{"explain", "--from", "nix"}, []string{`error: --from: no device has the name`}},
		{[]string{"explain", "-o", "xml"}, []string{"error: --output"}},
		{[]string{"explain", "b", "-o", "yaml"}, []string{"text: tag:weight-3\n", "expected: 0.75\n"}},
		{[]string{"explain", "b", "-o", "json"}, []string{`"text": "tag:weight-3"`, `"expected": 0.75`}},
		{[]string{"top", "--once"}, []string{"no Envoy reports", "SERVER  exact  0.0 req/s", " 75.0 %"}},
		{[]string{"top", "-o", "json"}, []string{`"locality": "exact"`, `"envoys": []`}},
		{[]string{"top", "--once", "nix"}, []string{`error: there is no service "nix"`}},
		{[]string{"top", "-o", "xml"}, []string{"error: --output"}},
		{[]string{"top", "-o", "yaml"}, []string{"locality: exact\n", "envoys: []\n"}},
	} {
		got := printed(c, test.args...)
		for _, want := range test.want {
			if !strings.Contains(got, want) {
				t.Errorf("%v prints\n%s\nwithout\n%s", test.args, got, want)
			}
		}
	}
	if got := printed(c, "explain", "server"); strings.Contains(got, "slip") || strings.Contains(got, "laptop") {
		t.Errorf("of the service it tells more: %s", got)
	}

	if _, answer := c.Do(http.MethodPost, "/drain?device=a&user=alice"); !strings.Contains(answer, "takes no new requests") {
		t.Fatal(answer)
	}
	if got := printed(c, "explain", "a"); !strings.Contains(got, "a in server: drained by alice") || !strings.Contains(got, "weight 1 (tag:weight-1)") || !strings.Contains(got, "8080 drained; expected 0.0 %") {
		t.Errorf("of a drained device: %s", got)
	}
	// The last that serves is held when it is gone.
	c.Write("devices.json", controlplanetest.DeviceList("a=tag:weight-1"))
	c.Await("b is held", func() bool { return len(c.Status().Held) == 1 })
	if got := printed(c, "explain", "b"); !strings.Contains(got, "b in server: the device list lacks it\n") || !strings.Contains(got, "held: the list says missing. ") {
		t.Errorf("of a held device: %s", got)
	}
	for _, kind := range []string{"started", "drain", "state", "held"} {
		c.Await("the changes to tell that it "+kind, func() bool {
			return slices.ContainsFunc(c.Status().Changes, func(change events.Event) bool { return string(change.Kind) == kind })
		})
	}
}

func TestHealthSummary_reports_areCounted(t *testing.T) {
	for want, s := range map[string]traffic.Server{
		"no Envoy tells of its health":                    {},
		"4 of 4 Envoys say healthy":                       {Healthy: 4, Reporting: 4},
		"4 of 4 Envoys say UNHEALTHY":                     {Reporting: 4, UnhealthyFor: []string{"a", "b", "c", "d"}},
		"1 of 4 Envoys say UNHEALTHY: a":                  {Healthy: 3, Reporting: 4, UnhealthyFor: []string{"a"}},
		"5 of 6 Envoys say UNHEALTHY: a, b, c and 2 more": {Healthy: 1, Reporting: 6, UnhealthyFor: []string{"a", "b", "c", "d", "e"}},
	} {
		if got := healthSummary(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPrintTop_tables_arePrinted(t *testing.T) {
	server := func(name string, weight uint32, expected, observed float64, of, healthy int) traffic.Server {
		return traffic.Server{
			Endpoint: topology.Endpoint{Name: name, Region: "west", Weight: weight, State: topology.Serving, Address: netip.MustParseAddrPort("100.64.0.1:80")},
			Expected: expected, Observed: observed, Deviates: expected-observed > 0.1, Requests: 100 * observed, Reporting: of, Healthy: healthy,
		}
	}
	doc := api.Traffic{Envoys: []traffic.Envoy{{}, {Stale: true}}, Services: []traffic.Table{{
		Service: "server", Locality: "nearest", Requests: 100, Errors: 1, P50: 1.5, P99: 12_345, Crossing: 0.25, CrossingExpected: 0.267,
		Entries: []traffic.Entry{{Region: "west", Envoys: 1, Requests: 100, Errors: 1, Share: 1, P50: 1.5, P99: 250}, {}},
		Servers: []traffic.Server{server("a\x1b[31m", 1, 0.25, 0.26, 1, 1), server("b", 3, 0.75, 0, 1, 0)},
	}}}
	var out bytes.Buffer
	if err := printTop(&out, doc); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"1 of 2 Envoys report, the others have stopped\n",
		"SERVER  nearest  100.0 req/s  1.0 % failed  p50 1.5 ms  p99 12.3 s  25.0 % cross regions (26.7 % expected)\n",
		"west       1       100.0 %     100.0   1.0 %    1.5 ms    250 ms\n",
		"b       west    3       serving  0 of 1        75.0 %     0.0 % !       0.0       -  0\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("without %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("a device's name steers the terminal")
	}
	text, err := json.Marshal(doc)
	if err != nil || !strings.Contains(string(text), `"crossingExpected":0.267`) {
		t.Errorf("%v, %s", err, text)
	}
}
