package xds

import (
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// mostViews is how many regions have a view of their own. Callers of further
// ones see what callers of no region see.
const mostViews = 100

// view is the collection of the assignments that callers of a region get.
func (s *Server) view(region string) (*collection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.views[region]; ok {
		return c, nil
	}
	if len(s.views) >= mostViews {
		return s.views[""], nil
	}
	var set resourceSet
	if s.published != nil {
		var err error
		if set, err = s.published.assignments(region, nil); err != nil {
			return nil, err
		}
	}
	c := newCollection(resource.EndpointType, "from "+region, s.prefix, set)
	s.views[region] = c
	return c, nil
}

// seen hands requests for assignments to the view of the caller's region, which
// [streams] has written into the request's node.
type seen struct{ *Server }

// CreateWatch implements [cache.Cache].
func (s seen) CreateWatch(r *cache.Request, sub cache.Subscription, to chan cache.Response) (func(), error) {
	c, err := s.view(r.GetNode().GetLocality().GetRegion())
	if err != nil {
		return nil, err
	}
	return c.CreateWatch(r, sub, to)
}

// CreateDeltaWatch implements [cache.Cache].
func (s seen) CreateDeltaWatch(r *cache.DeltaRequest, sub cache.Subscription, to chan cache.DeltaResponse) (func(), error) {
	c, err := s.view(r.GetNode().GetLocality().GetRegion())
	if err != nil {
		return nil, err
	}
	return c.CreateDeltaWatch(r, sub, to)
}
