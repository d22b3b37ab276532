// Package topology turns the devices of a tailnet into what Envoy balances
// over: services, localities, endpoints, weights and priorities.
//
// It is pure. The same devices and [Rules] always give the same [Topology];
// there is no clock and no I/O, so every rule can be tested by a table.
package topology

import (
	"encoding/json"
	"strings"
	"time"
)

// Device is one machine of the tailnet as a provider reports it. Its JSON form
// is the document of the file provider and what /status prints.
type Device struct {
	// ID is the provider's stable name for the device. It decides ties, so it
	// must be unique in a list and the same in every list.
	ID string `json:"id"`
	// Name is the device's host name.
	Name string `json:"name"`
	// Addresses are the device's own tailnet addresses, without prefix length.
	// Subnet routes never belong here.
	Addresses []string `json:"addresses"`
	// Tags are Tailscale tags, "tag:weight-2".
	Tags []string `json:"tags,omitempty"`
	// Online reports whether the device is connected to the coordination server,
	// and has announced how to reach it.
	Online bool `json:"online"`
	// OfflineSince is when the control plane first saw the device offline. It
	// is set by the watch and not by a provider; nil while it is online, and
	// for a device that was never seen online.
	OfflineSince *time.Time `json:"offlineSince,omitempty"`
	// Unreachable is why no other device can connect to this one, whatever the
	// policy allows; empty where no reason is known. Such a device serves nothing.
	Unreachable string `json:"unreachable,omitempty"`
	// Expires is when the node key expires; nil means never.
	Expires *time.Time `json:"expires"`
	// Grants are the values of the app capability [Capability] that the policy
	// grants from this device to the control plane, one JSON object a service.
	// They are kept raw, so that a bad one becomes a [Problem] and not an error.
	Grants []json.RawMessage `json:"grants,omitempty"`
	// Attributes are posture attributes by the keys of the tag grammar
	// ("weight": "0"). They win over grants and tags.
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Capability is the app capability whose values describe endpoints.
// See https://tailscale.com/kb/1324/grants.
const Capability = "tailxds.dev/cap/endpoint"

// attributePrefix begins the custom posture attributes that describe
// endpoints, as problems show them. Tailscale's keys may hold no dash.
// See https://tailscale.com/kb/1288/device-posture.
const attributePrefix = "custom:tailxds_"

// Problem is something in the tailnet's metadata that was ignored, so that its owner
// can fix it. A problem never affects another device.
type Problem struct {
	// Device is the ID and Name the name of the device it was found on.
	Device string `json:"device"`
	Name   string `json:"name,omitempty"`
	// Subject is the tag, grant, attribute or address, as it was written.
	Subject string `json:"subject"`
	// Reason is why it was ignored, and what would be valid.
	Reason string `json:"reason"`
}

// String returns the problem in a line: "west-1 tag:weight-x: ignored: …".
func (p Problem) String() string {
	return strings.TrimSpace(p.Name+" "+p.Subject) + ": " + p.Reason
}
