package netmap

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/topology"
)

// survives checks what must hold of every device that a source lets through:
// it has an ID, says never as nil, and Build takes it.
func survives(t *testing.T, devices []topology.Device, err error) {
	t.Helper()
	if err != nil {
		if len(err.Error()) == 0 || strings.Contains(err.Error(), "%!") {
			t.Fatalf("an error without words: %q", err)
		}
		return
	}
	for _, d := range devices {
		if d.ID == "" {
			t.Fatalf("no ID: %+v", d)
		}
		if d.Expires != nil && d.Expires.Year() <= 1 {
			t.Fatalf("never is %v", d.Expires)
		}
		for _, g := range d.Grants {
			if len(g) == 0 {
				t.Fatalf("an empty grant: %+v", d)
			}
		}
	}
	topology.Build(devices, topology.Rules{DefaultService: "server", DefaultPort: 8080, Now: time.Unix(1e9, 0)})
	if _, err := json.Marshal(devices); err != nil {
		t.Fatalf("can't be kept on disk: %v", err)
	}
}

func FuzzPeers_events(f *testing.F) {
	f.Add(`{"Peer":{"nodekey:0000000000000000000000000000000000000000000000000000000000000001":{"ID":"n1","NodeID":1,"TailscaleIPs":["100.64.0.1"],"Tags":["tag:a"]}}}`,
		`{"PeersChanged":[{"ID":1,"StableID":"n1","Name":"a.b.","Addresses":["100.64.0.1/32","10.0.0.0/8"],"KeyExpiry":"0001-01-01T00:00:00Z"}],"PeersRemoved":[1],"PeerChangedPatch":[null,{"NodeID":1,"Online":true}]}`)
	f.Fuzz(func(t *testing.T, first, then string) {
		var status ipnstate.Status
		var event ipn.Notify
		if json.Unmarshal([]byte(first), &status) != nil || json.Unmarshal([]byte(then), &event) != nil {
			return
		}
		p := &peers{}
		p.start(&status)
		p.apply(&event)
		if p.apply(&event) && len(event.PeersRemoved) == 0 && len(event.PeersChanged) <= 1 && len(event.PeerChangedPatch) == 0 {
			t.Fatal("the same event is news twice")
		}
		devices, whole := p.list()
		if !whole {
			t.Fatal("not whole")
		}
		for i := range devices {
			if devices[i].ID == "" {
				devices[i].ID = "?"
			}
		}
		survives(t, devices, nil)
	})
}

func FuzzGrants_packetFilter(f *testing.F) {
	f.Add(`[{"SrcIPs":["100.64.0.1","*","cap:x","1-2"],"CapGrant":[{"Dsts":["100.64.0.9/32"],"CapMap":{"tailxds.dev/cap/endpoint":[{"weight":1}]}}]}]`, "100.64.0.1")
	f.Fuzz(func(_ *testing.T, text, address string) {
		var rules []tailcfg.FilterRule
		if json.Unmarshal([]byte(text), &rules) != nil {
			return
		}
		g := newGrants(nil)
		g.rules = grantingRules(rules, parseAddresses([]string{"100.64.0.9", "fd7a:115c:a1e0::9"}))
		g.expected(parseAddresses([]string{address}))
	})
}
