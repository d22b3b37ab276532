package envoy

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/balance"
)

// assignments are all assignments as callers of a region get them. Those that
// look the same from everywhere are the same messages in every view.
func (n *Resources) assignments(region string, last *Resources) (resourceSet, error) {
	if region == "" {
		return n.all[resource.EndpointType], nil
	}
	if set, ok := n.regions[region]; ok {
		return set, nil
	}
	set := maps.Clone(n.all[resource.EndpointType])
	for _, name := range slices.Sorted(maps.Keys(n.services)) {
		in := n.services[name]
		if in.policy.Locality != balance.Local {
			continue
		}
		if last.unchanged(region, in.names(), set) {
			for _, assignment := range in.names() {
				set[assignment] = last.regions[region][assignment]
			}
			continue
		}
		made, err := endpointsFor(in, region)
		if err != nil {
			return nil, fmt.Errorf("service %s as seen from region %s: %w", name, region, err)
		}
		for _, r := range made {
			name := cache.GetResourceName(r)
			set[name] = r
			if old, ok := last.view(region)[name]; ok && proto.Equal(old, r) {
				set[name] = old
			}
		}
	}
	return set, nil
}

// view is what a region's callers got; nil if none of them asked.
func (n *Resources) view(region string) resourceSet {
	if n == nil {
		return nil
	}
	return n.regions[region]
}

// unchanged tells whether the assignments of these names are in a region's view,
// made from the same as those of the set.
func (n *Resources) unchanged(region string, names []string, set resourceSet) bool {
	return n != nil && !slices.ContainsFunc(names, func(name string) bool {
		return n.regions[region][name] == nil || n.all[resource.EndpointType][name] != set[name]
	})
}
