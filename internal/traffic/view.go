// Package traffic evaluates what Envoys measured: which of them find a server
// healthy, which share each server should get, and which it got. It is pure;
// internal/telemetry receives the reports.
package traffic

import (
	"net/netip"
	"slices"
	"time"
)

// View is what Envoys measured last, each over its own window of about ten seconds.
type View struct {
	At time.Time
	// Envoys have reported recently, by device and node.
	Envoys []Envoy
}

// Envoy returns the report of the Envoy with an address and node, as its stream has
// them; nil if there is none.
func (v View) Envoy(address netip.Addr, node string) *Envoy {
	i := slices.IndexFunc(v.Envoys, func(e Envoy) bool { return e.Address == address && e.Node == node })
	if i < 0 {
		return nil
	}
	return &v.Envoys[i]
}

// Envoy is a reporting Envoy, as the tailnet knows it.
type Envoy struct {
	// Device is the name of its device and Address the source of its reports; Node is
	// its node ID. Address and Node identify it.
	Device  string     `json:"device"`
	Address netip.Addr `json:"address"`
	Node    string     `json:"node"`
	// Region is its device's; without a tailnet the one that it claims.
	Region string `json:"region,omitempty"`
	// Seen is when it reported last. A Stale one has missed some reports: its rates
	// are 0, and its health findings do not count.
	Seen  time.Time `json:"seen"`
	Stale bool      `json:"stale"`
	// Over is the period of its figures.
	Over     time.Duration `json:"-"`
	Services []Service     `json:"services"`
}

// Service is what an Envoy measured of one service.
type Service struct {
	Name string `json:"name"`
	// Latency of the requests in the window, as this Envoy saw it.
	Latency   Latency    `json:"-"`
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint is what an Envoy measured of one endpoint of a service.
type Endpoint struct {
	Address netip.AddrPort `json:"address"`
	// Healthy reports whether this Envoy would send requests to it: it passes its
	// health checks, and is not ejected.
	Healthy bool `json:"healthy"`
	// Requests to it, and those that failed (5xx, reset or timeout), a second. For TCP
	// they are connections.
	Requests float64 `json:"requests"`
	Errors   float64 `json:"errors"`
	// ConnectFails are failed connections, those of health checks included, a second.
	ConnectFails float64 `json:"connectFails"`
	// InFlight are requests without an answer yet, when it reported.
	InFlight uint64 `json:"inFlight"`
}

// History is what all Envoys measured of one service, step by step.
type History struct {
	// Start is when the first step began, and Step how long each lasts. The last
	// one is the newest that is over.
	Start time.Time     `json:"start"`
	Step  time.Duration `json:"step"` // in nanoseconds
	// Endpoints that got requests in any step, by address. Each list below and in
	// them has one value a step.
	Endpoints []EndpointHistory `json:"endpoints"`
	// Entries are requests a second by the region where they entered.
	Entries map[string][]float64 `json:"entries"`
	// Crossing are requests a second that left their region: both their Envoy's
	// and their server's were known, and differ.
	Crossing []float64 `json:"crossing"`
	// Latency of all requests of a step.
	Latency []Latency `json:"latency"`
}

// Steps is how many steps there are.
func (h History) Steps() int { return len(h.Crossing) }

// EndpointHistory is one endpoint's part of a [History]. Requests and Errors are
// a second.
type EndpointHistory struct {
	Address  netip.AddrPort `json:"address"`
	Requests []float64      `json:"requests"`
	Errors   []float64      `json:"errors"`
}
