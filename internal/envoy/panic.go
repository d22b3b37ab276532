package envoy

import (
	"google.golang.org/protobuf/types/known/wrapperspb"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/policy"
)

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
