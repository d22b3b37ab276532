package topology

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSameServing_anyDifference_isSeen(t *testing.T) {
	built := func(tags ...string) Service {
		all, _ := Build([]Device{device(1, append(tags, "tag:service-s")...), device(2, "tag:service-s", "tag:weight-0")}, rules())
		return all.Services[0]
	}
	s := built("tag:weight-2", "tag:region-west", "tag:zone-a")
	idle := s
	idle.Idle = nil
	if !s.SameServing(built("tag:weight-2", "tag:region-west", "tag:zone-a")) || !s.SameServing(idle) {
		t.Error("Envoys would see a difference where there is none")
	}
	renamed, lower := s, s
	renamed.Name = "t"
	lower.Localities = []Locality{s.Localities[0]}
	lower.Localities[0].Priority = 1
	for name, other := range map[string]Service{
		"name": renamed, "priority": lower,
		"region":   built("tag:weight-2", "tag:region-east", "tag:zone-a"),
		"zone":     built("tag:weight-2", "tag:region-west", "tag:zone-b"),
		"weight":   built("tag:weight-3", "tag:region-west", "tag:zone-a"),
		"endpoint": built("tag:weight-2", "tag:region-west", "tag:zone-a", "tag:port-81"),
		"nobody":   {Name: s.Name},
	} {
		if s.SameServing(other) {
			t.Errorf("another %s is the same to Envoys", name)
		}
	}
}

// Regions and presence are told also of who serves nothing now.
func TestPresentAndRegions_idleDevices_areIncluded(t *testing.T) {
	past := rules().Now.Add(-time.Hour)
	offline, expired := device(3, "tag:weight-1", "tag:region-east"), device(4, "tag:weight-1")
	offline.Online, expired.Expires = false, &past
	all, _ := Build([]Device{device(1, "tag:weight-1"), device(2, "tag:weight-0", "tag:region-west"), offline, expired}, rules())
	if got := all.Present(); !maps.Equal(got, map[string]bool{"1": true, "2": true}) {
		t.Errorf("present: %v", got)
	}
	want := map[netip.Addr]string{netip.MustParseAddr("100.64.0.2"): "west", netip.MustParseAddr("100.64.0.3"): "east"}
	if got := all.Regions(); !maps.Equal(got, want) {
		t.Errorf("regions: %v, want %v", got, want)
	}
	// The first that is named counts.
	two := device(1)
	two.Grants = grants(`{"service":"a","region":"west"}`, `{"service":"b","region":"east"}`)
	all, _ = Build([]Device{two}, rules())
	if got := all.Regions(); !maps.Equal(got, map[netip.Addr]string{netip.MustParseAddr("100.64.0.1"): "west"}) {
		t.Errorf("regions: %v", got)
	}
}

// Whoever relies on the same devices gets the same of all that is told of them.
func TestSameDevices_equal_haveEqualDetails(t *testing.T) {
	places := rapid.SampledFrom([]string{"", "west", "east"})
	endpoint := rapid.Custom(func(t *rapid.T) Endpoint {
		return Endpoint{
			Device: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "device"), Region: places.Draw(t, "region"), Weight: rapid.Uint32Range(0, 2).Draw(t, "weight"),
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 0, rapid.Byte().Draw(t, "address") % 3}), 80),
			State:   rapid.SampledFrom([]State{Serving, Drained, Offline, Expired}).Draw(t, "state"),
		}
	})
	both := 0
	rapid.Check(t, func(t *rapid.T) {
		endpoints := rapid.SliceOfN(endpoint, 1, 3).Draw(t, "endpoints")
		a := Topology{Services: []Service{NewService("a", endpoints)}}
		other := slices.Clone(endpoints)
		other[0] = rapid.OneOf(endpoint, rapid.Just(func() Endpoint { e := other[0]; e.Weight++; return e }())).Draw(t, "other")
		b := Topology{Services: []Service{NewService("a", other)}}
		if !a.SameDevices(b) {
			if a.SameDevices(a) && slices.Equal(endpoints, other) {
				t.Fatal("the same topology has other devices")
			}
			return
		}
		both++
		if !maps.Equal(a.Present(), b.Present()) || !maps.Equal(a.Addresses(), b.Addresses()) || !maps.Equal(a.Regions(), b.Regions()) {
			t.Fatalf("not the same devices: %+v and %+v", a, b)
		}
	})
	if both == 0 {
		t.Error("no two topologies had the same devices")
	}
	alone := Topology{Services: []Service{NewService("a", nil)}}
	if !alone.SameDevices(alone) || alone.SameDevices(Topology{}) {
		t.Error("a service without devices counts, too")
	}
}
