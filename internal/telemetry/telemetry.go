// Package telemetry receives what Envoys measure from their OpenTelemetry stat sink,
// and keeps the last minutes of it: requests by Envoy and endpoint, their errors and
// latencies, and which endpoints each Envoy finds healthy.
//
// The connection tells which Envoy reports, so a peer reports only for itself, and
// only published endpoints count. So what is published and the bounds below bound
// memory, whatever peers send.
//
// See
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/stat_sinks/open_telemetry/v3/open_telemetry.proto
package telemetry

import (
	"context"
	"maps"
	"net/netip"
	"sync"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/topology"
)

// Caller is the sender of a report, as the tailnet knows it.
type Caller struct {
	// Device is its name, and Address the source of its connection.
	Device  string
	Address netip.Addr
	// Node is the Envoy's node ID by its xDS stream; empty while only the report has
	// one.
	Node string
	// Region is the caller's. Known is false without a tailnet: the Envoy's own claim
	// counts then.
	Region string
	Known  bool
}

// Bounds of what is kept.
const (
	// maxEnvoys report at a time, and maxEnvoysPerAddress of them from one address, so
	// that no device displaces the others.
	maxEnvoys           = 4_000
	maxEnvoysPerAddress = 16
	// maxEndpointStats bounds endpoint statistics of all Envoys together, some 130
	// bytes each.
	maxEndpointStats = 400_000
	// maxHistoryEndpoints bounds the endpoints in all histories, some 3 kB each.
	maxHistoryEndpoints = 5_000
	// maxRegionClaims bounds the regions that one address can claim without a tailnet.
	maxRegionClaims = 8
	// maxName bounds the node ID and the region that an Envoy claims.
	maxName = 255
)

// Receiver receives and keeps Envoys' reports.
type Receiver struct {
	collector.UnimplementedMetricsServiceServer
	caller func(context.Context) Caller
	now    func() time.Time

	mu                 sync.Mutex
	clock              steadyClock
	requests           map[balance.Reporter]float64         // since the last call of Requests
	published          map[string]map[netip.AddrPort]string // each endpoint's region, by service
	envoys             map[envoyKey]*envoy
	claims             map[netip.Addr]map[string]time.Time // of regions, and when each was made last
	endpointStatsCount int                                 // of all envoys
	histories          map[string]*history
	historyEndpoints   int // endpoints in all histories
}

// NewReceiver returns a receiver that identifies callers by caller, and takes the
// time from now.
func NewReceiver(caller func(context.Context) Caller, now func() time.Time) *Receiver {
	return &Receiver{
		caller: caller, now: now, requests: make(map[balance.Reporter]float64),
		envoys: make(map[envoyKey]*envoy), claims: make(map[netip.Addr]map[string]time.Time), histories: make(map[string]*history),
	}
}

// Register adds the receiver to a gRPC server.
func (r *Receiver) Register(s grpc.ServiceRegistrar) { collector.RegisterMetricsServiceServer(s, r) }

// SetPublished sets what is published. Reports of other services and endpoints are
// ignored, since a peer could make up any number of them.
func (r *Receiver) SetPublished(t topology.Topology) {
	published := make(map[string]map[netip.AddrPort]string, len(t.Services))
	for _, s := range t.Services {
		published[s.Name] = make(map[netip.AddrPort]string)
		for _, e := range s.Serving() {
			published[s.Name][e.Address] = e.Region
		}
		for _, e := range s.Idle {
			published[s.Name][e.Address] = e.Region
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.published = published // and never changed after
}

// Export implements the OTLP metrics service.
func (r *Receiver) Export(ctx context.Context, request *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	who := r.caller(ctx)
	r.mu.Lock()
	published := r.published
	r.mu.Unlock()
	// Decode without the lock: it is most of the work.
	s := decode(request, func(service string, endpoint netip.AddrPort) bool {
		endpoints, ok := published[service]
		if ok && endpoint.IsValid() {
			_, ok = endpoints[endpoint]
		}
		return ok
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.steady(r.now())
	if !who.Known {
		who.Region = r.claimRegion(who.Address, boundName(s.region), now)
	}
	r.record(who, s, now)
	return &collector.ExportMetricsServiceResponse{}, nil
}

// claimRegion returns the region that a caller without a tailnet claims; empty if
// its address claims too many, since it could fill what is kept by region.
func (r *Receiver) claimRegion(from netip.Addr, region string, now time.Time) string {
	if region == "" {
		return "" // it claims nothing
	}
	of := r.claims[from]
	if _, known := of[region]; !known {
		maps.DeleteFunc(of, func(_ string, last time.Time) bool { return now.Sub(last) > forgetAfter })
		if len(of) >= maxRegionClaims {
			return ""
		}
		if of == nil {
			if len(r.claims) >= maxEnvoys && !r.forgetOldClaims(now) {
				return ""
			}
			of = make(map[string]time.Time)
			r.claims[from] = of
		}
	}
	of[region] = now
	return region
}

// forgetOldClaims makes room for another address's claims, and reports whether there
// is any.
func (r *Receiver) forgetOldClaims(now time.Time) bool {
	maps.DeleteFunc(r.claims, func(_ netip.Addr, of map[string]time.Time) bool {
		for _, last := range of {
			if now.Sub(last) <= forgetAfter {
				return false
			}
		}
		return true
	})
	return len(r.claims) < maxEnvoys
}

func boundName(name string) string {
	if len(name) > maxName {
		return ""
	}
	return name
}

// countRequests adds the requests that enter in a region by a device's report.
func (r *Receiver) countRequests(device netip.Addr, region string, requests float64) {
	if requests == 0 || region == "" {
		return
	}
	key := balance.Reporter{Device: device, Region: region}
	if _, known := r.requests[key]; known || len(r.requests) < maxEnvoys {
		r.requests[key] += requests
	}
}

// Requests returns the number of requests since the last call, by who reported them.
func (r *Receiver) Requests() map[balance.Reporter]float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := maps.Clone(r.requests)
	clear(r.requests)
	return out
}
