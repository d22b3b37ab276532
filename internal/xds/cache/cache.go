// Package cache holds what is served: resources by type, and by region where clients
// get what is made for theirs. It answers the requests of streams of
// go-control-plane's servers, and publishes changes in the order that keeps references
// between resources intact. It knows nothing of what resources are made of.
package cache

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tailxds/tailxds/internal/xds/resource"
)

// Config is what a [Cache] needs.
type Config struct {
	// Types are the types of resources that are served.
	Types []resource.Type
	// RegionsInUse counts the clients in each region; it must not call the cache.
	RegionsInUse func() map[string]int
	// Log gets warnings of regions for which there is no room.
	Log *slog.Logger
}

// Cache serves the last [resource.Snapshot] that was published.
type Cache struct {
	config Config
	types  []*servedType // in the order of publication
	byURL  map[string]*servedType
	prefix string // of state-of-the-world versions

	// mu is held while resources are published. No request waits for it, but for the
	// first from a new region.
	mu        sync.Mutex
	published resource.Snapshot // nil before the first
	made      int               // caches of regions, to give each its own versions
}

// servedType is what is served of one type.
type servedType struct {
	resource.Type
	all     *typeCache
	named   *typeCache // nil unless [resource.Type.ByName]
	regions *regions   // nil unless [resource.Type.ByRegion]
}

// New makes a cache without resources.
func New(config Config) *Cache {
	// State-of-the-world versions are counters. The prefix keeps those of
	// another process apart; delta versions are content hashes and need none.
	c := &Cache{config: config, byURL: make(map[string]*servedType), prefix: fmt.Sprintf("%x-", time.Now().UnixNano())}
	for _, t := range config.Types {
		served := &servedType{Type: t, all: newTypeCache(t, c.prefix, nil)}
		if t.ByName {
			served.named = newTypeCache(t, c.prefix, nil)
		}
		if t.ByRegion {
			served.regions = newRegions()
		}
		c.types = append(c.types, served)
		c.byURL[t.URL] = served
	}
	return c
}

// Publish sends clients what they follow and what has changed, and returns how many
// resources that are. It calls begin before, if there is any. Everything is encoded
// before anything is sent: on an error of that, the last snapshot stays.
func (c *Cache) Publish(next resource.Snapshot, begin func()) (changed int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropIdleRegions(time.Now())
	changes, err := c.changes(next)
	if err != nil {
		return 0, fmt.Errorf("nothing published, the last good resources stay: %w", err)
	}
	for _, one := range changes {
		changed += len(one.changed) + len(one.removed)
	}
	if changed > 0 {
		begin()
	}
	if err := apply(changes); err != nil {
		return 0, err
	}
	c.published = next
	return changed, nil
}

// changes returns one for each cache, in the order in which additions reach a client.
func (c *Cache) changes(next resource.Snapshot) ([]change, error) {
	var all []change
	add := func(to *typeCache, set resource.Set) error {
		diff, err := to.compare(set)
		all = append(all, diff)
		return err
	}
	for _, t := range c.types {
		if err := add(t.all, next.All(t.URL)); err != nil {
			return nil, err
		}
		if t.named != nil {
			if err := add(t.named, next.Named(t.URL)); err != nil {
				return nil, err
			}
		}
		for region, to := range t.regions.all() {
			set, err := next.InRegion(t.URL, region)
			if err != nil {
				return nil, err
			}
			if err := add(to, set); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// apply puts changes into their caches: first what is new or changed, then removals in
// reverse, so that no Envoy is sent a route to a cluster that it does not have.
func apply(changes []change) error {
	for _, one := range changes {
		if len(one.changed) > 0 {
			if err := one.to.update(one.changed, nil); err != nil {
				return fmt.Errorf("publish %s: %w", one.to.Name, err)
			}
		}
	}
	for _, one := range slices.Backward(changes) {
		if len(one.removed) > 0 {
			if err := one.to.update(nil, one.removed); err != nil {
				return fmt.Errorf("withdraw %s: %w", one.to.Name, err)
			}
		}
	}
	return nil
}

// Regions returns the regions that clients are served in, for which resources should
// be built before they are published.
func (c *Cache) Regions() []string {
	var all []string
	for _, t := range c.types {
		for region := range t.regions.all() {
			if !slices.Contains(all, region) {
				all = append(all, region)
			}
		}
	}
	return all
}

// CrowdedRegions returns the regions whose clients get what clients of no region get,
// since there are clients in more regions than the cache distinguishes.
func (c *Cache) CrowdedRegions() []string {
	var all []string
	for _, t := range c.types {
		all = append(all, t.regions.crowdedOut()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
