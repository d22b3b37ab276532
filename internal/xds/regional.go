package xds

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
func (n *resources) assignments(region string, last *resources) (resourceSet, error) {
	if region == "" {
		return n.ByType[resource.EndpointType], nil
	}
	if set, ok := n.views[region]; ok {
		return set, nil
	}
	set := maps.Clone(n.ByType[resource.EndpointType])
	for _, name := range slices.Sorted(maps.Keys(n.services)) {
		in := n.services[name]
		if in.policy.Locality != balance.Local {
			continue
		}
		if last.unchanged(region, in.names(), set) {
			for _, assignment := range in.names() {
				set[assignment] = last.views[region][assignment]
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
	n.views[region] = set
	return set, nil
}

// view is what a region's callers got; nil if none of them asked.
func (n *resources) view(region string) resourceSet {
	if n == nil {
		return nil
	}
	return n.views[region]
}

// unchanged tells whether the assignments of these names are in a region's view,
// made from the same as those of the set.
func (n *resources) unchanged(region string, names []string, set resourceSet) bool {
	return n != nil && !slices.ContainsFunc(names, func(name string) bool {
		return n.views[region][name] == nil || n.ByType[resource.EndpointType][name] != set[name]
	})
}
