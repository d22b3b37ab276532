package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/events"
)

// diff answers what a proposal would change. It is planned as if it were so now:
// what the guard would hold back is reported as held.
func (c *ControlPlane) diff(_ context.Context, body io.Reader) (any, error) {
	var p api.Proposal
	if err := json.NewDecoder(body).Decode(&p); err != nil {
		return nil, fmt.Errorf("read what to compare: %w", err)
	}
	if c.published.Load() == nil {
		return nil, errors.New("nothing is served yet that could be compared: " + c.detail())
	}
	changes, err := c.diffProposal(*c.planInputs.Load(), p, time.Now())
	if err != nil {
		return nil, err
	}
	return api.Diff{Changes: concat(changes)}, nil
}

func (c *ControlPlane) detail() string {
	_, detail := c.readiness()
	return detail
}

// diffProposal is what would change with a proposal.
func (c *ControlPlane) diffProposal(k planInput, p api.Proposal, now time.Time) ([]events.Event, error) {
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
	would := c.plan(k, memory, devices, is.policy, now)
	if _, err := envoy.Render(would.Topology, is.policy, c.config.Rules.DefaultService); err != nil {
		return nil, fmt.Errorf("this can't be published: %w", err)
	}
	return events.Diff(c.eventSnapshot(k.published, k.policy, k.tables), c.eventSnapshot(would.snapshot, is, k.tables)), nil
}
