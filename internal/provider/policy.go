package provider

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// policyPoll is how often the node is asked whether its packet filter, its
// share of the policy, was replaced. Since 1.102 a filter that comes without
// peers raises no event on the bus; but it is counted.
const policyPoll = 300 * time.Millisecond

// filterCounter is the metric that counts filters that came without peers.
const filterCounter = "localbackend_update_packet_filter"

// watchPolicy counts and wakes when the policy may have changed, and when the
// link to the coordination server came or went.
func (n *netmap) watchPolicy(ctx context.Context, wake func()) {
	tick := time.NewTicker(policyPoll)
	defer tick.Stop()
	last, linkUp := "", n.LinkUp()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		count, err := n.filterCount(ctx)
		if err != nil {
			continue // the list says what is wrong with the node
		}
		if count != last && last != "" {
			n.policy.Add(1)
			wake()
		}
		last = count
		if status, err := n.local.StatusWithoutPeers(ctx); err == nil && status.Self != nil && status.Self.Online != linkUp {
			linkUp = status.Self.Online
			n.down.Store(!linkUp)
			wake()
		}
	}
}

// filterCount is how many filters came, as the metric writes it.
func (n *netmap) filterCount(ctx context.Context) (string, error) {
	text, err := n.local.DaemonMetrics(ctx)
	if err != nil {
		return "", fmt.Errorf("read the node's metrics: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if count, ok := strings.CutPrefix(lines.Text(), filterCounter+" "); ok {
			return count, nil
		}
	}
	return "", errors.New("the node's metrics have no " + filterCounter)
}
