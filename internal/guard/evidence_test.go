package guard

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestDecide_envoyIsConnected_deviceStays(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 4)
	w.list(0, all)
	for n := range 3 {
		w.stream[netip.MustParseAddr(fmt.Sprintf("100.64.0.%d", n+1))] = true
	}
	w.every(5*time.Minute, append(off(all[1:2], 2), all[3])) // 1 and 3 are missing, 2 is offline
	w.want("s", "1 2 3 4")
	if len(w.last.Held) != 0 || len(w.last.Problems) != 3 {
		t.Errorf("held %+v, problems %+v", w.last.Held, w.last.Problems)
	}
	for _, p := range w.last.Problems {
		if !strings.Contains(p.Reason, "its own Envoy is connected") {
			t.Errorf("problem %+v", p)
		}
	}
	// What a device says of itself is believed.
	w.list(time.Second, retag(all, nil, 2))
	w.want("s", "1 3 4")
	// A witness that leaves takes its word along, when it has had time to come again.
	w.list(time.Second, retag(all, nil, 2)[1:])
	clear(w.stream)
	w.list(grace-time.Second, retag(all, nil, 2)[1:])
	w.want("s", "1 3 4")
	if p := w.last.Problems; len(p) != 1 || !strings.Contains(p[0].Reason, "its own Envoy was connected") {
		t.Errorf("problems %+v", p)
	}
	if want := w.now.Add(time.Second); !w.last.Topology.Next.Equal(want) {
		t.Errorf("judged again at %v, want %v", w.last.Topology.Next, want)
	}
	w.list(time.Second, retag(all, nil, 2)[1:])
	w.want("s", "3 4")
}

// Envoys connect again after a restart, but not at once.
func TestDecide_restart_envoyMayReconnect(t *testing.T) {
	for name, jump := range map[string]time.Duration{"short": time.Second, "long": 24 * time.Hour, "with the clock set back": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			all := fleet("s", 4)
			w.list(0, all)
			w.stream[netip.MustParseAddr("100.64.0.1")], w.stream[netip.MustParseAddr("100.64.0.2")] = true, true
			w.every(time.Minute, off(all[1:], 2)) // 1 is missing, 2 is offline
			w.want("s", "1 2 3 4")
			before := w.m
			w.list(time.Second, off(all[1:], 2))
			if !w.m.EqualExceptTimes(before) {
				t.Error("only time has passed")
			}

			w.restart()
			clear(w.stream)
			w.now = w.now.Add(jump)
			w.streams = w.now
			w.healthy = w.now
			w.list(31*time.Second, off(all[1:], 2)) // Envoy waits for up to 30 s
			w.want("s", "1 2 3 4")
			w.list(returnGrace-32*time.Second, off(all[1:], 2))
			w.want("s", "1 2 3 4")
			w.stream[netip.MustParseAddr("100.64.0.2")] = true // it is back
			w.list(time.Second, off(all[1:], 2))
			w.want("s", "2 3 4")
			if w.m.EqualExceptTimes(before) {
				t.Error("a witness that is gone is no passing of time")
			}
		})
	}
}

func TestDecide_newID_confirmationIsKept(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 3)
	w.list(0, all)
	w.stream[netip.MustParseAddr("100.64.0.1")] = true
	w.every(time.Minute, off(all, 1))
	clear(w.stream)
	w.provider = "netmap"
	other := off(fleet("s", 3), 1)
	for i := range other {
		other[i].ID = fmt.Sprintf("n%d", i+1)
	}
	w.list(time.Second, other)
	w.want("s", "n1 n2 n3")
	w.list(grace, other)
	w.want("s", "n2 n3")
}
