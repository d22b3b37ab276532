package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/tailxds/tailxds/integration/engine"
)

const headscaleBinary = "/ko-app/headscale"

// Headscale runs one of headscale's own commands in its container.
func (l *Lab) Headscale(ctx context.Context, command ...string) (string, error) {
	return engine.Exec(ctx, l.Container("headscale"), append([]string{headscaleBinary}, command...)...)
}

// Node is a device as headscale lists it.
type Node struct {
	ID        int      `json:"id"`
	Name      string   `json:"given_name"`
	Addresses []string `json:"ip_addresses"`
	Tags      []string `json:"tags"`
	Online    bool     `json:"online"`
}

// Node finds a device by its name.
func (l *Lab) Node(ctx context.Context, name string) (Node, error) {
	output, err := l.Headscale(ctx, "nodes", "list", "--output", "json")
	if err != nil {
		return Node{}, err
	}
	var nodes []Node
	if err := json.Unmarshal([]byte(output), &nodes); err != nil {
		return Node{}, fmt.Errorf("reading headscale's nodes: %w", err)
	}
	for _, node := range nodes {
		if node.Name == name {
			return node, nil
		}
	}
	return Node{}, fmt.Errorf("headscale lists no node %s: %s", name, output)
}

// SetTags replaces a device's tags by headscale's API.
func (l *Lab) SetTags(ctx context.Context, node Node, tags ...string) error {
	_, err := l.Headscale(ctx, "nodes", "tag", "--identifier", strconv.Itoa(node.ID), "--tags", strings.Join(tags, ","))
	return err
}
