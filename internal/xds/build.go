package xds

import (
	"fmt"
	"maps"
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/tailxds/tailxds/internal/topology"
)

// resources are everything that is served, with what it was built from, so
// that a change costs only what it touches.
type resources struct {
	services map[string]serviceInput
	byType   map[string]resourceSet // by type URL, then by resource name
}

// serviceInput is all that the resources of one service depend on.
type serviceInput struct {
	service topology.Service
	policy  ServicePolicy
}

// build makes every resource of t and validates it. Resources of services that
// did not change since the last build are taken over as they are.
func build(t topology.Topology, p Policy, defaultService string, last *resources) (*resources, error) {
	next := &resources{services: make(map[string]serviceInput), byType: make(map[string]resourceSet)}
	rows := resourceTypes()
	for _, row := range rows {
		next.byType[row.URL] = make(resourceSet)
	}
	for _, s := range t.Services {
		input := serviceInput{service: s, policy: p.For(s.Name)}
		next.services[s.Name] = input
		same := last != nil && input.equal(last.services[s.Name])
		for _, row := range rows {
			if row.perService == nil {
				continue
			}
			if same {
				next.byType[row.URL][s.Name] = last.byType[row.URL][s.Name]
				continue
			}
			r, err := row.perService(s, input.policy)
			if err := next.add(row, r, err); err != nil {
				return nil, fmt.Errorf("service %s: %w", s.Name, err)
			}
		}
	}
	for _, row := range rows {
		if row.whole == nil {
			continue
		}
		r, err := row.whole(t, p, defaultService)
		if err := next.add(row, r, err); err != nil {
			return nil, err
		}
		next.keepEqual(last, row.URL)
	}
	return next, nil
}

// equal tells whether the same resources come of both.
func (i serviceInput) equal(o serviceInput) bool {
	return i.service.SameServing(o.service) && reflect.DeepEqual(i.policy, o.policy)
}

// add validates r by Envoy's own rules and stores it.
func (n *resources) add(row resourceType, r proto.Message, err error) error {
	if err != nil {
		return fmt.Errorf("build %s: %w", row.Name, err)
	}
	if v, ok := r.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			return fmt.Errorf("validate %s: %w", row.Name, err)
		}
	}
	n.byType[row.URL][cache.GetResourceName(r)] = r
	return nil
}

// keepEqual takes over the resources of the last build that did not change, so
// that they count as the same below.
func (n *resources) keepEqual(last *resources, url string) {
	if last == nil {
		return
	}
	for name, r := range n.byType[url] {
		if old, ok := last.byType[url][name]; ok && proto.Equal(old, r) {
			n.byType[url][name] = old
		}
	}
}

// changedSince are the resources that last lacks or has otherwise.
func (n *resources) changedSince(last *resources, url string) resourceSet {
	changed := make(resourceSet)
	for name, r := range n.byType[url] {
		if last == nil || last.byType[url][name] != r {
			changed[name] = r
		}
	}
	return changed
}

// removedSince are the names of the resources that only last has.
func (n *resources) removedSince(last *resources, url string) []string {
	if last == nil {
		return nil
	}
	var removed []string
	for name := range last.byType[url] {
		if _, ok := n.byType[url][name]; !ok {
			removed = append(removed, name)
		}
	}
	return removed
}

// Resource is one rendered resource with the name of its type.
type Resource struct {
	Type    string // "clusters", "endpoints", "listeners" or "routes"
	Name    string
	Message proto.Message
}

// Render is what a [Server] would publish, by type and name.
func Render(t topology.Topology, p Policy, defaultService string) ([]Resource, error) {
	built, err := build(t, p, defaultService, nil)
	if err != nil {
		return nil, err
	}
	var all []Resource
	for _, row := range resourceTypes() {
		set := built.byType[row.URL]
		for _, name := range slices.Sorted(maps.Keys(set)) {
			all = append(all, Resource{Type: row.Name, Name: name, Message: set[name]})
		}
	}
	return all, nil
}

// TypeNames are the short names of all types served, sorted.
func TypeNames() []string {
	var names []string
	for _, row := range resourceTypes() {
		names = append(names, row.Name)
	}
	slices.Sort(names)
	return names
}

// typeName is the short name of a type URL, or the URL itself.
func typeName(url string) string {
	for _, row := range resourceTypes() {
		if row.URL == url {
			return row.Name
		}
	}
	return url
}

// resourceSet are resources of one type, by name.
type resourceSet = map[string]types.Resource
