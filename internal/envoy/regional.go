package envoy

import (
	"fmt"
	"maps"
	"slices"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/balance"
)

// assignments returns all assignments as callers of a region get them. Those that
// look the same from everywhere are the same messages for every region.
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
		if last.sameInput(region, in.names(), set) {
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
			set[cache.GetResourceName(r)] = r
		}
	}
	return set, nil
}

// sameInput tells whether the assignments of these names are there for a region, made
// from the same as those of the set.
func (n *Resources) sameInput(region string, names []string, set resourceSet) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		return n.regions[region][name] == nil || n.all[resource.EndpointType][name] != set[name]
	})
}
