package envoy

import (
	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	byload "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	wrrlocality "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/policy"
)

// weighedByLoad is the policy of a cluster whose servers report their load. Until
// one has reported for ten seconds, Envoy's default, it gets the mean of the
// others; while none has, all get the same.
func weighedByLoad(p policy.Service) (*cluster.LoadBalancingPolicy, error) {
	servers, err := lbExtension(policy.ByLoad, &byload.ClientSideWeightedRoundRobin{SlowStartConfig: slowly(p)})
	if err != nil || p.Locality != balance.Weighted {
		return servers, err
	}
	// It knows of no regions by itself.
	return lbExtension("wrr_locality", &wrrlocality.WrrLocality{EndpointPickingPolicy: servers})
}
