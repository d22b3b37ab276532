package main

import (
	"net/netip"
	"testing"

	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/xds"
)

// The page shows at each Envoy what that one reports, also where Envoys share a
// bootstrap, whose node is not what each was started as.
func TestWhoseReportItIs(t *testing.T) {
	at := netip.MustParseAddr
	var f pageFacts
	f.traffic.View.Envoys = []traffic.Envoy{
		{Address: at("100.64.0.1"), Node: "shared"},
		{Address: at("100.64.0.2"), Node: "one"},
		{Address: at("100.64.0.2"), Node: "two"},
	}
	for _, test := range []struct{ address, node, want string }{
		{"100.64.0.1", "west-1", "shared"},
		{"100.64.0.2", "one", "one"},
		{"100.64.0.2", "two", "two"},
		{"100.64.0.2", "three", ""},
		{"100.64.0.3", "shared", ""},
	} {
		got := ""
		if e := f.reportOf(xds.Stream{Address: netip.AddrPortFrom(at(test.address), 1234), Node: test.node}); e != nil {
			got = e.Node
			if e.Address != at(test.address) {
				t.Errorf("%s at %s gets the report of %s", test.node, test.address, e.Address)
			}
		}
		if got != test.want {
			t.Errorf("%s at %s gets the report of %q, want %q", test.node, test.address, got, test.want)
		}
	}
}
