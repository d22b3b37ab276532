package xds

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
)

// resources are everything that is served, with what it was built from, so
// that a change costs only what it touches.
type resources struct {
	frame    frame
	services map[string]serviceInput
	ByType   map[string]resourceSet // by type URL, then by resource name
	named    map[string]resourceSet // the same, for those who ask by name: with more
	// views are the assignments as each region's callers get them, for those
	// regions that were asked for.
	views map[string]resourceSet
}

// serviceInput is all that the resources of one service depend on.
type serviceInput struct {
	service     topology.Service
	policy      policy.Service
	assignments []string // see [assignmentNames]
}

// build makes every resource of t, and of the services that the policy names
// and nobody serves, and validates it. Resources of services that did not
// change since the last build are taken over as they are.
func build(t topology.Topology, p policy.Policy, defaultService string, last *resources) (*resources, error) {
	next := &resources{services: make(map[string]serviceInput), ByType: make(map[string]resourceSet), named: make(map[string]resourceSet), views: make(map[string]resourceSet)}
	if last == nil {
		last = &resources{}
	}
	rows := resourceTypes()
	for _, row := range rows {
		next.ByType[row.URL] = make(resourceSet)
	}
	t = withPolicyServices(t, p)
	next.frame = frame{services: names(t), policy: p, defaultService: defaultService}
	samePolicy := last.services != nil && reflect.DeepEqual(p, last.frame.policy)
	for _, s := range t.Services {
		if err := next.addService(s, p.For(s.Name), samePolicy, last); err != nil {
			return nil, fmt.Errorf("service %s: %w", s.Name, err)
		}
	}
	empty := emptyAssignments(next.frame)
	keepEqual(last.ByType[resource.EndpointType], empty)
	maps.Copy(next.ByType[resource.EndpointType], empty)
	sameFrame := samePolicy && defaultService == last.frame.defaultService && slices.Equal(next.frame.services, last.frame.services)
	for _, row := range rows {
		if err := next.addWhole(row, sameFrame, last); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// addWhole makes what spans services, or takes it from last.
func (n *resources) addWhole(row resourceType, sameFrame bool, last *resources) error {
	set, before := n.ByType[row.URL], last.ByType[row.URL]
	switch {
	case row.whole == nil:
	case sameFrame:
		n.ByType[row.URL] = before
	default:
		made, err := row.whole(n.frame)
		if err := add(row, made, err, set); err != nil {
			return err
		}
		keepEqual(before, set)
	}
	if row.named == nil {
		return nil
	}
	if sameFrame { // then what all get is the same, too
		n.named[row.URL] = last.named[row.URL]
		return nil
	}
	made, err := row.named(n.frame)
	set = maps.Clone(n.ByType[row.URL])
	if err := add(row, made, err, set); err != nil {
		return err
	}
	keepEqual(last.named[row.URL], set)
	n.named[row.URL] = set
	return nil
}

// withPolicyServices adds the services that only the policy knows, without
// endpoints: their names answer 503 and never reach the default service.
func withPolicyServices(t topology.Topology, p policy.Policy) topology.Topology {
	known := make(map[string]bool, len(t.Services))
	for _, s := range t.Services {
		known[s.Name] = true
	}
	all := slices.Clone(t.Services)
	for name := range p.Services {
		if !known[name] {
			all = append(all, topology.Service{Name: name})
		}
	}
	slices.SortFunc(all, func(a, b topology.Service) int { return strings.Compare(a.Name, b.Name) })
	t.Services = all
	return t
}

// addService makes what belongs to one service alone, or takes it from last.
func (n *resources) addService(s topology.Service, p policy.Service, samePolicy bool, last *resources) error {
	in := serviceInput{service: s, policy: p}
	before := last.services[s.Name]
	samePolicy = before.assignments != nil && (samePolicy || reflect.DeepEqual(p, before.policy))
	if samePolicy {
		in.assignments = before.assignments
	} else {
		var err error
		if in.assignments, err = assignmentNames(s.Name, p, before.assignments); err != nil {
			return err
		}
	}
	same := samePolicy && s.SameServing(before.service)
	n.services[s.Name] = in
	for _, row := range resourceTypes() {
		if row.perService == nil {
			continue
		}
		was, set := last.ByType[row.URL], n.ByType[row.URL]
		if same || (samePolicy && !row.ofServing) {
			row.takeOver(in, was, set)
			continue
		}
		made, err := row.perService(in)
		own := make(resourceSet)
		if err := add(row, made, err, own); err != nil {
			return err
		}
		if !samePolicy { // else it is other than before
			keepEqual(was, own)
		}
		maps.Copy(set, own)
	}
	return nil
}

// takeOver copies what a service had of this type.
func (row resourceType) takeOver(in serviceInput, from, to resourceSet) {
	for _, name := range in.names() {
		if r, ok := from[name]; ok {
			to[name] = r
		}
	}
}

// add validates what was made by Envoy's own rules and puts it into a set.
func add(row resourceType, made []proto.Message, err error, into resourceSet) error {
	if err != nil {
		return fmt.Errorf("build %s: %w", row.Name, err)
	}
	for _, r := range made {
		if v, ok := r.(interface{ ValidateAll() error }); ok {
			if err := v.ValidateAll(); err != nil {
				return fmt.Errorf("validate %s: %w", row.Name, err)
			}
		}
		into[cache.GetResourceName(r)] = r
	}
	return nil
}

// keepEqual takes over the resources of the last build that did not change, so
// that they count as the same below.
func keepEqual(last, next resourceSet) {
	for name, r := range next {
		if old, ok := last[name]; ok && proto.Equal(old, r) {
			next[name] = old
		}
	}
}

// changedSince are the resources of next that last lacks or has otherwise.
func changedSince(last, next resourceSet) resourceSet {
	changed := make(resourceSet)
	for name, r := range next {
		if last[name] != r {
			changed[name] = r
		}
	}
	return changed
}

// removedSince are the names of the resources that only last has.
func removedSince(last, next resourceSet) []string {
	var removed []string
	for name := range last {
		if _, ok := next[name]; !ok {
			removed = append(removed, name)
		}
	}
	return removed
}

// Resource is one rendered resource with the name of its type.
type Resource struct {
	Type    string // one of [TypeNames]
	Name    string
	Message proto.Message
}

// Render is what a [Server] would publish, by type and name. Assignments, which
// it publishes under several names, are rendered under their service's.
func Render(t topology.Topology, p policy.Policy, defaultService string) ([]Resource, error) {
	checks := Checks{}.next(len(t.Present()), 0)
	built, err := build(t, p.CheckedEvery(checks.Every), defaultService, nil)
	if err != nil {
		return nil, err
	}
	var all []Resource
	for _, row := range resourceTypes() {
		set := built.ByType[row.URL]
		for _, name := range slices.Sorted(maps.Keys(set)) {
			if row.URL == resource.EndpointType && strings.Contains(name, "/") {
				continue
			}
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

// kind is a type's place in [resourceTypes].
type kind int

const (
	endpoints kind = iota
	clusters
	extensions
	routes
	listeners
	unserved // all others
	kinds    // how many there are
)

// kindOf is the kind of a type URL.
func kindOf(url string) kind {
	switch url {
	case resource.EndpointType:
		return endpoints
	case resource.ClusterType:
		return clusters
	case resource.RouteType:
		return routes
	case resource.ExtensionConfigType:
		return extensions
	case resource.ListenerType:
		return listeners
	default:
		return unserved
	}
}

// unknownType is the short name of all types that are not served. It is a metric's
// label, so what a peer makes up gets no name of its own.
const unknownType = "unknown"

// name is its short name.
func (k kind) name() string {
	if k == unserved {
		return unknownType
	}
	return resourceTypes()[k].Name
}

// typeName is the short name of a type URL.
func typeName(url string) string { return kindOf(url).name() }

// resourceSet are resources of one type, by name.
type resourceSet = map[string]types.Resource
