package api

import (
	"encoding/json"
	"fmt"

	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/yamldoc"
)

// Proposal is what `tailxds diff` asks a control plane: what would change with this
// policy, with these devices, or with both.
type Proposal struct {
	// Policy is the text of a policy file; nil is the policy in force.
	Policy *string `json:"policy,omitempty"`
	// Devices is a list of devices; nil is the present one.
	Devices []topology.Device `json:"devices,omitempty"`
}

// Diff answers a [Proposal].
type Diff struct {
	Changes []events.Event `json:"changes"`
}

// maxProposedDevices bounds the devices of a proposal: more than fit into the
// body that is read, if they say anything.
const maxProposedDevices = 20_000

// UnmarshalJSON reads a proposal, and no more devices than there may be.
func (p *Proposal) UnmarshalJSON(text []byte) error {
	var raw struct {
		Policy  *string
		Devices json.RawMessage
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return err // says what was read
	}
	devices, err := yamldoc.List[topology.Device](raw.Devices, maxProposedDevices)
	if err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	p.Policy, p.Devices = raw.Policy, devices
	return nil
}
