package envoy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/tailxds/tailxds/internal/policy"
)

// buildClusters is the service's cluster, which asks for its assignment under
// the second of the service's names: see [assignmentNames].
func buildClusters(in serviceInput) ([]proto.Message, error) {
	c, err := buildCluster(in.service.Name, in.policy)
	if err != nil {
		return nil, err
	}
	c.EdsClusterConfig.ServiceName = in.assignments[1]
	return []proto.Message{c}, nil
}

// earlierAssignments is how many names of a service's past assignments are
// still served.
const earlierAssignments = 2

// assignmentNames are the names under which a service's assignment is
// published. The first is the service's own, for clusters that are not ours.
// The second is the one that our cluster asks for: it changes with the cluster,
// because an Envoy whose changed cluster asks for an assignment that it has
// already waits for 15 s. The others are those of clusters that were published
// before, for Envoys that have not taken the new one, or refuse it. See
// docs/adr/008-a-changed-cluster-asks-anew.md.
func assignmentNames(service string, p policy.Service, last []string) ([]string, error) {
	c, err := buildCluster(service, p)
	if err != nil {
		return nil, err
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("pack the cluster: %w", err)
	}
	sum := sha256.Sum256(raw)
	current := service + "/" + hex.EncodeToString(sum[:6])
	names := []string{service, current}
	if len(last) > 1 {
		earlier := slices.DeleteFunc(slices.Clone(last[1:]), func(name string) bool { return name == current })
		names = append(names, earlier[:min(len(earlier), earlierAssignments)]...)
	}
	return names, nil
}

// buildCluster is how Envoy balances, checks and protects a service.
func buildCluster(service string, p policy.Service) (*cluster.Cluster, error) {
	protocol, err := upstreamProtocol(p)
	if err != nil {
		return nil, err
	}
	c := &cluster.Cluster{
		Name:                 service,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: fromADS()},
		ConnectTimeout:       protoDuration(p.ConnectTimeout),
		LbPolicy:             lbPolicy(p.LoadBalancing),
		CommonLbConfig: &cluster.Cluster_CommonLbConfig{
			// Only when none is left, so that one healthy host of four still keeps
			// requests from failing on the other three. See [overprovisioning].
			HealthyPanicThreshold: &typev3.Percent{Value: panicThreshold},
			// A host that has not been checked yet is neither used nor counted,
			// so a newcomer does not pull down its locality's weight.
			IgnoreNewHostsUntilFirstHc: true,
			UpdateMergeWindow:          durationpb.New(mergeWindow),
		},
		// What is removed from the assignment is gone at once, also while it
		// still passes its checks.
		IgnoreHealthOnHostRemoval: true,
		HealthChecks:              []*core.HealthCheck{healthCheck(service, p)},
		OutlierDetection:          outlierDetection(p.OutlierDetection),
		CircuitBreakers:           circuitBreakers(p.Limits),
		// What each Envoy reports: who got how many requests.
		TrackClusterStats:             &cluster.TrackClusterStats{PerEndpointStats: true},
		UpstreamConnectionOptions:     keepaliveProbes(),
		UpstreamBindConfig:            closeUnacknowledged(p),
		TypedExtensionProtocolOptions: protocol,
	}
	slowStart(c, p)
	return c, setLocalityPolicy(c, p)
}

// mergeWindow is how long Envoy gathers changes of servers' health after one of
// them, before its threads learn of more. It is a second by default: measured
// with Envoy 1.40, the second server that fails within it gets requests for 0.9 s
// after Envoy knows. Not 0, so that a thousand servers that come and go cost a
// thread ten updates a second at most.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/cluster/v3/cluster.proto#config-cluster-v3-cluster-commonlbconfig
const mergeWindow = 100 * time.Millisecond

// slowStart lets newcomers grow into their share.
func slowStart(c *cluster.Cluster, p policy.Service) {
	if p.SlowStart == 0 || p.LoadBalancing == policy.ByLoad { // which has it in its own configuration
		return
	}
	config := &cluster.Cluster_SlowStartConfig{SlowStartWindow: protoDuration(p.SlowStart)}
	if p.LoadBalancing == "least_request" {
		c.LbConfig = &cluster.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &cluster.Cluster_LeastRequestLbConfig{SlowStartConfig: config}}
		return
	}
	c.LbConfig = &cluster.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &cluster.Cluster_RoundRobinLbConfig{SlowStartConfig: config}}
}

func lbPolicy(name string) cluster.Cluster_LbPolicy {
	switch name {
	case "least_request":
		return cluster.Cluster_LEAST_REQUEST
	case "random":
		return cluster.Cluster_RANDOM
	case "ring_hash":
		return cluster.Cluster_RING_HASH
	case "maglev":
		return cluster.Cluster_MAGLEV
	default:
		return cluster.Cluster_ROUND_ROBIN
	}
}

// sweep is how often Envoy looks whose ejection is over.
const sweep = time.Second

// outlierDetection ejects by what the policy names, and by nothing else. Each
// way to eject that Envoy knows is said, because some are on by default:
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/cluster/v3/outlier_detection.proto
func outlierDetection(o policy.OutlierDetection) *cluster.OutlierDetection {
	never := wrapperspb.UInt32(0)
	count := func(n uint32) *wrapperspb.UInt32Value {
		if n == 0 {
			return nil // Envoy's default, which is counted and has no effect
		}
		return wrapperspb.UInt32(n)
	}
	enforced := func(n uint32) *wrapperspb.UInt32Value {
		if n == 0 {
			return never
		}
		return wrapperspb.UInt32(100)
	}
	return &cluster.OutlierDetection{
		Interval:           durationpb.New(min(sweep, time.Duration(o.BaseEjectionTime))),
		BaseEjectionTime:   protoDuration(o.BaseEjectionTime),
		MaxEjectionPercent: wrapperspb.UInt32(o.MaxEjectionPercent),
		// Answers, and connections that fail, break or time out, each by its own count.
		SplitExternalLocalOriginErrors:         true,
		ConsecutiveGatewayFailure:              count(o.ConsecutiveGatewayErrors),
		EnforcingConsecutiveGatewayFailure:     enforced(o.ConsecutiveGatewayErrors),
		ConsecutiveLocalOriginFailure:          count(o.ConsecutiveConnectionFailures),
		EnforcingConsecutiveLocalOriginFailure: enforced(o.ConsecutiveConnectionFailures),
		Consecutive_5Xx:                        count(o.Consecutive5xx),
		EnforcingConsecutive_5Xx:               enforced(o.Consecutive5xx),
		// By comparison with others, one failure among thousands is an outlier.
		EnforcingSuccessRate:                  never,
		EnforcingLocalOriginSuccessRate:       never,
		EnforcingFailurePercentage:            never,
		EnforcingFailurePercentageLocalOrigin: never,
		// A server that answers its checks and fails its requests stays ejected;
		// otherwise the next check would end it.
		SuccessfulActiveHealthCheckUnejectHost: wrapperspb.Bool(false),
	}
}

// circuitBreakers raise Envoy's limits of 1,024, and its limit of three concurrent
// retries, which a server that dies under load overruns at once. A retry budget is a
// share of the active requests, and of no use here: when a server vanishes, all requests
// that wait for a connection to it fail in the same moment, and by then hardly any
// others are active.
func circuitBreakers(l policy.Limits) *cluster.CircuitBreakers {
	return &cluster.CircuitBreakers{Thresholds: []*cluster.CircuitBreakers_Thresholds{{
		MaxConnections:     wrapperspb.UInt32(l.Connections),
		MaxPendingRequests: wrapperspb.UInt32(l.Pending),
		MaxRequests:        wrapperspb.UInt32(l.Requests),
		MaxRetries:         wrapperspb.UInt32(l.Retries),
	}}}
}
