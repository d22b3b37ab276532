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

// regions are the networks between which nothing may pass but the tailnet.
var regions = []string{"west", "east", "control"}

// regionsMeetOnTheTailnetOnly looks at it in three ways: how the containers are
// attached, what a connection past the tailnet does, and which packets a
// region's network really carries while requests cross over.
func regionsMeetOnTheTailnetOnly(ctx context.Context, t *testing.T, w *walk) {
	networks := w.networks(ctx, t)
	for _, region := range regions {
		if !networks[region].Internal {
			t.Errorf("network %s leads out", region)
		}
	}
	for container, at := range attachments(networks) {
		if len(at) > 1 && container != w.Container("headscale") {
			t.Errorf("%s is on %v; only headscale may be on more than one", container, at)
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
	w.assertNoStrayPackets(ctx, t, networks)
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
	Containers map[string]struct{ Name, IPv4Address string }
	IPAM       struct{ Config []struct{ Subnet string } }
	subnet     netip.Prefix
}

// address is the container's own address on the network.
func (n network) address(t *testing.T, container string) netip.Addr {
	t.Helper()
	for _, c := range n.Containers {
		if c.Name == container {
			prefix, err := netip.ParsePrefix(c.IPv4Address)
			if err != nil {
				t.Fatal(err)
			}
			return prefix.Addr()
		}
	}
	t.Fatalf("%s is not on the network", container)
	return netip.Addr{}
}

func (w *walk) networks(ctx context.Context, t *testing.T) map[string]network {
	t.Helper()
	found := map[string]network{}
	for _, region := range regions {
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
