package xds

import (
	"fmt"
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

	"github.com/tailxds/tailxds/internal/balance"
)

// gRPC clients without a proxy ask for a listener by the name that they dial,
// xds:///shop, and follow its routes, clusters and endpoints. Theirs are other
// resources than Envoys', for gRPC spreads requests otherwise. Envoys, which ask
// for all listeners and clusters, are not sent them: see [asked].
// https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md

// speaksGRPC tells whether gRPC clients can reach a service by themselves.
func (s ServicePolicy) speaksGRPC() bool { return s.Protocol == GRPC || s.Protocol == HTTP2 }

// forGRPC is the name of a service's cluster and assignment for gRPC clients.
func forGRPC(service string) string { return service + "/grpc" }

// grpcListeners are one a service, under its name.
func grpcListeners(f frame) ([]proto.Message, error) {
	filter, err := anypb.New(&router.Router{})
	if err != nil {
		return nil, fmt.Errorf("pack router: %w", err)
	}
	known := f.known()
	var all []proto.Message
	for _, name := range f.services {
		if !f.policy.For(name).speaksGRPC() {
			continue
		}
		manager, err := anypb.New(&hcm.HttpConnectionManager{
			StatPrefix: name,
			RouteSpecifier: &hcm.HttpConnectionManager_RouteConfig{RouteConfig: &route.RouteConfiguration{
				Name:         name,
				VirtualHosts: []*route.VirtualHost{{Name: name, Domains: []string{"*"}, Routes: grpcRoutes(name, f.policy, known)}},
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

// grpcRoutes are a service's rules, and then the service itself, as gRPC reads
// them: it knows no path_separated_prefix, and draws for each route anew.
func grpcRoutes(service string, p Policy, known map[string]bool) []*route.Route {
	var all []*route.Route
	add := func(rule RouteRule, target string, fraction uint32) {
		for _, m := range rule.grpcMatches(fraction) {
			r := &route.Route{Match: m}
			if policy := p.For(target); known[target] && policy.speaksGRPC() {
				r.Action = grpcAction(target, policy)
			} else {
				// It has no servers that gRPC could ask, and goes nowhere else.
				r.Action = &route.Route_DirectResponse{DirectResponse: &route.DirectResponseAction{Status: 503}}
			}
			all = append(all, r)
		}
	}
	for _, rule := range p.For(service).Routes {
		services, until := rule.shares()
		left, last := uint64(whole), uint32(0)
		for i, target := range services {
			part := uint64(until[i] - last)
			add(rule, target, uint32(part*whole/left)) // of what those before it left
			left, last = left-part, until[i]
		}
	}
	add(RouteRule{}, service, whole)
	return all
}

// grpcMatches are what a rule asks of a request, the path itself and what is
// below it by one route each.
func (r RouteRule) grpcMatches(fraction uint32) []*route.RouteMatch {
	below := r.match(fraction)
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
func grpcAction(service string, p ServicePolicy) *route.Route_Route {
	action := &route.RouteAction{
		ClusterSpecifier:  &route.RouteAction_Cluster{Cluster: forGRPC(service)},
		MaxStreamDuration: &route.RouteAction_MaxStreamDuration{MaxStreamDuration: p.Timeout.proto()},
	}
	if p.HashOn.Header != "" {
		action.HashPolicy = p.HashOn.policies()
	}
	return &route.Route_Route{Route: action}
}

// grpcClusters are one a service.
func grpcClusters(f frame) ([]proto.Message, error) {
	var all []proto.Message
	for _, name := range f.services {
		policy := f.policy.For(name)
		if !policy.speaksGRPC() {
			continue
		}
		c := &cluster.Cluster{
			Name:                 forGRPC(name),
			ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
			EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: fromADS(), ServiceName: forGRPC(name)},
			ConnectTimeout:       policy.ConnectTimeout.proto(),
			CircuitBreakers:      circuitBreakers(policy.Limits),
		}
		switch {
		case policy.HashOn.Header != "":
			c.LbPolicy = cluster.Cluster_RING_HASH // gRPC has no maglev
		case policy.LoadBalancing == ByLoad:
			policy.Locality = balance.Weighted // gRPC always weighs localities
			var err error
			if c.LoadBalancingPolicy, err = weighedByLoad(policy); err != nil {
				return nil, err
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// grpcAssignment is a service's assignment for gRPC clients of a region. gRPC's
// round_robin does not ask for the weights of endpoints, only for those of
// localities; so that each server gets its share, it has a locality of its own.
func grpcAssignment(in serviceInput, localities []*endpoint.LocalityLbEndpoints) *endpoint.ClusterLoadAssignment {
	cla := &endpoint.ClusterLoadAssignment{ClusterName: forGRPC(in.service.Name)}
	if in.policy.LoadBalancing == ByLoad {
		cla.Endpoints = localities
		return cla
	}
	for _, l := range localities {
		for _, e := range l.GetLbEndpoints() {
			at := e.GetEndpoint().GetAddress().GetSocketAddress()
			cla.Endpoints = append(cla.Endpoints, &endpoint.LocalityLbEndpoints{
				Locality: &core.Locality{
					Region: l.GetLocality().GetRegion(), Zone: l.GetLocality().GetZone(), SubZone: fmt.Sprintf("%s:%d", at.GetAddress(), at.GetPortValue()),
				},
				Priority:            l.GetPriority(),
				LoadBalancingWeight: e.GetLoadBalancingWeight(),
				LbEndpoints:         []*endpoint.LbEndpoint{{HostIdentifier: e.GetHostIdentifier(), LoadBalancingWeight: wrapperspb.UInt32(1)}},
			})
		}
	}
	return cla
}

// names are all names under which a service's assignment is published.
func (in serviceInput) names() []string {
	if !in.policy.speaksGRPC() {
		return in.assignments
	}
	return append(slices.Clone(in.assignments), forGRPC(in.service.Name))
}
