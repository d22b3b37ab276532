package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/yamldoc"
)

// proposal is what `tailxds diff` asks a control plane: what would change with this
// policy, with these devices, or with both.
type proposal struct {
	// Policy is the text of a policy file; nil is the policy in force.
	Policy *string `json:"policy,omitempty"`
	// Devices is a list of devices; nil is the present one.
	Devices []topology.Device `json:"devices,omitempty"`
}

// diffDocument answers a [proposal].
type diffDocument struct {
	Changes []events.Event `json:"changes"`
}

// maxProposedDevices bounds the devices of a proposal: more than fit into the
// body that is read, if they say anything.
const maxProposedDevices = 20_000

// UnmarshalJSON reads a proposal, and no more devices than there may be.
func (p *proposal) UnmarshalJSON(text []byte) error {
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

// diff answers what a proposal would change. All of it is judged as if it were so
// now: what the guard would hold is told as held.
func (d *daemon) diff(ctx context.Context, body io.Reader) (any, error) {
	var p proposal
	if err := json.NewDecoder(body).Decode(&p); err != nil {
		return nil, fmt.Errorf("read what to compare: %w", err)
	}
	if !d.started() || d.published.Load() == nil {
		return nil, errors.New("nothing is served yet that could be compared: " + d.detail())
	}
	// The loop lends what it knows, which is never changed, and goes on while the
	// proposal is compared.
	lent := make(chan known, 1)
	select {
	case d.snapshots <- lent:
	case <-ctx.Done():
		return nil, fmt.Errorf("compare: %w", context.Cause(ctx))
	}
	changes, err := d.compare(<-lent, p, time.Now())
	if err != nil {
		return nil, err
	}
	return diffDocument{joined(changes)}, nil
}

func (d *daemon) detail() string {
	_, detail := d.readiness()
	return detail
}

// compare is what would change with a proposal.
func (d *daemon) compare(k known, p proposal, now time.Time) ([]events.Event, error) {
	is := k.policy
	if p.Policy != nil {
		var err error
		if is, err = parsePolicy("policy", *p.Policy); err != nil {
			return nil, err
		}
	}
	if p.Devices != nil {
		k.list.Devices, k.list.At = p.Devices, now
	}
	memory, devices := k.memory.Observe(k.list)
	would, err := d.verdict(k, memory, devices, is.policy, now)
	if err != nil {
		return nil, err
	}
	if _, err := envoy.Render(would.Topology, is.policy, d.o.DefaultService); err != nil {
		return nil, fmt.Errorf("this can't be published: %w", err)
	}
	return events.Diff(d.situation(k.published, k.policy, k.tables), d.situation(would.snapshot, is, k.tables)), nil
}
