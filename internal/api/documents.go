package api

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/drain/peersync"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
	"github.com/tailxds/tailxds/internal/xds"
)

// Status is what /status prints.
type Status struct {
	Version string `json:"version"`
	Ready   bool   `json:"ready"`
	Detail  string `json:"detail"`
	// Degraded are the services without a serving endpoint, "server: 0 of 7 serving".
	Degraded []string     `json:"degraded"`
	Held     []guard.Held `json:"held"`
	// Drains are the drains that operators asked for and that are in force.
	Drains []drain.Record `json:"drains"`
	// Peers are the other control planes that drains are exchanged with.
	Peers    []peersync.State   `json:"peers,omitempty"`
	Provider *provider.Status   `json:"provider,omitempty"`
	Policy   PolicyStatus       `json:"policy"`
	At       *time.Time         `json:"publishedAt"`
	Error    string             `json:"publishError,omitempty"`
	Services []topology.Service `json:"services"`
	// Shares are what serving endpoints are to get.
	Shares   []EndpointShare    `json:"shares"`
	Problems []topology.Problem `json:"problems"`
	Envoys   []xds.Stream       `json:"envoys"`
	// HealthChecks are how often Envoys check where the policy has no interval.
	HealthChecks *HealthChecks     `json:"healthChecks,omitempty"`
	Devices      []topology.Device `json:"devices"`
	// Changes are what happened of late, the newest first.
	Changes []events.Event `json:"changes"`
}

// HealthChecks say how often Envoys check servers, and for how many Envoys that
// was chosen.
type HealthChecks struct {
	Envoys   int    `json:"envoys"`
	Interval string `json:"interval"`
}

// EndpointShare is what an endpoint is to get of its service's requests, from 0 to
// 1, and whether its device's own Envoy is connected: see [traffic.Server].
type EndpointShare struct {
	Service  string         `json:"service"`
	Device   string         `json:"device"`
	Address  netip.AddrPort `json:"address"`
	Expected float64        `json:"expected"`
	Envoy    bool           `json:"envoy"`
}

// PolicyStatus says which policy file is in force, and what is wrong with it.
type PolicyStatus struct {
	File  string `json:"file,omitempty"`
	Error string `json:"error,omitempty"`
}

// Traffic is what /traffic prints: who sends what to whom, beside what
// was to be expected.
type Traffic struct {
	At       time.Time       `json:"at"`
	Services []traffic.Table `json:"services"`
	// Envoys are all that have reported of late.
	Envoys []traffic.Envoy `json:"envoys"`
}

// Reporting counts the Envoys that report now.
func (t Traffic) Reporting() (n int) {
	for _, e := range t.Envoys {
		if !e.Stale {
			n++
		}
	}
	return n
}

// EnvoyState is what an Envoy rejected last, or how far it is.
func EnvoyState(e xds.Stream) string {
	state := "in sync"
	for _, name := range slices.Sorted(maps.Keys(e.Types)) {
		switch of := e.Types[name]; {
		case of.Rejected != "":
			return "rejected " + name + ": " + of.Rejected
		case of.Pending:
			state = "updating"
		}
	}
	return state
}
