package xds

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/tailxds/tailxds/internal/xds/resource"
)

const (
	// mostViews is how many regions have a view of their own. Callers of further
	// ones see what callers of no region see.
	mostViews = 100
	// viewIdle is how long a view is kept after the last Envoy of its region left:
	// it may come back, and another view would be sent as a whole.
	viewIdle = 10 * time.Minute
)

// views are the collections of assignments, one a region that callers are in.
type views struct {
	resource.Type
	mu   sync.RWMutex
	of   map[string]*regionView
	made int // tells each view from an earlier one of its region
	// without are regions that asked for a view of their own when there was no room.
	without map[string]bool
}

type regionView struct {
	*collection
	idleSince time.Time // zero while an Envoy of its region is connected
}

func newViews(unknown *collection) *views {
	return &views{Type: unknown.Type, of: map[string]*regionView{"": {collection: unknown}}, without: make(map[string]bool)}
}

// all are the collections by region; that of callers of no region is "".
func (v *views) all() map[string]*collection {
	v.mu.RLock()
	defer v.mu.RUnlock()
	all := make(map[string]*collection, len(v.of))
	for region, view := range v.of {
		all[region] = view.collection
	}
	return all
}

// regions are those that have a view of their own.
func (v *views) regions() []string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	regions := make([]string, 0, len(v.of))
	for region := range v.of {
		if region != "" {
			regions = append(regions, region)
		}
	}
	return regions
}

// find returns a region's collection, or that of callers of no region where there
// is no room for another; nil if it is to be made.
func (v *views) find(region string) *collection {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if own, ok := v.of[region]; ok {
		return own.collection
	}
	if v.without[region] {
		return v.of[""].collection
	}
	return nil
}

// reserve makes room for the view of a region, if need be by dropping one that no
// Envoy uses, and returns the number of the view. Without room the region is noted.
func (v *views) reserve(region string, inUse map[string]int) (number int, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for other := range v.of {
		if len(v.of) < mostViews {
			break
		}
		v.dropUnused(other, inUse)
	}
	if len(v.of) >= mostViews {
		v.without[region] = true
		return 0, false
	}
	v.made++
	return v.made, true
}

func (v *views) add(region string, c *collection) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.of[region] = &regionView{collection: c}
}

// drop forgets the views whose regions have had no Envoy for long, or have none now
// where others wait for room; and which those are, once there is room or their Envoys
// have left.
func (v *views) drop(inUse map[string]int, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for region, view := range v.of {
		switch {
		case inUse[region] > 0:
			view.idleSince = time.Time{}
		case view.idleSince.IsZero() && len(v.without) == 0:
			view.idleSince = now
		case now.Sub(view.idleSince) >= viewIdle, len(v.without) > 0:
			v.dropUnused(region, inUse)
		}
	}
	maps.DeleteFunc(v.without, func(region string, _ bool) bool { return len(v.of) < mostViews || inUse[region] == 0 })
}

// dropUnused drops a view that no Envoy uses. A request that is on its way to it
// finds it retired, and asks for another.
func (v *views) dropUnused(region string, inUse map[string]int) {
	if region != "" && inUse[region] == 0 && v.of[region].retire() {
		delete(v.of, region)
	}
}

// crowded are the regions that have no view of their own since there are too many.
func (v *views) crowded() []string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.Sorted(maps.Keys(v.without))
}

// view is the collection of the assignments that callers of a region get.
func (s *Server) view(region string) (*collection, error) {
	if c := s.views.find(region); c != nil {
		return c, nil
	}
	// It begins with what is published, and follows from then on.
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.views.find(region); c != nil {
		return c, nil // made meanwhile
	}
	number, ok := s.views.reserve(region, s.streams.byRegion())
	if !ok {
		s.log.Warn("too many regions: its Envoys balance as if they were in none", "region", region, "regions", mostViews-1)
		return s.views.find(""), nil
	}
	var set resource.Set
	if s.published != nil {
		var err error
		if set, err = s.published.InRegion(s.views.URL, region); err != nil {
			return nil, err
		}
	}
	c := newCollection(s.views.Type, fmt.Sprintf("view %d", number), fmt.Sprintf("%s%d-", s.prefix, number), set)
	s.views.add(region, c)
	return c, nil
}

// RegionsWithoutView are the regions whose Envoys get the assignments of callers of
// no region, since Envoys are in more regions than the control plane distinguishes.
func (s *Server) RegionsWithoutView() []string { return s.views.crowded() }

// seen hands requests for assignments to the view of the caller's region, which
// [streams] has written into the request's node.
type seen struct{ *Server }

// CreateWatch implements [cache.Cache].
func (s seen) CreateWatch(r *cache.Request, sub cache.Subscription, to chan cache.Response) (cancel func(), err error) {
	err = s.inView(r.GetNode().GetLocality().GetRegion(), func(c *collection) (err error) {
		cancel, err = c.CreateWatch(r, sub, to)
		return err
	})
	return cancel, err
}

// CreateDeltaWatch implements [cache.Cache].
func (s seen) CreateDeltaWatch(r *cache.DeltaRequest, sub cache.Subscription, to chan cache.DeltaResponse) (cancel func(), err error) {
	err = s.inView(r.GetNode().GetLocality().GetRegion(), func(c *collection) (err error) {
		cancel, err = c.CreateDeltaWatch(r, sub, to)
		return err
	})
	return cancel, err
}

// inView has a request watch a region's view, and a new one if that is dropped in
// the same moment.
func (s *Server) inView(region string, watch func(*collection) error) error {
	for {
		c, err := s.view(region)
		if err != nil {
			return err
		}
		if err := watch(c); !errors.Is(err, errRetired) {
			return err
		}
	}
}
