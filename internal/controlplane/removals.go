package controlplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/input"
)

// acceptRequest asks to let through what is held.
type acceptRequest struct {
	service string // empty means all
	by      string
	answer  chan error
}

// accept lets through what is held of a service, or of all if it is empty. It
// returns once that is published.
func (c *ControlPlane) accept(ctx context.Context, service, by string) error {
	a := acceptRequest{service, by, make(chan error, 1)}
	select {
	case c.accepts <- a:
		return <-a.answer
	case <-ctx.Done():
		return fmt.Errorf("accept: %w", context.Cause(ctx))
	}
}

// acceptRemovals lets through what is held, with the next publication.
func (c *ControlPlane) acceptRemovals(service, by string) error {
	if names := c.serviceNames(); service != "" && !slices.Contains(names, service) {
		return input.UnknownName("service", service, names)
	}
	memory, services, err := c.memory.Accept(service)
	if service == "" && c.lost.Swap(nil) != nil {
		c.log.Warn("an operator accepted that the saved state was lost", "by", by)
		if errors.Is(err, guard.ErrNothingHeld) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	c.log.Warn("what was held is let through by an operator", "services", services)
	for _, name := range services {
		c.events.Add(time.Now(), 0, events.Event{Kind: events.Accepted, Service: name, Text: "what was held of " + name + " is let through by an operator", By: by})
	}
	c.memory = memory
	return nil
}

// serviceNames are the services that are published or remembered.
func (c *ControlPlane) serviceNames() []string {
	names := slices.Collect(maps.Keys(c.memory.Services))
	if p := c.published.Load(); p != nil {
		for _, s := range p.topology.Services {
			names = append(names, s.Name)
		}
	}
	return names
}
