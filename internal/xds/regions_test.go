package xds

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

func twoRegions(tags ...string) map[string][]string {
	return map[string][]string{
		"d1": append([]string{"tag:weight-1", "tag:region-west"}, tags...), "d2": {"tag:weight-3", "tag:region-west", "tag:zone-a"},
		"d3": {"tag:weight-2", "tag:region-east"},
	}
}

// priorities are the regions of an assignment by priority, "0:west 1:east".
func priorities(t *testing.T, r *discovery.DeltaDiscoveryResponse) string {
	t.Helper()
	var all []string
	for _, res := range r.GetResources() {
		var cla endpoint.ClusterLoadAssignment
		if err := proto.Unmarshal(res.GetResource().GetValue(), &cla); err != nil {
			t.Fatal(err)
		}
		for _, l := range cla.GetEndpoints() {
			all = append(all, fmt.Sprintf("%d:%s%s", l.GetPriority(), l.GetLocality().GetRegion(), l.GetLocality().GetZone()))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (d deltaStream) askFrom(region, name string) {
	d.t.Helper()
	d.send(&discovery.DeltaDiscoveryRequest{
		Node: &core.Node{Id: "node", Locality: &core.Locality{Region: region}}, TypeUrl: Eds, ResourceNamesSubscribe: []string{name},
	})
}

func TestRegions_envoys_seeTheirOwnFirst(t *testing.T) {
	s := newServer()
	local := mustParse(t, "defaults: {locality: local}")
	if err := s.publish(topologytest.Of(twoRegions()), local); err != nil {
		t.Fatal(err)
	}
	c := start(t, s)
	streams := map[string]deltaStream{}
	for region, want := range map[string]string{
		"west": "0:west 0:westa 1:east", "east": "0:east 1:west 1:westa", "": "0:east 0:west 0:westa", "eu": "0:east 0:west 0:westa",
	} {
		streams[region] = openDelta(t, c)
		streams[region].askFrom(region, "server")
		if got := priorities(t, streams[region].want(Eds, "")); got != want {
			t.Errorf("from %q: %s, want %s", region, got, want)
		}
	}
	// A change reaches every view, and each as it sees it.
	if err := s.publish(topologytest.Of(twoRegions("tag:priority-1")), local); err != nil {
		t.Fatal(err)
	}
	for region, want := range map[string]string{"west": "0:westa 1:east 2:west", "east": "0:east 1:westa 2:west", "eu": "0:east 0:westa 1:west"} {
		if got := priorities(t, streams[region].want(Eds, "")); got != want {
			t.Errorf("from %q after the change: %s, want %s", region, got, want)
		}
	}
	// The same again is sent to nobody, and another mode to all.
	if err := s.publish(topologytest.Of(twoRegions("tag:priority-1")), local); err != nil {
		t.Fatal(err)
	}
	if err := s.publish(topologytest.Of(twoRegions()), mustParse(t, "defaults: {locality: nearest}")); err != nil {
		t.Fatal(err)
	}
	for region := range map[string]bool{"west": true, "east": true} {
		if got := priorities(t, streams[region].want(Eds, "")); got != "0:east 0:west" {
			t.Errorf("nearest from %q: %s, want one locality a region", region, got)
		}
	}
}

// Whoever claims to be elsewhere is told what the tailnet knows, and is shown.
func TestRegions_tailnet_decides(t *testing.T) {
	a, c := newAdmission(t, device1())
	if err := a.publish(topologytest.Of(twoRegions()), mustParse(t, "defaults: {locality: local}")); err != nil {
		t.Fatal(err)
	}
	stream := openDelta(t, c)
	stream.askFrom("east", "server")
	if got := priorities(t, stream.want(Eds, "")); got != "0:west 0:westa 1:east" {
		t.Errorf("got %s", got)
	}
	stream.settle()
	if all := a.Streams(); all[0].Region != "west" || all[0].Claims != "east" {
		t.Errorf("stream: %+v", all[0])
	}
	if got := a.EnvoysByRegion(); len(got) != 1 || got["west"] != 1 {
		t.Errorf("by region: %v", got)
	}
	// Its tags move it, so its stream begins anew.
	moved := twoRegions()
	moved["d1"] = []string{"tag:weight-1", "tag:region-eu"}
	if err := a.publish(topologytest.Of(moved), mustParse(t, "defaults: {locality: local}")); err != nil {
		t.Fatal(err)
	}
	var err error
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `region is "eu" now`) {
		t.Errorf("ended with %v", err)
	}
}

// A device that serves nothing is where its tag says.
func TestRegions_tag_isEnough(t *testing.T) {
	a, _ := newAdmission(t, device1())
	for want, who := range map[string]Identity{
		"eu": {Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.77")}, Tags: []string{"tag:laptop"}, Region: "eu"},
		"":   {Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.78")}, Tags: []string{"tag:laptop"}},
	} {
		if got, known := a.access.region(who); got != want || !known {
			t.Errorf("got %q, %t; want %q", got, known, want)
		}
	}
}

func TestLocalCluster_entries_areFollowed(t *testing.T) {
	s := newServer()
	set(t, s, topologytest.OneService())
	c := start(t, s)
	west, none := openDelta(t, c), openDelta(t, c)
	for region, stream := range map[string]deltaStream{"west": west, "": none} {
		stream.askFrom(region, envoy.LocalCluster)
		if r := stream.want(Eds, ""); len(r.GetResources()) != 1 || priorities(t, r) != "" {
			t.Errorf("before anything is known, %q gets %v", region, r.GetResources())
		}
	}
	if err := s.publishLocalCluster(map[string]uint32{"west": 7500, "east": 2500, "eu": 0}); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []deltaStream{west, none} {
		if got := priorities(t, stream.want(Eds, "")); got != "0:east 0:west" {
			t.Errorf("got %s", got)
		}
	}
	// They outlive a change of the topology.
	set(t, s, topologytest.Of(twoRegions()))
	if err := s.publishLocalCluster(map[string]uint32{"west": 7500, "east": 2500}); err != nil {
		t.Fatal(err)
	}
	late := openDelta(t, c)
	late.askFrom("east", envoy.LocalCluster)
	if got := priorities(t, late.want(Eds, "")); got != "0:east 0:west" {
		t.Errorf("a late comer gets %s", got)
	}
}

func TestCallerOf_streams_areIdentified(t *testing.T) {
	who := peerInfo{Identity: Identity{Name: "d1\x1b"}, address: netip.MustParseAddrPort("100.64.0.1:9"), region: "west", known: true}
	got := CallerOf(context.WithValue(t.Context(), identityKey{}, who))
	if want := (Caller{Device: "d1?", Address: who.address, Region: "west", Known: true}); got != want {
		t.Errorf("got %+v", got)
	}
	if nobody := CallerOf(t.Context()); nobody.Known || nobody.Region != "" {
		t.Errorf("got %+v", nobody)
	}
}

// A changed cluster asks for its endpoints under another name, which each view
// must have though the endpoints are the same.
func TestRegions_changedCluster_asksAnewInEach(t *testing.T) {
	s := newServer()
	var stream deltaStream
	for i, timeout := range []string{"1s", "2s"} {
		if err := s.publish(topologytest.Of(twoRegions()), mustParse(t, "defaults: {locality: local, protocol: grpc, connect_timeout: "+timeout+"}")); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			stream = openDelta(t, start(t, s))
		}
		stream.askFrom("west", s.assignmentOf("server"))
		if got, want := priorities(t, stream.want(Eds, "")), "0:west 0:westa 1:east"; got != want {
			t.Errorf("with %s: %q, want %q", timeout, got, want)
		}
	}
}
