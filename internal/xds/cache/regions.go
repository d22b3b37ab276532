package cache

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tailxds/tailxds/internal/xds/resource"
)

const (
	// maxRegions is how many regions have a cache of their own. Clients of further ones
	// get what clients of no region get.
	maxRegions = 99
	// regionIdle is how long the cache of a region is kept after its last client left:
	// it may come back, and what another cache has would be sent as a whole.
	regionIdle = 10 * time.Minute
)

// regions are the caches of one type, by region. A nil one has none.
type regions struct {
	mu sync.RWMutex
	of map[string]*regionCache
	// crowded are regions that asked for a cache of their own when there was no room.
	crowded map[string]bool
}

type regionCache struct {
	*typeCache
	idleSince time.Time // zero while a client of its region is connected
}

func newRegions() *regions {
	return &regions{of: make(map[string]*regionCache), crowded: make(map[string]bool)}
}

// all returns the caches by region.
func (r *regions) all() map[string]*typeCache {
	if r == nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make(map[string]*typeCache, len(r.of))
	for region, own := range r.of {
		all[region] = own.typeCache
	}
	return all
}

// find returns a region's cache, nil if it has none, and whether it is to be made.
func (r *regions) find(region string) (own *typeCache, missing bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if own, ok := r.of[region]; ok {
		return own.typeCache, false
	}
	return nil, !r.crowded[region]
}

// reserve makes room for the cache of a region, if need be by dropping one that no
// client uses. Without room it notes the region.
func (r *regions) reserve(region string, inUse map[string]int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for other := range r.of {
		if len(r.of) < maxRegions {
			break
		}
		r.dropUnused(other, inUse)
	}
	if len(r.of) >= maxRegions {
		r.crowded[region] = true
		return false
	}
	return true
}

func (r *regions) add(region string, c *typeCache) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[region] = &regionCache{typeCache: c}
}

// drop forgets the caches whose regions have had no client for long, or have none now
// where others wait for room; and which those are, once there is room or their clients
// have left.
func (r *regions) drop(inUse map[string]int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for region, own := range r.of {
		switch {
		case inUse[region] > 0:
			own.idleSince = time.Time{}
		case own.idleSince.IsZero() && len(r.crowded) == 0:
			own.idleSince = now
		case now.Sub(own.idleSince) >= regionIdle, len(r.crowded) > 0:
			r.dropUnused(region, inUse)
		}
	}
	maps.DeleteFunc(r.crowded, func(region string, _ bool) bool { return len(r.of) < maxRegions || inUse[region] == 0 })
}

// dropUnused drops a cache that no client uses. A request that is on its way to it
// finds it retired, and asks for another.
func (r *regions) dropUnused(region string, inUse map[string]int) {
	if inUse[region] == 0 && r.of[region].retire() {
		delete(r.of, region)
	}
}

// crowdedOut returns the regions that have no cache of their own since there are too
// many.
func (r *regions) crowdedOut() []string {
	if r == nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.crowded))
}

func (c *Cache) dropIdleRegions(now time.Time) {
	inUse := c.config.RegionsInUse()
	for _, t := range c.types {
		if t.regions != nil {
			t.regions.drop(inUse, now)
		}
	}
}

// inRegion returns the cache that clients of a region get a type from.
func (c *Cache) inRegion(t *servedType, region string) (*typeCache, error) {
	if region == "" {
		return t.all, nil
	}
	if own, missing := t.regions.find(region); !missing {
		return orAll(own, t), nil
	}
	// It begins with what is published, and follows from then on.
	c.mu.Lock()
	defer c.mu.Unlock()
	if own, missing := t.regions.find(region); !missing {
		return orAll(own, t), nil // made meanwhile
	}
	if !t.regions.reserve(region, c.config.RegionsInUse()) {
		c.config.Log.Warn("too many regions: its Envoys balance as if they were in none", "region", region, "regions", maxRegions)
		return t.all, nil
	}
	var set resource.Set
	if c.published != nil {
		var err error
		if set, err = c.published.InRegion(t.URL, region); err != nil {
			return nil, err
		}
	}
	c.made++
	own := newTypeCache(t.Type, fmt.Sprintf("%s%d-", c.prefix, c.made), set)
	t.regions.add(region, own)
	return own, nil
}

func orAll(own *typeCache, t *servedType) *typeCache {
	if own == nil {
		return t.all
	}
	return own
}
