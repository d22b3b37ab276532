package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tailxds/tailxds/internal/journal"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/xds"
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
	Changes []journal.Change `json:"changes"`
}

// diff answers what a proposal would change. All of it is judged as if it were so
// now: what the guard would hold is told as held.
func (d *daemon) diff(ctx context.Context, body io.Reader) (any, error) {
	var t proposal
	if err := json.NewDecoder(body).Decode(&t); err != nil {
		return nil, fmt.Errorf("read what to compare: %w", err)
	}
	if !d.started() || d.published.Load() == nil {
		return nil, errors.New("nothing is served yet that could be compared: " + d.detail())
	}
	type answer struct {
		changes []journal.Change
		err     error
	}
	answers := make(chan answer, 1)
	try := func() {
		changes, err := d.try(t, time.Now())
		answers <- answer{changes, err}
	}
	select {
	case d.proposals <- try:
		a := <-answers
		return diffDocument{joined(a.changes)}, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("compare: %w", context.Cause(ctx))
	}
}

func (d *daemon) detail() string {
	_, detail := d.readiness()
	return detail
}

// try is what would change. Only the loop calls it.
func (d *daemon) try(t proposal, now time.Time) ([]journal.Change, error) {
	was := *d.policy.Load()
	if was.unfit != "" && d.good != nil {
		was = *d.good
	}
	is := was
	if t.Policy != nil {
		var err error
		if is, err = parsePolicy("policy", *t.Policy); err != nil {
			return nil, err
		}
	}
	list := d.list
	if t.Devices != nil {
		list.Devices, list.At = t.Devices, now
	}
	memory, devices := d.memory.Observe(list)
	would, err := d.verdict(memory, list, devices, is.policy, now)
	if err != nil {
		return nil, err
	}
	if _, err := xds.Render(would.Topology, is.policy, d.o.DefaultService); err != nil {
		return nil, fmt.Errorf("this can't be published: %w", err)
	}
	return journal.Diff(d.situation(d.published.Load(), was), d.situation(would.snapshot, is)), nil
}
