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

// diff answers what a proposal would change. All of it is judged as if it were so
// now: what the guard would hold is told as held.
func (d *ControlPlane) diff(ctx context.Context, body io.Reader) (any, error) {
	var p api.Proposal
	if err := json.NewDecoder(body).Decode(&p); err != nil {
		return nil, fmt.Errorf("read what to compare: %w", err)
	}
	if !d.started() || d.published.Load() == nil {
		return nil, errors.New("nothing is served yet that could be compared: " + d.detail())
	}
	// The loop lends what it knows, which is never changed, and goes on while the
	// proposal is compared.
	lent := make(chan planInput, 1)
	select {
	case d.inputRequests <- lent:
	case <-ctx.Done():
		return nil, fmt.Errorf("compare: %w", context.Cause(ctx))
	}
	changes, err := d.compare(<-lent, p, time.Now())
	if err != nil {
		return nil, err
	}
	return api.Diff{Changes: concat(changes)}, nil
}

func (d *ControlPlane) detail() string {
	_, detail := d.readiness()
	return detail
}

// compare is what would change with a proposal.
func (d *ControlPlane) compare(k planInput, p api.Proposal, now time.Time) ([]events.Event, error) {
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
	would := d.decide(k, memory, devices, is.policy, now)
	if _, err := envoy.Render(would.Topology, is.policy, d.config.Rules.DefaultService); err != nil {
		return nil, fmt.Errorf("this can't be published: %w", err)
	}
	return events.Diff(d.eventSnapshot(k.published, k.policy, k.tables), d.eventSnapshot(would.snapshot, is, k.tables)), nil
}
