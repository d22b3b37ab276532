// Package traffic is what Envoys measured, and what that says of the services:
// who is healthy by whose word, which share each server was to get and which it
// got. It is pure; internal/report receives what it reckons with.
package traffic

import (
	"net/netip"
	"slices"
	"time"
)

// View is what Envoys measured last: each over its own window of about ten
// seconds.
type View struct {
	At time.Time
	// Envoys that have reported of late, by device and node.
	Envoys []Envoy
}

// Envoy is the report of one, by where it reports from and what it calls itself, as
// its stream is known; nil if there is none.
func (v View) Envoy(address netip.Addr, node string) *Envoy {
	i := slices.IndexFunc(v.Envoys, func(e Envoy) bool { return e.Address == address && e.Node == node })
	if i < 0 {
		return nil
	}
	return &v.Envoys[i]
}

// Envoy is one that reports, as the tailnet knows it.
type Envoy struct {
	// Device is the name of its device and Address where it reports from; Node is
	// what the Envoy calls itself. Address and Node tell Envoys apart.
	Device  string     `json:"device"`
	Address netip.Addr `json:"address"`
	Node    string     `json:"node"`
	// Region is where the tailnet knows it to be; without a tailnet, where it says
	// it is.
	Region string `json:"region,omitempty"`
	// Seen is when it reported last. An Envoy that is Stale has missed some
	// reports: its rates are 0, and what it found healthy says nothing any more.
	Seen  time.Time `json:"seen"`
	Stale bool      `json:"stale"`
	// Over is the time that its figures are of.
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
	// Healthy is whether this Envoy would send requests to it: it passes its
	// checks, and is not ejected.
	Healthy bool `json:"healthy"`
	// Requests that were sent to it, and how many of them failed (5xx, a reset or a
	// timeout), a second. For TCP they are connections.
	Requests float64 `json:"requests"`
	Errors   float64 `json:"errors"`
	// ConnectFails are connections that could not be made, those of health checks
	// too, a second.
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
