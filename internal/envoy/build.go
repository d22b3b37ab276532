package envoy

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/xds/resource"
)

// Input is what resources are built from.
type Input struct {
	Topology topology.Topology
	Policy   policy.Policy
	// DefaultService takes the requests that no other service claims.
	DefaultService string
	// Regions are those that connected clients are in. For others, resources are
	// built when they are asked for.
	Regions []string
	// Envoys is how many devices have a client connected, for [Checks].
	Envoys int
}

// Resources are everything that is served, with what it was built from, so
// that a change costs only what it touches. They implement [resource.Snapshot].
type Resources struct {
	shared       sharedInput
	services     map[string]serviceInput
	all          map[string]resourceSet // by type URL
	named        map[string]resourceSet // by type URL, for clients that ask by name: with more
	regions      map[string]resourceSet // the assignments of each of [Input.Regions]
	localCluster *endpoint.ClusterLoadAssignment
	checks       Checks
}

// All implements [resource.Snapshot].
func (n *Resources) All(url string) resource.Set { return n.all[url] }

// Named implements [resource.Snapshot].
func (n *Resources) Named(url string) resource.Set { return n.named[url] }

// InRegion implements [resource.Snapshot].
func (n *Resources) InRegion(url, region string) (resource.Set, error) {
	if url != resourcev3.EndpointType {
		return n.all[url], nil
	}
	return n.assignments(region, &Resources{})
}

// Checks returns the health checks of Envoys, where the policy leaves their
// interval open.
func (n *Resources) Checks() Checks { return n.checks }

// Build makes every resource of a topology, and of the services that the policy names
// and no device serves, and validates it by Envoy's rules. Resources whose input is that
// of the last build are the same messages, so that a change costs what it touches; last
// may be nil.
func Build(in Input, last *Resources) (*Resources, error) {
	if last == nil {
		local, err := buildLocalCluster(nil)
		if err != nil {
			return nil, err
		}
		last = &Resources{localCluster: local}
	}
	checks := last.checks.next(len(in.Topology.Present()), in.Envoys)
	next, err := buildServices(in.Topology, in.Policy.CheckedEvery(checks.Every), in.DefaultService, last)
	if err != nil {
		return nil, err
	}
	next.checks, next.localCluster = checks, last.localCluster
	next.all[resourcev3.EndpointType][LocalCluster] = next.localCluster
	for _, region := range in.Regions {
		set, err := next.assignments(region, last)
		if err != nil {
			return nil, err
		}
		next.regions[region] = set
	}
	return next, nil
}

// buildServices makes all but the local cluster and what is by region.
func buildServices(t topology.Topology, p policy.Policy, defaultService string, last *Resources) (*Resources, error) {
	next := &Resources{services: make(map[string]serviceInput), all: make(map[string]resourceSet), named: make(map[string]resourceSet), regions: make(map[string]resourceSet)}
	rows := resourceTypes()
	for _, row := range rows {
		next.all[row.URL] = make(resourceSet)
	}
	t = withPolicyServices(t, p)
	next.shared = sharedInput{services: serviceNames(t), policy: p, defaultService: defaultService}
	samePolicy := last.services != nil && reflect.DeepEqual(p, last.shared.policy)
	for _, s := range t.Services {
		if err := next.addService(s, p.For(s.Name), samePolicy, last); err != nil {
			return nil, fmt.Errorf("service %s: %w", s.Name, err)
		}
	}
	maps.Copy(next.all[resourcev3.EndpointType], emptyAssignments(next.shared))
	sameInput := samePolicy && defaultService == last.shared.defaultService && slices.Equal(next.shared.services, last.shared.services)
	for _, row := range rows {
		if err := next.addShared(row, sameInput, last); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// addShared makes what spans services, or takes it from last.
func (n *Resources) addShared(row resourceType, sameInput bool, last *Resources) error {
	set := n.all[row.URL]
	switch {
	case row.buildShared == nil:
	case sameInput:
		n.all[row.URL] = last.all[row.URL]
	default:
		made, err := row.buildShared(n.shared)
		if err := add(row, made, err, set); err != nil {
			return err
		}
	}
	if row.buildNamed == nil {
		return nil
	}
	if sameInput { // then what all get is the same, too
		n.named[row.URL] = last.named[row.URL]
		return nil
	}
	made, err := row.buildNamed(n.shared)
	set = maps.Clone(n.all[row.URL])
	if err := add(row, made, err, set); err != nil {
		return err
	}
	n.named[row.URL] = set
	return nil
}

// serviceNames returns the names of all services.
func serviceNames(t topology.Topology) []string {
	all := make([]string, len(t.Services))
	for i, s := range t.Services {
		all[i] = s.Name
	}
	return all
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
func (n *Resources) addService(s topology.Service, p policy.Service, samePolicy bool, last *Resources) error {
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
		if row.buildService == nil {
			continue
		}
		if same || (samePolicy && !row.dependsOnEndpoints) {
			row.takeOver(in, last.all[row.URL], n.all[row.URL])
			continue
		}
		made, err := row.buildService(in)
		if err := add(row, made, err, n.all[row.URL]); err != nil {
			return err
		}
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

// assignments returns all assignments as callers of a region get them. Those that
// look the same from everywhere are the same messages for every region.
func (n *Resources) assignments(region string, last *Resources) (resourceSet, error) {
	if region == "" {
		return n.all[resourcev3.EndpointType], nil
	}
	if set, ok := n.regions[region]; ok {
		return set, nil
	}
	set := maps.Clone(n.all[resourcev3.EndpointType])
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

// sameInput reports whether the assignments of these names are there for a region, made
// from the same as those of the set.
func (n *Resources) sameInput(region string, names []string, set resourceSet) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		return n.regions[region][name] == nil || n.all[resourcev3.EndpointType][name] != set[name]
	})
}

// WithLocalCluster returns the same resources but for the assignment of
// [LocalCluster], whose weights are each region's part of all requests, in any unit.
// Envoys whose services are balanced to the nearest follow it at once.
func (n *Resources) WithLocalCluster(weights map[string]uint32) (*Resources, error) {
	assignment, err := buildLocalCluster(weights)
	if err != nil {
		return nil, err
	}
	next := *n
	next.localCluster = assignment
	next.all, next.regions = maps.Clone(n.all), maps.Clone(n.regions)
	next.all[resourcev3.EndpointType] = withLocalCluster(n.all[resourcev3.EndpointType], assignment)
	for region, set := range n.regions {
		next.regions[region] = withLocalCluster(set, assignment)
	}
	return &next, nil
}

func withLocalCluster(set resourceSet, assignment *endpoint.ClusterLoadAssignment) resourceSet {
	set = maps.Clone(set)
	set[LocalCluster] = assignment
	return set
}

// Resource is one rendered resource with the name of its type.
type Resource struct {
	Type    string // one of [TypeNames]
	Name    string
	Message proto.Message
}

// Render returns what would be published, by type and name. Assignments, which are
// published under several names, are rendered under their service's.
func Render(t topology.Topology, p policy.Policy, defaultService string) ([]Resource, error) {
	built, err := Build(Input{Topology: t, Policy: p, DefaultService: defaultService}, nil)
	if err != nil {
		return nil, err
	}
	var all []Resource
	for _, row := range resourceTypes() {
		set := built.all[row.URL]
		for _, name := range slices.Sorted(maps.Keys(set)) {
			if row.URL == resourcev3.EndpointType && (set[name] == built.localCluster || strings.Contains(name, "/")) {
				continue
			}
			all = append(all, Resource{Type: row.Name, Name: name, Message: set[name]})
		}
	}
	return all, nil
}

// TypeNames returns the short names of all types served, sorted.
func TypeNames() []string {
	var names []string
	for _, row := range resourceTypes() {
		names = append(names, row.Name)
	}
	slices.Sort(names)
	return names
}

// CheckPolicy builds the resources of a policy that was parsed, and returns why Envoys
// or gRPC clients would not take them. The rules of [policy.Parse] should leave nothing
// that can't be built; where they do, the file is refused here, and not at the next
// change of a device.
func CheckPolicy(p policy.Policy) error {
	sample := topology.Topology{Services: []topology.Service{{Name: "server"}}}
	built, err := buildServices(sample, p, "server", &Resources{})
	if err != nil {
		return fmt.Errorf("no Envoy would take it: %w", err)
	}
	return fitsGRPC(built.named[resourcev3.ListenerType])
}

// maxGRPCListener bounds a listener of gRPC clients, in bytes. They close a stream
// that sends more than 4 MiB at once, and some get several listeners in one message.
const maxGRPCListener = 1 << 20

// fitsGRPC refuses rules that gRPC clients cannot be sent.
func fitsGRPC(listeners resourceSet) error {
	for _, name := range slices.Sorted(maps.Keys(listeners)) {
		if size := proto.Size(listeners[name]); size > maxGRPCListener {
			return fmt.Errorf("services.%s.routes: %d bytes for a gRPC client, which takes at most %d: write fewer rules, fewer services in a split, or shorter headers", name, size, maxGRPCListener)
		}
	}
	return nil
}
