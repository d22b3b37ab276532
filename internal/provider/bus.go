package provider

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"tailscale.com/ipn"
)

// watchMask asks for all peers at first and for every change of one after.
const watchMask = ipn.NotifyInitialState | ipn.NotifyInitialStatus | ipn.NotifyPeerChanges | ipn.NotifyPeerPatches

const (
	// resubscribe is how soon a watch that failed begins again.
	resubscribe = 200 * time.Millisecond
	// watchFor is how long one watch lasts. The next begins with all peers
	// again, so that whatever an event did not tell is mended.
	watchFor = 10 * time.Minute
	// policyPoll is how often the node is asked whether its packet filter, its
	// share of the policy, was replaced. Since 1.102 a filter that comes
	// without peers raises no event on the bus; but it is counted.
	policyPoll = 300 * time.Millisecond
)

// filterCounter is the metric that counts filters that came without peers.
const filterCounter = "localbackend_update_packet_filter"

// errAnew ends a watch that is to begin again at once.
var errAnew = errors.New("the watch begins again")

// Watch calls wake whenever peers, tags or the policy may have changed, until
// ctx is done. A watch that ends or falls behind begins again, and wakes, since
// something may have been missed between.
func (n *netmap) Watch(ctx context.Context, wake func()) {
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { n.watchPolicy(ctx, wake) })
	beside.Go(func() { n.watchNewcomers(ctx, wake) })
	for ctx.Err() == nil {
		err := n.watchOnce(ctx, wake)
		if ctx.Err() == nil && !errors.Is(err, errAnew) {
			n.log.Debug("netmap watch ended; it begins again", "error", err)
			sleep(ctx, resubscribe)
		}
	}
}

func (n *netmap) watchOnce(ctx context.Context, wake func()) error {
	ctx, cancel := context.WithTimeoutCause(ctx, watchFor, errAnew)
	defer cancel()
	bus, err := n.local.WatchIPNBus(ctx, watchMask)
	if err != nil {
		return fmt.Errorf("watch the netmap: %w", err)
	}
	defer func() { _ = bus.Close() }()
	defer n.watched.Store(false)
	defer n.peers.lose()
	defer n.self.forget()
	for {
		event, err := bus.Next()
		switch {
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case err != nil:
			return fmt.Errorf("watch the netmap: %w", err)
		case event.ErrMessage != nil:
			return fmt.Errorf("watch the netmap: %s", *event.ErrMessage)
		case event.InitialStatus != nil:
			n.peers.begin(event.InitialStatus)
			n.self.keep(event.InitialStatus)
			// Counted here, a filter that came with this netmap, or just before it,
			// is not found a moment later.
			n.countFilters(ctx)
			n.policy.Add(1)
			n.watched.Store(true)
			n.tellNewcomers()
			wake()
		case event.SelfChange != nil && event.PeersChanged == nil:
			// A whole new netmap that does not say which peers are gone.
			return errAnew
		case event.SelfChange != nil:
			n.follow(ctx, &event, wake)
		case n.peers.follow(&event) || event.State != nil:
			if event.State != nil {
				n.self.forget()
			}
			n.tellNewcomers()
			wake()
		}
	}
}

// follow takes a whole new netmap, which SelfChange comes with. The node tells of
// it before it has configured itself by it, and until it has, for some
// milliseconds, it tells nobody its status; so none is asked for.
func (n *netmap) follow(ctx context.Context, event *ipn.Notify, wake func()) {
	if !n.LinkUp() {
		n.self.forget() // it may be up again by this netmap
	}
	// First, so that a device is never listed by the grants of before.
	policy := n.policyChanged(func() (packetFilter, error) { return n.grants.wholeFilter(ctx, event.SelfChange) })
	changed := n.peers.replace(event.PeersChanged)
	n.tellNewcomers()
	if changed || policy {
		wake()
	}
}

// watchPolicy wakes when the policy may have changed since the filters were
// counted last, and when the link to the coordination server came or went.
func (n *netmap) watchPolicy(ctx context.Context, wake func()) {
	tick := time.NewTicker(policyPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		policy, link := n.countFilters(ctx), n.linkChanged(ctx)
		if policy || link {
			wake()
		}
	}
}

// linkChanged asks the node, and tells whether its link to the coordination server
// came or went.
func (n *netmap) linkChanged(ctx context.Context) bool {
	status, err := n.self.ask(ctx, n.local.StatusWithoutPeers)
	if err != nil || status == nil || status.Self == nil {
		return false // a node that does not answer is the list's to complain of
	}
	down := !status.Self.Online
	return n.down.Swap(down) != down
}

// countFilters counts anew, and tells whether the policy has changed since.
func (n *netmap) countFilters(ctx context.Context) bool {
	count, err := n.filterCount(ctx)
	if err != nil {
		return false // a node that does not answer is the list's to complain of
	}
	if last := n.filters.Swap(&count); last != nil && *last == count {
		return false
	}
	return n.policyChanged(func() (packetFilter, error) { return n.grants.liveFilter(ctx) })
}

// policyChanged reads the policy, and tells whether it is another than the last
// that was read, or can't be read. The version rises after that, so that who reads
// the policy by the new version sees at least what was read here.
func (n *netmap) policyChanged(read func() (packetFilter, error)) bool {
	n.reading.Lock() // what is read later is compared later
	defer n.reading.Unlock()
	var text []byte // as JSON, the same looks the same however the node wrote it
	now, err := read()
	if err == nil {
		text, err = json.Marshal(now)
	}
	if err == nil && string(text) == n.read {
		return false
	}
	n.read = string(text)
	n.policy.Add(1)
	return true
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

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
