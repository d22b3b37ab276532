package provider

import (
	"context"

	"github.com/tailxds/tailxds/internal/topology"
)

// Node is the control plane's own node on the tailnet, a source by itself. Package
// netmap implements it.
type Node interface {
	Source
	// Watch calls wake whenever peers or their grants may have changed, until ctx is
	// done. wake never blocks.
	Watch(ctx context.Context, wake func())
	// LinkUp reports whether the node is in touch with the coordination server.
	LinkUp() bool
	// AddGrants sets the grants of devices that another source listed, and marks
	// those as offline that no other device can reach yet.
	AddGrants(ctx context.Context, devices []topology.Device) error
}

// WithGrants adds the grants that the node sees to the devices of another source,
// and lets the node wake it.
func WithGrants(src Source, node Node) Source { return granted{src, node} }

type granted struct {
	src  Source
	node Node
}

// List adds grants to what the source lists.
func (g granted) List(ctx context.Context) ([]topology.Device, error) {
	devices, err := g.src.List(ctx)
	if err != nil {
		return nil, err // the source says what failed
	}
	if err := g.node.AddGrants(ctx, devices); err != nil {
		return nil, err // so does the node
	}
	return devices, nil
}

// LinkUp is the node's.
func (g granted) LinkUp() bool { return g.node.LinkUp() }

// Watch watches the node, and the source too if it can be watched.
func (g granted) Watch(ctx context.Context, wake func()) { watchAll(ctx, wake, g.node, g.src) }
