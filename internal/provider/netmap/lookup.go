package netmap

import (
	"context"
	"time"

	"tailscale.com/tailcfg"
)

// The look-up of pending peers: the bus announces neither a relay nor an address.
const (
	// settleTime is how long a peer has announced how to reach it before it counts as
	// reachable: it is still connecting to its relay, and the other devices are still
	// learning of it.
	settleTime = 250 * time.Millisecond
	// lookUpInterval is the first pause between look-ups, and maxLookUpInterval the
	// longest.
	lookUpInterval, maxLookUpInterval = 50 * time.Millisecond, 500 * time.Millisecond
	// maxPendingTime is when a peer that has announced nothing counts as reachable.
	maxPendingTime = 10 * time.Second
)

// notifyPending starts the look-ups, if any peer is pending.
func (n *Node) notifyPending() {
	if len(n.peers.pendingIDs()) == 0 {
		return
	}
	select {
	case n.pendingAdded <- struct{}{}:
	default: // it is already notified
	}
}

// watchPending looks pending peers up until they can be reached, and wakes then.
func (n *Node) watchPending(ctx context.Context, wake func()) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-n.pendingAdded:
			n.lookUpPending(ctx, wake)
		}
	}
}

// lookUpPending looks the pending peers up until there are none.
func (n *Node) lookUpPending(ctx context.Context, wake func()) {
	waits := map[tailcfg.NodeID]wait{}
	for pause := lookUpInterval; ; pause = min(pause*5/4, maxLookUpInterval) {
		pending := n.peers.pendingIDs()
		if len(pending) == 0 {
			return
		}
		// A peer that left is forgotten, and waits anew when it joins again.
		before := waits
		waits = make(map[tailcfg.NodeID]wait, len(pending))
		for _, id := range pending {
			w, known := before[id]
			if !known {
				w.began = time.Now()
			}
			node, err := n.local.PeerByID(ctx, id)
			if ctx.Err() != nil {
				return
			}
			if err == nil && w.announced.IsZero() && reachable(node) {
				w.announced = time.Now()
			}
			waits[id] = w
			// A peer that can't be looked up does not wait.
			if (err != nil || w.over(time.Now())) && n.peers.markReachable(id) {
				wake()
			}
		}
		sleep(ctx, pause)
	}
}

// wait is since when a peer is looked up, and since when it has announced how to
// reach it.
type wait struct{ began, announced time.Time }

// over reports whether the peer counts as reachable.
func (w wait) over(now time.Time) bool {
	settled := !w.announced.IsZero() && now.Sub(w.announced) >= settleTime
	return settled || now.Sub(w.began) >= maxPendingTime
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
