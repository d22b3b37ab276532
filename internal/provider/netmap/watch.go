package netmap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tailscale.com/ipn"
)

const (
	// retryDelay is how long a watch that failed waits until it begins again.
	retryDelay = 200 * time.Millisecond
	// maxWatchTime is how long one watch lasts. The next begins with all peers
	// again, which fixes what an event did not say.
	maxWatchTime = 10 * time.Minute
)

// errRestart ends a watch that is to begin again at once.
var errRestart = errors.New("the watch begins again")

// Watch calls wake whenever peers, tags or the policy may have changed, until
// ctx is done. A watch that ends or falls behind begins again, and wakes, since
// it may have missed something.
func (n *Node) Watch(ctx context.Context, wake func()) {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { n.watchPolicy(ctx, wake) })
	group.Go(func() { n.watchPending(ctx, wake) })
	for ctx.Err() == nil {
		err := n.watchOnce(ctx, wake)
		if ctx.Err() == nil && !errors.Is(err, errRestart) {
			n.log.Debug("netmap watch ended; it begins again", "error", err)
			sleep(ctx, retryDelay)
		}
	}
}

// watchOnce follows the node's bus until it ends.
func (n *Node) watchOnce(ctx context.Context, wake func()) error {
	ctx, cancel := context.WithTimeoutCause(ctx, maxWatchTime, errRestart)
	defer cancel()
	bus, err := n.local.WatchIPNBus(ctx, watchMask)
	if err != nil {
		return fmt.Errorf("watch the netmap: %w", err)
	}
	defer func() { _ = bus.Close() }()
	defer n.watched.Store(false)
	defer n.peers.stop()
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
			n.peers.start(event.InitialStatus)
			n.self.set(event.InitialStatus)
			// Counted here, a filter that came with this netmap, or just before it,
			// does not count as new a moment later.
			n.filtersChanged(ctx)
			n.policy.version.Add(1)
			n.watched.Store(true)
			n.notifyPending()
			wake()
		case event.SelfChange != nil && event.PeersChanged == nil:
			// A whole new netmap that does not say which peers are gone.
			return errRestart
		case event.SelfChange != nil:
			n.applyNetmap(ctx, &event, wake)
		case n.peers.apply(&event) || event.State != nil:
			if event.State != nil {
				n.self.forget()
			}
			n.notifyPending()
			wake()
		}
	}
}

// applyNetmap takes a whole new netmap, which SelfChange comes with. The node
// announces it before it has configured itself by it; until then, for some
// milliseconds, it answers no question for its status, so none is asked.
func (n *Node) applyNetmap(ctx context.Context, event *ipn.Notify, wake func()) {
	if !n.LinkUp() {
		n.self.forget() // this netmap may bring it up again
	}
	// First, so that a device is never listed with the grants of before.
	policy := n.policy.changed(func() (packetFilter, error) { return netmapFilter(ctx, n.local, event.SelfChange) })
	changed := n.peers.replace(event.PeersChanged)
	n.notifyPending()
	if changed || policy {
		wake()
	}
}

// watchPolicy wakes when the policy may have changed, and when the link to the
// coordination server came or went.
func (n *Node) watchPolicy(ctx context.Context, wake func()) {
	tick := time.NewTicker(policyInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		policy, link := n.filtersChanged(ctx), n.linkChanged(ctx)
		if policy || link {
			wake()
		}
	}
}

// linkChanged asks the node, and reports whether its link to the coordination
// server came or went.
func (n *Node) linkChanged(ctx context.Context) bool {
	status, err := n.self.refresh(ctx, n.local.StatusWithoutPeers)
	if err != nil || status == nil || status.Self == nil {
		return false // List reports a node that does not answer
	}
	down := !status.Self.Online
	return n.linkDown.Swap(down) != down
}

// filtersChanged counts the node's packet filters, and reports whether another one
// came since the last count that changes the policy.
func (n *Node) filtersChanged(ctx context.Context) bool {
	count, err := countFilters(ctx, n.local)
	if err != nil {
		return false // List reports a node that does not answer
	}
	if !n.policy.counted(count) {
		return false
	}
	return n.policy.changed(func() (packetFilter, error) { return currentFilter(ctx, n.local) })
}
