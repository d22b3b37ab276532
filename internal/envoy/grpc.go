package envoy

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	byload "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	roundrobin "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	wrrlocality "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"

	"github.com/tailxds/tailxds/internal/policy"
)

// gRPC clients without a proxy ask for a listener by the name that they dial,
// xds:///shop, and follow its routes, clusters and endpoints. Theirs are other
// resources than Envoys', for gRPC spreads requests otherwise. Envoys, which ask
// for all listeners and clusters, are not sent them: see [resource.Type].
// https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md

// grpcListeners are one a service, under its name.
func grpcListeners(in sharedInput) ([]proto.Message, error) {
	filter, err := anypb.New(&router.Router{})
	if err != nil {
		return nil, fmt.Errorf("pack router: %w", err)
	}
	var all []proto.Message
	for _, name := range in.services {
		if !in.policy.For(name).SpeaksGRPC() {
			continue
		}
		manager, err := anypb.New(&hcm.HttpConnectionManager{
			StatPrefix: name,
			RouteSpecifier: &hcm.HttpConnectionManager_RouteConfig{RouteConfig: &route.RouteConfiguration{
				Name:         name,
				VirtualHosts: []*route.VirtualHost{{Name: name, Domains: []string{"*"}, Routes: grpcRoutes(name, in.policy)}},
			}},
			HttpFilters: []*hcm.HttpFilter{{Name: "envoy.filters.http.router", ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: filter}}},
		})
		if err != nil {
			return nil, fmt.Errorf("pack the connection manager of %s: %w", name, err)
		}
		all = append(all, &listener.Listener{Name: name, ApiListener: &listener.ApiListener{ApiListener: manager}})
	}
	return all, nil
}

// grpcRoutes returns the routes of a service's rules, and then that to the service
// itself, as gRPC reads them: it knows no path_separated_prefix, and draws for each
// route anew.
//
// Every action is a route to a cluster, also where no gRPC server can answer: gRPC
// for Java and Node.js reject a listener that has a direct_response, and
// non_forwarding_action ends the process of Node.js. See [sharedInput.unreachable].
func grpcRoutes(service string, p policy.Policy) []*route.Route {
	var all []*route.Route
	add := func(rule policy.RouteRule, target string, fraction uint32) {
		for _, m := range grpcMatches(rule, fraction) {
			all = append(all, &route.Route{Match: m, Action: grpcAction(target, p.For(target))})
		}
	}
	for _, rule := range p.For(service).Routes {
		services, until := rule.Shares()
		left, last := uint64(policy.Million), uint32(0)
		for i, target := range services {
			part := uint64(until[i] - last)
			add(rule, target, uint32(part*policy.Million/left)) // of what those before it left
			left, last = left-part, until[i]
		}
	}
	add(policy.RouteRule{}, service, policy.Million)
	return all
}

// unreachable returns the services that rules send gRPC clients to and that these
// cannot reach: the service is unknown, or speaks no gRPC. Each has a cluster with
// an empty assignment, so that the calls which a rule sends there fail with
// UNAVAILABLE, and no others. The names are sorted.
func (in sharedInput) unreachable() []string {
	known, found := in.known(), make(map[string]bool)
	for _, name := range in.services {
		from := in.policy.For(name)
		if !from.SpeaksGRPC() {
			continue
		}
		for _, rule := range from.Routes {
			targets, _ := rule.Shares()
			for _, target := range targets {
				if !known[target] || !in.policy.For(target).SpeaksGRPC() {
					found[target] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// emptyAssignments are those of [sharedInput.unreachable].
func emptyAssignments(in sharedInput) resourceSet {
	all := make(resourceSet)
	for _, name := range in.unreachable() {
		all[forGRPC(name)] = &endpoint.ClusterLoadAssignment{ClusterName: forGRPC(name)}
	}
	return all
}

// grpcMatches are what a rule asks of a request, the path itself and what is
// below it by one route each.
func grpcMatches(r policy.RouteRule, fraction uint32) []*route.RouteMatch {
	below := routeMatch(r, fraction)
	below.CaseSensitive = wrapperspb.Bool(true) // gRPC for Java compares without case unless set
	below.PathSpecifier = &route.RouteMatch_Prefix{Prefix: r.Path + "/"}
	if r.Path == "" {
		return []*route.RouteMatch{below}
	}
	itself := proto.CloneOf(below)
	itself.PathSpecifier = &route.RouteMatch_Path{Path: r.Path}
	return []*route.RouteMatch{itself, below}
}

// grpcAction sends calls to a service. gRPC tries again by itself what no server
// has seen; what one may have seen is the application's to repeat.
func grpcAction(service string, p policy.Service) *route.Route_Route {
	action := &route.RouteAction{
		ClusterSpecifier:  &route.RouteAction_Cluster{Cluster: forGRPC(service)},
		MaxStreamDuration: &route.RouteAction_MaxStreamDuration{MaxStreamDuration: protoDuration(p.Timeout)},
	}
	if p.HashOn.Header != "" {
		action.HashPolicy = hashPolicies(p.HashOn)
	}
	return &route.Route_Route{Route: action}
}

// grpcClusters returns one cluster for each service that gRPC clients can reach, and
// for each that rules send them to.
func grpcClusters(in sharedInput) ([]proto.Message, error) {
	var all []proto.Message
	add := func(name string) error {
		c, err := grpcCluster(name, in.policy.For(name))
		all = append(all, c)
		return err
	}
	for _, name := range in.services {
		if !in.policy.For(name).SpeaksGRPC() {
			continue
		}
		if err := add(name); err != nil {
			return nil, err
		}
	}
	for _, name := range in.unreachable() {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func grpcCluster(service string, p policy.Service) (*cluster.Cluster, error) {
	c := &cluster.Cluster{
		Name:                 forGRPC(service),
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: fromADS(), ServiceName: forGRPC(service)},
		ConnectTimeout:       protoDuration(p.ConnectTimeout),
		CircuitBreakers:      circuitBreakers(p.Limits),
	}
	switch {
	case p.HashOn.Header != "":
		c.LbPolicy = cluster.Cluster_RING_HASH // gRPC has no maglev
	case p.LoadBalancing == policy.ByLoad:
		var err error
		if c.LoadBalancingPolicy, err = grpcByLoad(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// grpcByLoad returns [policy.ByLoad] within each locality. gRPC for Node.js does not know
// it, and rejects a cluster whose list names no policy that it knows; the second of
// the list is round_robin, which every gRPC has. The list must be that of the
// inner policy: a client takes wrr_locality before it looks what is in it.
// https://github.com/grpc/proposal/blob/master/A52-xds-custom-lb-policies.md
func grpcByLoad() (*cluster.LoadBalancingPolicy, error) {
	servers, err := lbExtension(policy.ByLoad, &byload.ClientSideWeightedRoundRobin{})
	if err != nil {
		return nil, err
	}
	fallback, err := lbExtension("round_robin", &roundrobin.RoundRobin{})
	if err != nil {
		return nil, err
	}
	servers.Policies = append(servers.Policies, fallback.GetPolicies()...)
	return lbExtension("wrr_locality", &wrrlocality.WrrLocality{EndpointPickingPolicy: servers})
}

// grpcAssignment returns a service's assignment for gRPC clients of a region. No two
// of its localities may have the same name, whatever their priorities: gRPC for Java
// keeps the last one only. No two endpoints have the same address, which the topology
// sees to: all gRPC but Java's reject such an assignment.
func grpcAssignment(in serviceInput, localities []*endpoint.LocalityLbEndpoints) *endpoint.ClusterLoadAssignment {
	split := byServer
	if in.policy.LoadBalancing == policy.ByLoad {
		split = byPriority
	}
	cla := &endpoint.ClusterLoadAssignment{ClusterName: forGRPC(in.service.Name)}
	for _, l := range localities {
		cla.Endpoints = append(cla.Endpoints, split(l)...)
	}
	return cla
}

// byServer returns a locality for each server of one. gRPC's round_robin does not
// ask for the weights of endpoints, only for those of localities.
func byServer(l *endpoint.LocalityLbEndpoints) []*endpoint.LocalityLbEndpoints {
	var all []*endpoint.LocalityLbEndpoints
	for _, e := range l.GetLbEndpoints() {
		all = append(all, &endpoint.LocalityLbEndpoints{
			Locality:            &core.Locality{Region: l.GetLocality().GetRegion(), Zone: l.GetLocality().GetZone(), SubZone: addressOf(e)},
			Priority:            l.GetPriority(),
			LoadBalancingWeight: e.GetLoadBalancingWeight(),
			LbEndpoints:         []*endpoint.LbEndpoint{{HostIdentifier: e.GetHostIdentifier(), LoadBalancingWeight: wrapperspb.UInt32(1)}},
		})
	}
	return all
}

// byPriority returns a locality under a name that no other priority has.
func byPriority(l *endpoint.LocalityLbEndpoints) []*endpoint.LocalityLbEndpoints {
	if l.GetPriority() == 0 {
		return []*endpoint.LocalityLbEndpoints{l}
	}
	at := &core.Locality{Region: l.GetLocality().GetRegion(), Zone: l.GetLocality().GetZone(), SubZone: fmt.Sprintf("priority-%d", l.GetPriority())}
	return []*endpoint.LocalityLbEndpoints{{
		Locality: at, Priority: l.GetPriority(), LoadBalancingWeight: l.GetLoadBalancingWeight(), LbEndpoints: l.GetLbEndpoints(),
	}}
}

func addressOf(e *endpoint.LbEndpoint) string {
	at := e.GetEndpoint().GetAddress().GetSocketAddress()
	return fmt.Sprintf("%s:%d", at.GetAddress(), at.GetPortValue())
}
