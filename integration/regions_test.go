package integration_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/integration/shares"
)

// regions are the networks between which nothing may pass but the tailnet. edge
// is where the machine that the lab runs on reaches it.
var regions = []string{"west", "east", "control"}

const edge = "edge"

// regionsMeetOnTheTailnetOnly looks at it in four ways: how the containers are
// attached, what a connection past the tailnet does, whether headscale lets
// itself be used as a router, and which packets a region's network really
// carries while requests cross over.
func regionsMeetOnTheTailnetOnly(ctx context.Context, t *testing.T, w *walk) {
	networks := w.networks(ctx, t)
	for _, region := range regions {
		if !networks[region].Internal {
			t.Errorf("network %s leads out", region)
		}
	}
	for container, at := range attachments(networks) {
		want := 1
		switch container {
		case w.Container("headscale"):
			want = len(regions)
		case w.Container("laptop"), w.Container("page"):
			want = 2 // of which one is the edge
		}
		if len(at) != want || slices.Contains(at, edge) != (want == 2) {
			t.Errorf("%s is on %v; only headscale may be on more than one region's, and only the laptop and the page on the edge", container, at)
		}
	}
	for _, service := range []string{"headscale", "laptop", "page"} {
		if forwards, err := w.Probe.Read(ctx, w.Container(service), "/proc/sys/net/ipv4/ip_forward"); err != nil || forwards != "0" {
			t.Errorf("%s is on more than one network and a router between them: %q, %v", service, forwards, err)
		}
	}

	direct := func(from, to, network string) error {
		address := networks[network].address(t, w.Container(to))
		return w.Probe.Dial(ctx, w.Container(from), address.String()+":8080")
	}
	if err := direct("west-1", "west-2", "west"); err != nil {
		t.Errorf("inside a region there should be a way without the tailnet, or this test proves nothing: %v", err)
	}
	if direct("west-1", "east-1", "east") == nil {
		t.Error("west-1 reached east-1 past the tailnet")
	}
	if direct("east-1", "west-1", "west") == nil {
		t.Error("east-1 reached west-1 past the tailnet")
	}
	w.assertNotRouted(ctx, t, networks)
	w.assertNoStrayPackets(ctx, t, networks)
}

// assertNotRouted gives headscale, which is on both networks, packets for east
// that come from an address of west. The same packets do reach a neighbour.
func (w *walk) assertNotRouted(ctx context.Context, t *testing.T, networks map[string]network) {
	t.Helper()
	const packets = 10
	west := networks["west"]
	forged := lastAddress(west.subnet)
	heard := func(listener, through string, destination netip.Addr) int {
		end, err := w.Probe.Sniff(ctx, w.Container(listener), "eth0")
		if err != nil {
			t.Fatal(err)
		}
		mac := west.container(t, w.Container(through)).MacAddress
		if err := w.Probe.Forge(ctx, w.Container("west-1"), "eth0", mac, forged.String(), destination.String(), packets); err != nil {
			t.Fatal(err)
		}
		output, err := end()
		if err != nil {
			t.Fatal(err)
		}
		return packetsFrom(t, output, forged)
	}
	if n := heard("west-2", "west-2", west.address(t, w.Container("west-2"))); n != packets {
		t.Errorf("a neighbour heard %d of %d forged packets, so this test proves nothing", n, packets)
	}
	if n := heard("east-1", "headscale", networks["east"].address(t, w.Container("east-1"))); n > 0 {
		t.Errorf("headscale routed %d of %d packets from west to east", n, packets)
	}
}

// lastAddress is the last one of a subnet that a host can have; containers get
// the first ones.
func lastAddress(subnet netip.Prefix) netip.Addr {
	address := subnet.Addr()
	for next := address.Next(); subnet.Contains(next.Next()); next = next.Next() {
		address = next
	}
	return address
}

func packetsFrom(t *testing.T, output string, source netip.Addr) int {
	t.Helper()
	n := 0
	for _, line := range strings.Split(strings.TrimSpace(output), "\n") {
		if line == "" {
			continue // nothing was heard at all
		}
		if from, _, count := parsePair(t, line); from == source {
			n += count
		}
	}
	return n
}

// assertNoStrayPackets listens on a west and an east interface while requests
// cross over: nothing may arrive from an address of the other region, and both
// exchange a good deal with headscale's relay. What leaves for the other region
// is no fault: tailscaled tries the direct way now and then, and must fail.
func (w *walk) assertNoStrayPackets(ctx context.Context, t *testing.T, networks map[string]network) {
	t.Helper()
	ears := map[string]func() (string, error){}
	for region, server := range map[string]string{"west": "west-1", "east": "east-1"} {
		end, err := w.Probe.Sniff(ctx, w.Container(server), "eth0")
		if err != nil {
			t.Fatal(err)
		}
		ears[region] = end
	}
	const requests = 1_000
	tally, err := w.Ask(ctx, envoy("west-1"), requests)
	if err != nil {
		t.Fatal(err)
	}
	if err := shares.Check(tally.By(shares.Host), bothRegions); err != nil {
		t.Error(err)
	}
	other := map[string]string{"west": "east", "east": "west"}
	for region, end := range ears {
		output, err := end()
		if err != nil {
			t.Fatal(err)
		}
		relay, relayed := networks[region].address(t, w.Container("headscale")), 0
		for _, line := range strings.Split(strings.TrimSpace(output), "\n") {
			source, destination, count := parsePair(t, line)
			if networks[other[region]].subnet.Contains(source) {
				t.Errorf("%d packets got from %s to %s in %s", count, source, destination, region)
			}
			if source == relay || destination == relay {
				relayed += count
			}
		}
		// Each Envoy sends a share of the requests into the other region, or has
		// them from there: at least a packet each way.
		if relayed < requests/10 {
			t.Errorf("%s exchanged only %d packets with the relay; the listener may be deaf", region, relayed)
		}
	}
}

// network is what the engine knows of one of the lab's networks.
type network struct {
	Internal   bool
	Containers map[string]attached
	IPAM       struct{ Config []struct{ Subnet string } }
	subnet     netip.Prefix
}

// attached is a container on a network.
type attached struct{ Name, IPv4Address, MacAddress string }

func (n network) container(t *testing.T, name string) attached {
	t.Helper()
	for _, c := range n.Containers {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("%s is not on the network", name)
	return attached{}
}

// address is the container's own address on the network.
func (n network) address(t *testing.T, container string) netip.Addr {
	t.Helper()
	prefix, err := netip.ParsePrefix(n.container(t, container).IPv4Address)
	if err != nil {
		t.Fatal(err)
	}
	return prefix.Addr()
}

func (w *walk) networks(ctx context.Context, t *testing.T) map[string]network {
	t.Helper()
	found := map[string]network{}
	for _, region := range append([]string{edge}, regions...) {
		output, err := engine.Docker(ctx, "network", "inspect", w.Project+"_"+region)
		if err != nil {
			t.Fatal(err)
		}
		var answer []network
		if err := json.Unmarshal([]byte(output), &answer); err != nil || len(answer) != 1 || len(answer[0].IPAM.Config) == 0 {
			t.Fatalf("network %s: %v: %s", region, err, output)
		}
		answer[0].subnet, err = netip.ParsePrefix(answer[0].IPAM.Config[0].Subnet)
		if err != nil {
			t.Fatal(err)
		}
		found[region] = answer[0]
	}
	return found
}

// attachments are the networks of each container, by its name.
func attachments(networks map[string]network) map[string][]string {
	found := map[string][]string{}
	for name, network := range networks {
		for _, container := range network.Containers {
			found[container.Name] = append(found[container.Name], name)
		}
	}
	for _, at := range found {
		slices.Sort(at)
	}
	return found
}

// parsePair reads a line of Probe.Sniff.
func parsePair(t *testing.T, line string) (source, destination netip.Addr, count int) {
	t.Helper()
	fields := strings.Fields(line)
	if len(fields) != 3 {
		t.Fatalf("the listener said %q", line)
	}
	source, err := netip.ParseAddr(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	destination, err = netip.ParseAddr(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	if count, err = strconv.Atoi(fields[2]); err != nil {
		t.Fatal(err)
	}
	return source, destination, count
}
