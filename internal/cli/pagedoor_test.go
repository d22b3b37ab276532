package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tailscale.com/client/tailscale/apitype"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"

	"github.com/tailxds/tailxds/internal/dashboard"
)

func TestWhatAGrantLetsOneDo(t *testing.T) {
	for name, test := range map[string]struct {
		grants []string
		want   dashboard.Role
	}{
		"nothing":            {nil, dashboard.RoleNone},
		"view":               {[]string{`{"role": "view"}`}, dashboard.RoleView},
		"operate":            {[]string{`{"role": "operate"}`}, dashboard.RoleOperate},
		"both":               {[]string{`{"role": "operate"}`, `{"role": "view"}`}, dashboard.RoleOperate},
		"both, other way":    {[]string{`{"role": "view"}`, `{"role": "operate"}`}, dashboard.RoleOperate},
		"an unknown role":    {[]string{`{"role": "owner"}`}, dashboard.RoleNone},
		"none named":         {[]string{`{}`}, dashboard.RoleNone},
		"another type":       {[]string{`{"role": ["operate"]}`}, dashboard.RoleNone},
		"one can't be read":  {[]string{`{"role": "view"}`, `"operate"`}, dashboard.RoleView},
		"no grant's content": {[]string{}, dashboard.RoleNone},
	} {
		who := &apitype.WhoIsResponse{
			Node: &tailcfg.Node{Name: "laptop.example.ts.net."}, UserProfile: &tailcfg.UserProfile{LoginName: "alice@example.com"},
			CapMap: tailcfg.PeerCapMap{"tailxds.dev/cap/endpoint": {`{"role": "operate"}`}},
		}
		for _, g := range test.grants {
			if !json.Valid([]byte(g)) {
				t.Fatal(g)
			}
			who.CapMap[dashboard.Capability] = append(who.CapMap[dashboard.Capability], tailcfg.RawMessage(g))
		}
		v := viewerOf(who)
		if v.Role != test.want {
			t.Errorf("%s: %q, want %q", name, v.Role, test.want)
		}
		if test.want != dashboard.RoleNone && v.Name != "alice@example.com" {
			t.Errorf("%s: it is signed by %q", name, v.Name)
		}
	}
	tagged := &apitype.WhoIsResponse{
		Node: &tailcfg.Node{Name: "ci-1.example.ts.net.", Tags: []string{"tag:ci"}}, UserProfile: &tailcfg.UserProfile{LoginName: "tagged-devices"},
		CapMap: tailcfg.PeerCapMap{dashboard.Capability: {`{"role": "operate"}`}},
	}
	if v := viewerOf(tagged); v.Name != "ci-1" {
		t.Errorf("a device with tags signs as %q", v.Name)
	}
}

func TestNamesOfThePage(t *testing.T) {
	self := &ipnstate.PeerStatus{
		DNSName:      "Tsnet-Dynamic-Eds.example.ts.net.",
		TailscaleIPs: []netip.Addr{netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd7a:115c:a1e0::1")},
	}
	want := []string{"tsnet-dynamic-eds.example.ts.net", "tsnet-dynamic-eds", "100.64.0.1", "fd7a:115c:a1e0::1"}
	if got := namesOf(self); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := namesOf(&ipnstate.PeerStatus{}); len(got) > 0 {
		t.Errorf("a node without a name answers under %q", got)
	}
}

func TestTheAdminAddressesDoor(t *testing.T) {
	for from, want := range map[string]dashboard.Role{
		"127.0.0.1:5": dashboard.RoleOperate, "[::1]:5": dashboard.RoleOperate, "[::ffff:127.0.0.1]:5": dashboard.RoleOperate,
		"172.17.0.1:5": dashboard.RoleView, "100.64.0.9:5": dashboard.RoleView, "nonsense": dashboard.RoleView,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = from
		if v, err := adminDoor().Who(r); err != nil || v.Role != want || v.Name == "" {
			t.Errorf("from %s: %+v, want %q", from, v, want)
		}
	}
}

// On a real tailnet the page is for whom the policy grants it, and for as long:
// by the node's names, and with a role that may be taken away.
func TestThePageOnATailnet(t *testing.T) {
	t.Parallel()
	p := newPair(t, "nothing", machines(2, "tag:weight-1"))
	one := p.start(t, "plane-1")
	one.awaitWeights("d01=1 d02=1")
	laptop := &tsnet.Server{
		Dir: t.TempDir(), Hostname: "laptop", ControlURL: p.tailnet.HTTPTestServer.URL, Ephemeral: true,
		Logf: logger.Discard, UserLogf: logger.Discard,
	}
	t.Cleanup(func() { _ = laptop.Close() })
	if _, err := laptop.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := laptop.HTTPClient()
	ask := func(method, path, host, body string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://plane-1"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if host != "" {
			r.Host = host
		}
		answer, err := client.Do(r)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = answer.Body.Close() }()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	drain := func() int { code, _ := ask(http.MethodPost, "/act/drain", "", `{"device": "d01"}`); return code }
	await := func(what string, code int) {
		t.Helper()
		one.await(what, func() bool { got, _ := ask(http.MethodGet, "/", "", ""); return got == code })
	}

	await("a stranger is told nothing", http.StatusForbidden)
	if code, text := ask(http.MethodGet, "/live", "", ""); code != 403 || strings.Contains(text, "d01") {
		t.Errorf("a stranger's stream: %d %s", code, text)
	}
	p.grant("view")
	await("who may view sees the page", http.StatusOK)
	if code := drain(); code != 403 {
		t.Errorf("a viewer drains: %d", code)
	}
	if code, _ := ask(http.MethodGet, "/", "evil.example", ""); code != http.StatusMisdirectedRequest {
		t.Errorf("under another name: %d", code)
	}
	p.grant("operate")
	one.await("who may operate drains", func() bool { return drain() == http.StatusNoContent })
	one.awaitWeights("d02=1")

	// A stream ends soon after the role does.
	ended := make(chan struct{})
	go func() { defer close(ended); ask(http.MethodGet, "/live", "", "") }()
	p.grant("nothing")
	await("the role is taken away", http.StatusForbidden)
	one.await("the stream ends", func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
}
