package envoy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	byload "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	commonlb "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequest "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	random "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	roundrobin "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	wrrlocality "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
)

// localFactor is the overprovisioning factor of [balance.Local]: a region that
// loses a third of its weight hands on a third of its requests, so that the
// survivors keep their own share.
const localFactor = 100

// setLocalityPolicy makes a cluster treat regions as the policy says.
func setLocalityPolicy(c *cluster.Cluster, p policy.Service) error {
	if p.LoadBalancing == policy.ByLoad {
		var err error
		c.LoadBalancingPolicy, err = weightedByLoad(p)
		return err
	}
	switch p.Locality {
	case balance.Weighted:
		// Without this, Envoy ignores the localities' weights.
		c.CommonLbConfig.LocalityConfigSpecifier = &cluster.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &cluster.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		}
	case balance.Exact, balance.Local:
		// Without this, Envoy keeps requests near once six servers are healthy,
		// because the bootstrap names an originating cluster.
		c.CommonLbConfig.LocalityConfigSpecifier = &cluster.Cluster_CommonLbConfig_ZoneAwareLbConfig_{
			ZoneAwareLbConfig: &cluster.Cluster_CommonLbConfig_ZoneAwareLbConfig{RoutingEnabled: &typev3.Percent{Value: 0}},
		}
	case balance.Nearest:
		policy, err := zoneAware(p)
		if err != nil {
			return err
		}
		c.LoadBalancingPolicy = policy
	}
	return nil
}

// zoneAware is zone-aware routing by weight: each Envoy keeps in its region what
// that can carry of the requests that enter there.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/intro/arch_overview/upstream/load_balancing/zone_aware
func zoneAware(p policy.Service) (*cluster.LoadBalancingPolicy, error) {
	locality := &commonlb.LocalityLbConfig{LocalityConfigSpecifier: &commonlb.LocalityLbConfig_ZoneAwareLbConfig_{
		ZoneAwareLbConfig: &commonlb.LocalityLbConfig_ZoneAwareLbConfig{
			MinClusterSize: wrapperspb.UInt64(1),
			LocalityBasis:  commonlb.LocalityLbConfig_ZoneAwareLbConfig_HEALTHY_HOSTS_WEIGHT,
		},
	}}
	slow := slowStartConfig(p)
	var config proto.Message
	switch p.LoadBalancing {
	case "least_request":
		config = &leastrequest.LeastRequest{LocalityLbConfig: locality, SlowStartConfig: slow}
	case "random":
		config = &random.Random{LocalityLbConfig: locality}
	default:
		config = &roundrobin.RoundRobin{LocalityLbConfig: locality, SlowStartConfig: slow}
	}
	return lbExtension(p.LoadBalancing, config)
}

func slowStartConfig(p policy.Service) *commonlb.SlowStartConfig {
	if p.SlowStart == 0 {
		return nil
	}
	return &commonlb.SlowStartConfig{SlowStartWindow: protoDuration(p.SlowStart)}
}

// lbExtension is one of Envoy's load balancing policies by its name.
func lbExtension(name string, config proto.Message) (*cluster.LoadBalancingPolicy, error) {
	packed, err := anypb.New(config)
	if err != nil {
		return nil, fmt.Errorf("pack the load balancing policy %s: %w", name, err)
	}
	return &cluster.LoadBalancingPolicy{Policies: []*cluster.LoadBalancingPolicy_Policy{{
		TypedExtensionConfig: &core.TypedExtensionConfig{Name: "envoy.load_balancing_policies." + name, TypedConfig: packed},
	}}}, nil
}

// arrangeForRegion is a service as an Envoy of a region gets it: for
// [balance.Local] the own region goes first; for [balance.Nearest] a region is
// one locality, because Envoy compares all of a locality's name with its own.
func arrangeForRegion(s topology.Service, p policy.Service, region string) topology.Service {
	// Weighing by load, Envoy leaves near regions alone only by
	// telling it of none.
	unplaced := p.LoadBalancing == policy.ByLoad
	switch {
	case p.Locality == balance.Exact && unplaced:
		return rearrange(s, func(l topology.Locality) topology.Locality { return topology.Locality{Priority: l.Priority} })
	case p.Locality == balance.Local:
		return rearrange(s, func(l topology.Locality) topology.Locality {
			steps := uint32(len(p.Failover) + 2)
			at := topology.Locality{Priority: l.Priority*steps + uint32(balance.Distance(l.Region, region, p.Failover))}
			if !unplaced {
				at.Region, at.Zone = l.Region, l.Zone
			}
			return at
		})
	case p.Locality == balance.Nearest:
		return rearrange(s, func(l topology.Locality) topology.Locality {
			return topology.Locality{Region: l.Region, Priority: l.Priority}
		})
	default:
		return s
	}
}

// rearrange puts each locality's endpoints where place says, and closes the
// gaps between priorities.
func rearrange(s topology.Service, place func(topology.Locality) topology.Locality) topology.Service {
	type key struct {
		priority     uint32
		region, zone string
	}
	groups := make(map[key][]topology.Endpoint)
	for _, l := range s.Localities {
		at := place(l)
		k := key{at.Priority, at.Region, at.Zone}
		groups[k] = append(groups[k], l.Endpoints...)
	}
	keys := slices.SortedFunc(maps.Keys(groups), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.region, b.region), cmp.Compare(a.zone, b.zone))
	})
	out := topology.Service{Name: s.Name, Idle: s.Idle}
	var priority uint32
	for i, k := range keys {
		if i > 0 && keys[i-1].priority != k.priority {
			priority++
		}
		l := topology.Locality{Region: k.region, Zone: k.zone, Priority: priority, Endpoints: groups[k]}
		for _, e := range l.Endpoints {
			l.Weight += e.Weight
		}
		out.Localities = append(out.Localities, l)
	}
	return out
}

// weightedByLoad is the policy of a cluster whose servers report their load. Until
// one has reported for ten seconds, Envoy's default, it gets the mean of the
// others; while none has, all get the same.
func weightedByLoad(p policy.Service) (*cluster.LoadBalancingPolicy, error) {
	servers, err := lbExtension(policy.ByLoad, &byload.ClientSideWeightedRoundRobin{SlowStartConfig: slowStartConfig(p)})
	if err != nil || p.Locality != balance.Weighted {
		return servers, err
	}
	// It knows of no regions by itself.
	return lbExtension("wrr_locality", &wrrlocality.WrrLocality{EndpointPickingPolicy: servers})
}

// panicThreshold is the share of healthy endpoints, in percent, below which Envoy
// sends to all of a priority: 1 is the least, for Envoy compares whole percents, and
// with 0 it answers 503 when none is healthy. See docs/adr/003-no-panic.md.
const panicThreshold = 1

// maxCountedInPercent is how many endpoints a priority can have so that one of them
// is [panicThreshold].
const maxCountedInPercent = 100 / panicThreshold

// overprovisioning is how Envoy translates healthy endpoints into the share of
// requests that a locality or a priority keeps. Envoy never panics while the first
// priority counts as wholly available. So where the factor decides about nothing else,
// with one priority and no localities to weigh, a single healthy endpoint is made to
// count as that.
func overprovisioning(p policy.Service, localities []*endpoint.LocalityLbEndpoints) *endpoint.ClusterLoadAssignment_Policy {
	endpoints, weighed := 0, p.Locality == balance.Weighted && len(localities) > 1
	for _, l := range localities {
		endpoints += len(l.GetLbEndpoints())
		weighed = weighed || l.GetPriority() > 0
	}
	switch {
	case endpoints > maxCountedInPercent && !weighed:
		return &endpoint.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(uint32(100 * endpoints))}
	case p.Locality == balance.Local:
		return &endpoint.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(localFactor), WeightedPriorityHealth: true}
	default:
		return &endpoint.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(p.OverprovisioningFactor)}
	}
}
