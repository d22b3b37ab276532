package api

import (
	"time"

	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// Explanation is what /explain prints: why each endpoint is what it is.
type Explanation struct {
	At time.Time `json:"at"`
	// From is the device whose Envoys' view it is; empty is all Envoys'.
	From    string            `json:"from,omitempty"`
	Devices []ExplainedDevice `json:"devices"`
}

// ExplainedDevice is one device.
type ExplainedDevice struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Address string `json:"address,omitempty"`
	// Listed reports whether the device list has it.
	Listed bool `json:"listed"`
	// Missing says what a device lacks that is no endpoint.
	Missing  string             `json:"missing,omitempty"`
	Problems []topology.Problem `json:"problems"`
	// Endpoints are one for each service.
	Endpoints []ExplainedEndpoint `json:"endpoints"`
}

// ExplainedEndpoint is a device in one service: where its values come from, and
// what came of them.
type ExplainedEndpoint struct {
	Service string           `json:"service"`
	Values  []topology.Value `json:"values"`
	// Server is absent if it is not known to the service: another has its address.
	Server *traffic.Server `json:"server,omitempty"`
	// Held says why it serves though the list says otherwise.
	Held string `json:"held,omitempty"`
}
