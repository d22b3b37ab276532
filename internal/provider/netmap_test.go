package provider

import (
	"testing"
	"time"

	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/topology"
)

func TestNetmapPolicyAlone(t *testing.T) {
	n := newTailnet(t)
	src := newNetmap(n.local, quiet())
	a, b := n.peer(1, "tag:weight-1"), n.peer(2)
	n.follow(src, func() {
		n.say(&tailcfg.MapResponse{PeersChanged: []*tailcfg.Node{a, b}})
	}, func(d []topology.Device) bool { return len(d) == 2 })
	start := time.Now()
	got := n.follow(src, func() {
		n.say(&tailcfg.MapResponse{PacketFilter: policy(`{"service":"hello","weight":2}`, a)})
	}, func(d []topology.Device) bool { return len(d) == 2 && len(d[0].Grants) == 1 })
	t.Logf("%v %+v %v", time.Since(start), got, n.calls.count)
}
