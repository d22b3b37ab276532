// Package xds serves a topology to Envoys.
//
// resources.go is pure: a [topology.Topology] and a [Policy] become xDS
// resources, by one builder a type in one table. server.go holds the caches,
// the ADS streams and who may open one.
package xds

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	upstreamhttp "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/tailxds/tailxds/internal/topology"
)

// resourceType is one row of the table of what is served. Just one of its
// builders is set.
type resourceType struct {
	// Name is the field of the rendered document.
	Name string
	// URL is the xDS type URL.
	URL string
	// perService builds the one resource of a service; it is called again only
	// when that service or its policy changed.
	perService func(topology.Service, ServicePolicy) (proto.Message, error)
	// whole builds the one resource that spans all services.
	whole func(topology.Topology, Policy, string) (proto.Message, error)
}

// resourceTypes is the table, in the order in which additions reach an Envoy:
// what is referred to goes before what refers to it. Removals go in reverse.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#eventual-consistency-considerations
func resourceTypes() []resourceType {
	return []resourceType{
		{Name: "endpoints", URL: resource.EndpointType, perService: buildEndpoints},
		{Name: "clusters", URL: resource.ClusterType, perService: buildCluster},
		{Name: "routes", URL: resource.RouteType, whole: buildRoutes},
		{Name: "listeners", URL: resource.ListenerType, whole: buildListener},
	}
}

// buildEndpoints is the service's assignment. Its locality weights are the
// sums of their endpoints', so that a weight means the same in every region.
func buildEndpoints(s topology.Service, p ServicePolicy) (proto.Message, error) {
	cla := &endpoint.ClusterLoadAssignment{
		ClusterName: s.Name,
		Policy: &endpoint.ClusterLoadAssignment_Policy{
			OverprovisioningFactor: wrapperspb.UInt32(p.OverprovisioningFactor),
		},
	}
	for _, l := range s.Localities {
		locality := &endpoint.LocalityLbEndpoints{
			Locality:            &core.Locality{Region: l.Region, Zone: l.Zone},
			Priority:            l.Priority,
			LoadBalancingWeight: wrapperspb.UInt32(l.Weight),
		}
		for _, e := range l.Endpoints {
			locality.LbEndpoints = append(locality.LbEndpoints, &endpoint.LbEndpoint{
				HostIdentifier: &endpoint.LbEndpoint_Endpoint{Endpoint: &endpoint.Endpoint{
					Hostname: e.Name,
					Address:  socketAddress(e.Address.Addr().String(), e.Address.Port()),
				}},
				LoadBalancingWeight: wrapperspb.UInt32(e.Weight),
			})
		}
		cla.Endpoints = append(cla.Endpoints, locality)
	}
	return cla, nil
}

func socketAddress(address string, port uint16) *core.Address {
	return &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
		Address:       address,
		PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// buildCluster is how Envoy balances, checks and protects a service.
func buildCluster(s topology.Service, p ServicePolicy) (proto.Message, error) {
	protocol, err := upstreamProtocol(p.Protocol)
	if err != nil {
		return nil, err
	}
	return &cluster.Cluster{
		Name:                 s.Name,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: fromADS()},
		ConnectTimeout:       p.ConnectTimeout.proto(),
		LbPolicy:             lbPolicy(p.LoadBalancing),
		CommonLbConfig: &cluster.Cluster_CommonLbConfig{
			// Without this, Envoy ignores the localities' weights.
			LocalityConfigSpecifier: &cluster.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
				LocalityWeightedLbConfig: &cluster.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
			},
			// Envoy sends to unhealthy hosts too once fewer than this share is
			// healthy. 1 %: only when none is left, so that one healthy host of
			// four still keeps requests from failing on the other three.
			HealthyPanicThreshold: &typev3.Percent{Value: 1},
			// A host that has not been checked yet is neither used nor counted,
			// so a newcomer does not pull down its locality's weight.
			IgnoreNewHostsUntilFirstHc: true,
		},
		// What is removed from the assignment is gone at once, also while it
		// still passes its checks.
		IgnoreHealthOnHostRemoval: true,
		HealthChecks:              []*core.HealthCheck{healthCheck(p.HealthCheck)},
		OutlierDetection:          outlierDetection(p.OutlierDetection),
		CircuitBreakers:           circuitBreakers(),
		UpstreamConnectionOptions: &cluster.UpstreamConnectionOptions{
			TcpKeepalive: &core.TcpKeepalive{
				KeepaliveProbes: wrapperspb.UInt32(3), KeepaliveTime: wrapperspb.UInt32(10), KeepaliveInterval: wrapperspb.UInt32(5),
			},
		},
		TypedExtensionProtocolOptions: protocol,
	}, nil
}

func fromADS() *core.ConfigSource {
	return &core.ConfigSource{
		ResourceApiVersion:    core.ApiVersion_V3,
		ConfigSourceSpecifier: &core.ConfigSource_Ads{Ads: &core.AggregatedConfigSource{}},
	}
}

func lbPolicy(name string) cluster.Cluster_LbPolicy {
	switch name {
	case "least_request":
		return cluster.Cluster_LEAST_REQUEST
	case "random":
		return cluster.Cluster_RANDOM
	default:
		return cluster.Cluster_ROUND_ROBIN
	}
}

func healthCheck(h HealthCheck) *core.HealthCheck {
	interval := h.Interval.proto()
	return &core.HealthCheck{
		Timeout:            h.Timeout.proto(),
		Interval:           interval,
		UnhealthyThreshold: wrapperspb.UInt32(h.UnhealthyThreshold),
		HealthyThreshold:   wrapperspb.UInt32(h.HealthyThreshold),
		// Envoy checks a cluster without traffic every 60 s only, unless told.
		NoTrafficInterval: interval,
		// Spread, so that many Envoys do not check a server in step.
		IntervalJitterPercent: 10,
		HealthChecker: &core.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &core.HealthCheck_HttpHealthCheck{
			Path: h.Path,
		}},
	}
}

func outlierDetection(o OutlierDetection) *cluster.OutlierDetection {
	return &cluster.OutlierDetection{
		Consecutive_5Xx:                wrapperspb.UInt32(o.Consecutive5xx),
		Interval:                       o.BaseEjectionTime.proto(),
		BaseEjectionTime:               o.BaseEjectionTime.proto(),
		MaxEjectionPercent:             wrapperspb.UInt32(o.MaxEjectionPercent),
		SplitExternalLocalOriginErrors: true,
		ConsecutiveLocalOriginFailure:  wrapperspb.UInt32(o.Consecutive5xx),
	}
}

// circuitBreakers replace Envoy's limit of three concurrent retries, which a
// server that dies under load overruns at once, by a budget.
func circuitBreakers() *cluster.CircuitBreakers {
	return &cluster.CircuitBreakers{Thresholds: []*cluster.CircuitBreakers_Thresholds{{
		RetryBudget: &cluster.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: 25},
			MinRetryConcurrency: wrapperspb.UInt32(100),
		},
	}}}
}

// upstreamProtocol is what Envoy speaks to the servers.
func upstreamProtocol(protocol string) (map[string]*anypb.Any, error) {
	options := &upstreamhttp.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &upstreamhttp.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{HttpProtocolOptions: &core.Http1ProtocolOptions{}},
	}
	if protocol == "http2" {
		options.ProtocolConfig = &upstreamhttp.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &core.Http2ProtocolOptions{}}
	}
	packed, err := anypb.New(&upstreamhttp.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttp.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: options},
	})
	if err != nil {
		return nil, fmt.Errorf("pack upstream protocol options: %w", err)
	}
	return map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed}, nil
}
