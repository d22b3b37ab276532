package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"

	"github.com/tailxds/tailxds/internal/xds/resource"
)

// snapshot is an assignment "server" and a cluster "server", which clients of the region
// "west" see as another.
type snapshot uint32

func (s snapshot) All(string) resource.Set {
	return resource.Set{"server": content("server", uint32(s))}
}

func (s snapshot) Named(url string) resource.Set { return s.All(url) }

func (s snapshot) InRegion(url, region string) (resource.Set, error) {
	if region == "west" {
		return resource.Set{"server": content("server", uint32(s)+1_000)}, nil
	}
	return s.All(url), nil
}

// inUse are the clients of each region.
type inUse map[string]int

func newCache(t *testing.T, regions inUse) *Cache {
	t.Helper()
	c := New(Config{
		Types:        []resource.Type{{Name: "endpoints", URL: Eds, ByRegion: true}, {Name: "clusters", URL: Cds, ByName: true}},
		RegionsInUse: func() map[string]int { return regions }, Log: slog.New(slog.DiscardHandler),
	})
	publish(t, c, 1)
	return c
}

func publish(t *testing.T, c *Cache, s snapshot) {
	t.Helper()
	if _, err := c.Publish(s, func() {}); err != nil {
		t.Fatal(err)
	}
}

// regionClient is a stream of the delta protocol that follows one assignment.
type regionClient struct {
	t      *testing.T
	stream *Stream
	region string
	sub    stream.Subscription
	to     chan cache.DeltaResponse
	cancel func()
}

func newRegionClient(t *testing.T, c *Cache, region string) *regionClient {
	t.Helper()
	client := &regionClient{t: t, stream: c.NewStream(), region: region, sub: stream.NewDeltaSubscription([]string{"server"}, nil, nil, true), to: make(chan cache.DeltaResponse, 2)}
	client.request(&cache.DeltaRequest{ResourceNamesSubscribe: []string{"server"}})
	return client
}

func (c *regionClient) request(r *cache.DeltaRequest) {
	c.t.Helper()
	if c.cancel != nil {
		c.cancel()
	}
	r.TypeUrl, r.Node = Eds, &core.Node{Locality: &core.Locality{Region: c.region}}
	var err error
	if c.cancel, err = c.stream.CreateDeltaWatch(r, c.sub, c.to); err != nil {
		c.t.Fatal(err)
	}
}

// next returns what the client is sent, as its number in a [snapshot], and acknowledges
// it; 0 if that is nothing.
func (c *regionClient) next() snapshot {
	c.t.Helper()
	select {
	case r := <-c.to:
		out, err := r.GetDeltaDiscoveryResponse()
		if err != nil || len(out.GetResources()) != 1 {
			c.t.Fatalf("sent %v, %v", out, err)
		}
		var assignment endpoint.ClusterLoadAssignment
		if err := out.GetResources()[0].GetResource().UnmarshalTo(&assignment); err != nil {
			c.t.Fatal(err)
		}
		c.sub.SetReturnedResources(r.GetReturnedResources())
		c.request(&cache.DeltaRequest{ResponseNonce: "1"})
		return snapshot(assignment.GetPolicy().GetOverprovisioningFactor().GetValue() - 1)
	default:
		return 0
	}
}

// regionCaches are those of assignments.
func (c *Cache) regionCaches() map[string]*typeCache { return c.byURL[Eds].regions.all() }

// The caches of regions are bounded in number. A region without one is named, and gets
// one as soon as there is room.
func TestRegions_many_bounded(t *testing.T) {
	regions := make(inUse)
	c := newCache(t, regions)
	for i := range maxRegions {
		region := fmt.Sprint("region-", i)
		regions[region] = 1
		newRegionClient(t, c, region).cancel = nil
	}
	if got := c.CrowdedRegions(); len(got) > 0 || len(c.Regions()) != maxRegions {
		t.Fatalf("%d regions, crowded out are %v", len(c.Regions()), got)
	}
	regions["west"] = 1
	crowded := newRegionClient(t, c, "west")
	if got := crowded.next(); got != 1 {
		t.Errorf("without a cache of its own it gets %d, want what clients of no region get", got)
	}
	if got := c.CrowdedRegions(); !slices.Equal(got, []string{"west"}) {
		t.Errorf("crowded out are %v, want west", got)
	}
	// One of the others leaves, and this one takes its place.
	delete(regions, "region-7")
	publish(t, c, 2)
	if got := crowded.next(); got != 2 {
		t.Errorf("the publication is %d", got)
	}
	if got := crowded.next(); got != 1_002 { // its ACK finds the new cache
		t.Errorf("with a cache of its own it gets %d", got)
	}
	if got := c.CrowdedRegions(); len(got) > 0 {
		t.Errorf("crowded out are still %v", got)
	}
}

// The cache of a region is dropped once no client of it was there for long. A request
// that comes in the same moment gets another.
func TestRegions_unused_dropped(t *testing.T) {
	c := newCache(t, nil)
	served := c.byURL[Eds]
	old, err := c.inRegion(served, "west")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, step := range []struct {
		after time.Duration
		inUse inUse
		stays bool
	}{
		{0, nil, true},
		{regionIdle - 1, nil, true},
		{regionIdle, inUse{"west": 1}, true},
		{2 * regionIdle, nil, true},
		{3*regionIdle - 1, nil, true},
		{3 * regionIdle, nil, false},
	} {
		served.regions.drop(step.inUse, now.Add(step.after))
		if _, stays := c.regionCaches()["west"]; stays != step.stays {
			t.Fatalf("after %v it is there: %t, want %t", step.after, stays, step.stays)
		}
	}
	sub := stream.NewDeltaSubscription([]string{"server"}, nil, nil, true)
	if _, err := old.watchDelta(&cache.DeltaRequest{TypeUrl: Eds}, sub, &position{}, make(chan cache.DeltaResponse, 1)); !errors.Is(err, errRetired) {
		t.Errorf("a watch in a cache that was dropped: %v", err)
	}
	again, err := c.inRegion(served, "west")
	if err != nil || again == old || again.prefix == old.prefix {
		t.Errorf("the next cache is the same, or takes its versions: %v", err)
	}
}

// The cache that a client waits in is never dropped.
func TestRegions_clientWaits_stays(t *testing.T) {
	c := newCache(t, nil) // as if it were not counted
	waits := newRegionClient(t, c, "west")
	if got := waits.next(); got != 1_001 {
		t.Fatalf("the client gets %d", got)
	}
	now := time.Now()
	c.dropIdleRegions(now)
	c.dropIdleRegions(now.Add(2 * regionIdle))
	publish(t, c, 9)
	if got := waits.next(); got != 1_009 {
		t.Errorf("the client gets %d", got)
	}
}

// Requests are answered while resources are encoded.
func TestCache_requestsDuringPublication_answered(t *testing.T) {
	c := newCache(t, nil)
	newRegionClient(t, c, "west").next()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, region := range []string{"", "west"} {
		if newRegionClient(t, c, region).next() == 0 {
			t.Errorf("a client of region %q gets nothing", region)
		}
	}
}

// Messages that were built anew and have the same content are not sent again.
func TestCache_sameContentBuiltAnew_notSent(t *testing.T) {
	c := newCache(t, nil)
	client := newRegionClient(t, c, "west")
	client.next()
	begun := false
	if changed, err := c.Publish(snapshot(1), func() { begun = true }); changed != 0 || begun || err != nil {
		t.Errorf("%d have changed, begun %t, %v", changed, begun, err)
	}
	if got := client.next(); got != 0 {
		t.Errorf("the client is sent %d", got)
	}
}
