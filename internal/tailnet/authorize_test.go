package tailnet

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"

	"tailscale.com/client/tailscale/apitype"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/dashboard"
)

func TestAdminRole_grants_decide(t *testing.T) {
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
		v := viewer(who)
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
	if v := viewer(tagged); v.Name != "ci-1" {
		t.Errorf("a device with tags signs as %q", v.Name)
	}
}

func TestNodeNames_self_hasEachName(t *testing.T) {
	self := &ipnstate.PeerStatus{
		DNSName:      "Tsnet-Dynamic-Eds.example.ts.net.",
		TailscaleIPs: []netip.Addr{netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd7a:115c:a1e0::1")},
	}
	want := []string{"tsnet-dynamic-eds.example.ts.net", "tsnet-dynamic-eds", "100.64.0.1", "fd7a:115c:a1e0::1"}
	if got := nodeNames(self); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := nodeNames(&ipnstate.PeerStatus{}); len(got) > 0 {
		t.Errorf("a node without a name answers under %q", got)
	}
}
