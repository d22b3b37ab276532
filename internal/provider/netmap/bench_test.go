package netmap

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// large is the size that must not hurt.
const large = 10_000

// ratio times ours and the bare thing in turns, so that whatever else the
// machine does slows both, and reports ours over bare.
func ratio(b *testing.B, ours, bare func()) {
	var o, r time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		bare()
		middle := time.Now()
		ours()
		r, o = r+middle.Sub(start), o+time.Since(middle)
	}
	b.ReportMetric(float64(o)/float64(r), "x-bare")
	b.ReportMetric(1000*o.Seconds()/float64(b.N), "ms")
}

// BenchmarkPeers_changeOfTenThousand is what one changed peer of 10,000 costs, beside a
// bare watcher that decodes the event and nothing else.
func BenchmarkPeers_changeOfTenThousand(b *testing.B) {
	status := &ipnstate.Status{Peer: map[key.NodePublic]*ipnstate.PeerStatus{}}
	for i := range large {
		status.Peer[key.NewNode().Public()] = &ipnstate.PeerStatus{
			ID: tailcfg.StableNodeID(fmt.Sprint(i)), NodeID: tailcfg.NodeID(i), Online: true,
			TailscaleIPs: parseAddresses([]string{fmt.Sprintf("100.64.%d.%d", i>>8, i&255), fmt.Sprintf("fd7a:115c:a1e0::%x", i)}),
		}
	}
	p := &peers{}
	p.start(status)
	g := newGrants(nil)
	g.version = 1
	event, err := json.Marshal(ipn.Notify{PeerChangedPatch: []*tailcfg.PeerChange{{NodeID: 5, Online: new(false)}}})
	if err != nil {
		b.Fatal(err)
	}
	decode := func() *ipn.Notify {
		var n ipn.Notify
		if err := json.Unmarshal(event, &n); err != nil {
			b.Fatal(err)
		}
		return &n
	}
	on := false
	follow := func() {
		n := decode()
		on = !on
		*n.PeerChangedPatch[0].Online = !on
		if !p.apply(n) {
			b.Fatal("no news")
		}
	}
	b.Run("event", func(b *testing.B) { ratio(b, follow, func() { decode() }) })
	b.Run("event and list", func(b *testing.B) {
		ratio(b, func() {
			follow()
			devices, _ := p.list()
			if err := g.addTo(b.Context(), devices, nil, 1); err != nil {
				b.Fatal(err)
			}
		}, func() { decode() })
	})
	// What the same change would cost if all peers were asked for again.
	whole, err := json.Marshal(status)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("event and list, over reading all peers", func(b *testing.B) {
		ratio(b, func() {
			follow()
			devices, _ := p.list()
			if err := g.addTo(b.Context(), devices, nil, 1); err != nil {
				b.Fatal(err)
			}
		}, func() {
			var s ipnstate.Status
			if err := json.Unmarshal(whole, &s); err != nil {
				b.Fatal(err)
			}
		})
	})
}
