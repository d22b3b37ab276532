package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"

	"github.com/tailxds/tailxds/internal/controlplane"
	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
	"github.com/tailxds/tailxds/internal/doctor"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/tailnet"
)

// doctor runs the command against the control plane, and returns what it found,
// "FAIL check: text".
func findings(c *controlplanetest.Control) (findings []string, err error) {
	c.T.Helper()
	return examine(c.T, "--admin", c.Admin)
}

func examine(t *testing.T, args ...string) (findings []string, err error) {
	t.Helper()
	var out bytes.Buffer
	root := rootCommand(nil)
	root.SetOut(&out)
	root.SetArgs(append([]string{"doctor", "-o", "json"}, args...))
	err = root.ExecuteContext(t.Context())
	var doc struct {
		Findings []doctor.Finding `json:"findings"`
	}
	if decodeErr := json.Unmarshal(out.Bytes(), &doc); decodeErr != nil {
		t.Fatalf("%v, %v: %s", err, decodeErr, out.String())
	}
	for _, f := range doc.Findings {
		findings = append(findings, fmt.Sprintf("%s %s: %s", f.Level, f.Check, f.Text))
	}
	return findings, err
}

// On a real tailnet, what is wrong with it is found, and found no more once it is
// mended.
func TestDoctor_onATailnet_findsWhatIsWrong(t *testing.T) {
	t.Parallel()
	s, lose := controlplanetest.StartLosableCoordination(t, func(s *testcontrol.Server) {
		s.MagicDNSDomain = "example.ts.net"
		s.TagOwners = map[string][]string{"tag:control-plane": {}}
	})
	c := controlplanetest.New(t)
	c.List(controlplanetest.Machines(2, "tag:weight-1"))
	c = controlplanetest.Start(t, c.Dir, controlplanetest.Joiner(c.Dir, s.HTTPTestServer.URL), func(o *controlplane.Config) {
		o.Provider, o.Devices, o.AdvertiseTags = provider.File, c.Dir+"/devices.json", []string{"tag:control-plane"}
	})
	c.AwaitWeights("d01=1 d02=1")
	finds := func(want string) {
		t.Helper()
		c.Await(want, func() bool {
			findings, _ := findings(c)
			return slices.ContainsFunc(findings, func(f string) bool { return strings.HasPrefix(f, want) })
		})
	}
	finds("PASS joined: as tsnet-dynamic-eds.example.ts.net")
	finds("PASS coordination server: its node is in touch with it")
	finds("PASS own tag: tag:control-plane")
	finds("PASS clock: agrees with the coordination server's")
	finds("PASS device list: from file, ")
	if _, metrics := c.Do(http.MethodGet, "/metrics"); !strings.Contains(metrics, "\ntailxds_coordination_link_up 1\n") {
		t.Errorf("the metrics do not say that the link is up:\n%s", metrics)
	}
	finds("WARN netmap cache: ")
	finds("WARN others may not: the policy lets the whole tailnet reach port 18000")
	finds("PASS servers may connect: ")
	finds("FAIL connected: no Envoy is connected")
	if findings, err := findings(c); err == nil || err.Error() != fmt.Sprintf("1 of %d checks failed", len(findings)) {
		t.Errorf("%v: %q", err, findings)
	}

	node := s.AllNodes()[0]
	s.SetNodeCapMap(node.Key, tailcfg.NodeCapMap{tailcfg.NodeAttrCacheNetworkMaps: nil})
	finds("PASS netmap cache: ")
	// A policy that lets one server in, and the other only to another port.
	allow := func(from string, port uint16) tailcfg.FilterRule {
		return tailcfg.FilterRule{SrcIPs: []string{from}, DstPorts: []tailcfg.NetPortRange{{IP: "*", Ports: tailcfg.PortRange{First: port, Last: port}}}}
	}
	if !s.AddRawMapResponse(node.Key, &tailcfg.MapResponse{PacketFilter: []tailcfg.FilterRule{allow("127.0.0.11", 18000), allow("127.0.0.12", 18001)}}) {
		t.Fatal("the node has no map stream")
	}
	finds("PASS others may not: ")
	finds("FAIL servers may connect: the policy does not let them reach port 18000: d02")

	// Its list does not come from the coordination server, and is as good as ever.
	lose()
	finds("WARN coordination server: its node's link to it is down")
	finds("PASS device list: from file, ")
	const down = "ready, but the control plane's own link to the coordination server is down"
	c.Await("/readyz to say so", func() bool {
		code, detail := c.Do(http.MethodGet, "/readyz")
		return code == http.StatusOK && strings.HasPrefix(detail, down)
	})
	if s := c.Status(); s.Detail != down || !s.Provider.LinkDown {
		t.Errorf("/status says %q, %+v", s.Detail, s.Provider)
	}
	if _, metrics := c.Do(http.MethodGet, "/metrics"); !strings.Contains(metrics, "\ntailxds_coordination_link_up 0\n") {
		t.Errorf("the metrics do not say that the link is down:\n%s", metrics)
	}
}

// A control plane that does not get in says so, and examines nothing that it
// can't know.
func TestDoctor_whileJoining_saysWhy(t *testing.T) {
	t.Parallel()
	s := controlplanetest.StartCoordination(t, func(s *testcontrol.Server) { s.RequireMachineAuth = true })
	dir := t.TempDir()
	c := controlplanetest.Start(t, dir, controlplanetest.Joiner(dir, s.HTTPTestServer.URL))
	c.Await("the reason", func() bool {
		findings, err := findings(c)
		return err != nil && len(findings) > 0 && strings.HasPrefix(findings[0], "FAIL joined: not on the tailnet yet: ") && strings.Contains(findings[0], "waiting for an admin to approve the device")
	})
}

// Of a server's host, everything between it and the control plane is tried.
func TestDoctor_onAServersHost_checksEnvoyAndNode(t *testing.T) {
	t.Parallel()
	c := controlplanetest.Trial(t, controlplanetest.Machines(1, "tag:weight-1"))
	c.Connect("127.0.0.1", "server").Await("server", "d01=1")
	xds := xdsAddress(c)
	var stats string
	envoy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/server_info":
			_, _ = io.WriteString(w, `{"version": "0123abc/1.40.0/Clean/RELEASE/BoringSSL"}`)
		case r.URL.Query().Get("filter") == `^control_plane\.connected_state$`:
			_, _ = io.WriteString(w, stats)
		}
	}))
	defer envoy.Close()
	admin := strings.TrimPrefix(envoy.URL, "http://")
	absent := "--socket=" + t.TempDir() + "/none.sock"

	stats = "control_plane.connected_state: 1\n"
	findings, err := examine(t, "--control-plane", xds, "--envoy-admin", admin, absent)
	want := []string{
		"PASS name of the control plane: 127.0.0.1", "PASS control plane's port: " + xds + " can be reached",
		"PASS let in: the control plane serves this host", "WARN tailscaled: it can't be asked here: ", "PASS Envoy: 1.40.0, connected to the control plane",
	}
	if err != nil || !slices.EqualFunc(findings, want, strings.HasPrefix) {
		t.Errorf("%v: %q", err, findings)
	}
	if s := c.Status(); len(s.Envoys) != 1 {
		t.Errorf("the examination is taken for an Envoy: %+v", s.Envoys)
	}

	stats = "control_plane.connected_state: 0\n"
	refusing, html, nobody := refuses(t, "no endpoint"), strings.TrimPrefix(envoy.URL, "http://"), closedPort(t)
	for want, args := range map[string][]string{
		"FAIL Envoy: 1.40.0, and it has no stream to the control plane": {"--control-plane", xds, "--envoy-admin", admin},
		"WARN Envoy: it can't be asked: ":                               {"--control-plane", xds, "--envoy-admin", nobody},
		"FAIL let in: the control plane refuses this host: no endpoint": {"--control-plane", refusing},
		"FAIL let in: what answers there is no control plane: ":         {"--control-plane", html},
		"FAIL control plane's port: dial tcp " + nobody:                 {"--control-plane", nobody},
		"FAIL name of the control plane: lookup no-such-host.invalid":   {"--control-plane", "no-such-host.invalid"},
		"PASS name of the control plane: 127.0.0.1":                     {"--control-plane", refusing, "--envoy-admin="},
	} {
		findings, _ := examine(t, append(args, absent)...)
		if !slices.ContainsFunc(findings, func(f string) bool { return strings.HasPrefix(f, want) }) {
			t.Errorf("%v: %q lacks %q", args, findings, want)
		}
	}
	for _, bad := range []string{":18000", "plane:x"} {
		if err := rootWith(t, "doctor", "--control-plane", bad); err == nil || !strings.Contains(err.Error(), "it must be a host, or host:port") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := rootWith(t, "doctor", "-o", "xml"); err == nil || !strings.Contains(err.Error(), "it must be table, json or yaml") {
		t.Errorf("xml: %v", err)
	}
}

func rootWith(t *testing.T, args ...string) error {
	t.Helper()
	root := rootCommand(nil)
	root.SetOut(io.Discard)
	root.SetArgs(args)
	return root.ExecuteContext(t.Context())
}

func xdsAddress(c *controlplanetest.Control) string {
	_, rest, _ := strings.Cut(c.Log.String(), `msg="serving xDS" address=`)
	address, _, _ := strings.Cut(rest, " ")
	return address
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// refuses is a control plane that lets nobody in.
func refuses(t *testing.T, why string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	collector.RegisterMetricsServiceServer(s, refusing{why: why})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

type refusing struct {
	collector.UnimplementedMetricsServiceServer
	why string
}

func (r refusing) Export(context.Context, *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	return nil, status.Error(codes.PermissionDenied, r.why)
}

func TestDoctor_table_isAligned(t *testing.T) {
	out, paths, err := asked(t, says(`{"version": "v\u001b[2J", "now": "2026-06-01T12:00:00Z", "publishedAt": "2026-06-01T11:59:57Z", "lastGood": "2026-06-01T11:59:57Z", "source": "file", "problems": ["a\u0007: b"]}`), "doctor")
	if err != nil || len(paths) != 1 || paths[0] != "GET /doctor" {
		t.Errorf("asked for %q: %v", paths, err)
	}
	harmless(t, out)
	for _, want := range []string{
		"tailnet\n  WARN  joined  it serves without a tailnet, and every peer may connect\n                → leave out --listen, but for a trial\n",
		"\nservices\n  PASS  served             each service", "\n  WARN  no problems        1: a\ufffd: b\n", " passed, 3 to look at, 0 failed\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it lacks %q:\n%s", want, out)
		}
	}
	if _, _, err := asked(t, says(`{`), "doctor"); err == nil || !strings.Contains(err.Error(), "answers /doctor with what is not its document") {
		t.Errorf("half a document: %v", err)
	}
}

func TestPathTo_peers_areDirectOrRelayed(t *testing.T) {
	a := func(n byte) []netip.Addr { return []netip.Addr{netip.AddrFrom4([4]byte{100, 64, 0, n})} }
	s := &ipnstate.Status{Peer: map[key.NodePublic]*ipnstate.PeerStatus{}}
	for _, p := range []*ipnstate.PeerStatus{
		{TailscaleIPs: a(1), CurAddr: "192.0.2.1:41641", Relay: "fra", Active: true},
		{TailscaleIPs: a(2), Relay: "fra", Active: true},
		{TailscaleIPs: a(3), Relay: "fra"},
		{TailscaleIPs: a(4), PeerRelay: "192.0.2.9:7:1", Relay: "fra"},
	} {
		s.Peer[key.NewNode().Public()] = p
	}
	for n, want := range []doctor.Path{"", doctor.Direct, "relay fra", "", "relay 192.0.2.9:7:1"} {
		if got := tailnet.PathTo(s, a(byte(n))[0]); got != want {
			t.Errorf("to %d: %q, want %q", n, got, want)
		}
	}
}

// An answer's Date is cut to seconds, and comes from some moment between question
// and answer: only what that can't explain is a difference.
func TestClockOff_answers_areCompared(t *testing.T) {
	date := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct{ asked, answered, want time.Duration }{
		{0, 0, 0},
		{999 * time.Millisecond, 999 * time.Millisecond, 0},
		{-time.Second, 0, 0},
		{-3 * time.Second, 5 * time.Second, 0},
		{time.Second, 2 * time.Second, 0},
		{1500 * time.Millisecond, 2 * time.Second, 500 * time.Millisecond},
		{-3 * time.Second, -2 * time.Second, -2 * time.Second},
	} {
		if got := tailnet.ClockOff(date.Add(c.asked), date.Add(c.answered), date); got != c.want {
			t.Errorf("asked %v, answered %v: %v, want %v", c.asked, c.answered, got, c.want)
		}
	}
}

func TestDoctor_names_areResolvedByTailscaled(t *testing.T) {
	a := []netip.Addr{netip.MustParseAddr("100.64.0.4"), netip.MustParseAddr("fd7a:115c:a1e0::4")}
	s := &ipnstate.Status{Peer: map[key.NodePublic]*ipnstate.PeerStatus{
		key.NewNode().Public(): {DNSName: "Plane.example.ts.net.", TailscaleIPs: a}, key.NewNode().Public(): {TailscaleIPs: a[:1]},
	}}
	for name, want := range map[string][]netip.Addr{"plane": a, "plane.example.ts.net": a, "PLANE.example.ts.net.": a, "plane.example": nil, "plan": nil, "": nil} {
		if got := addressesOf(s, name); !slices.Equal(got, want) {
			t.Errorf("%q: %v", name, got)
		}
	}
}
