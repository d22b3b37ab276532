// Package events keeps recent changes: of weights and states, of what was held and
// accepted, of Envoys that connected, disconnected and rejected resources, of the
// policy and of problems, and which person caused them.
//
// It is pure: [Diff] returns the events between two snapshots, and a [Log] is a
// bounded list of events.
package events

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// Kind is the kind of an event.
type Kind string

// The kinds of events.
const (
	Started           Kind = "started"   // the control plane
	Added             Kind = "added"     // an endpoint, that serves or is idle
	Removed           Kind = "removed"   // an endpoint
	Weight            Kind = "weight"    // of an endpoint
	Moved             Kind = "moved"     // an endpoint's region, zone or priority
	State             Kind = "state"     // of an endpoint: serving, drained, offline, …
	Service           Kind = "service"   // came or went, or nobody serves it
	Held              Kind = "held"      // an endpoint is published against the list
	Released          Kind = "released"  // and is no more
	Problem           Kind = "problem"   // something is ignored, or wrong
	Fixed             Kind = "mended"    // a problem that was
	EnvoyConnected    Kind = "came"      // Envoys connected
	EnvoyDisconnected Kind = "went"      // Envoys left
	Rejected          Kind = "rejected"  // an Envoy rejected resources
	Recovered         Kind = "recovered" // and took them
	Policy            Kind = "policy"    // was edited
	Accepted          Kind = "accepted"  // a person let through what was held
	Drain             Kind = "drain"     // a person's word on a device
	Restore           Kind = "restore"   // and its end
)

// Event is one change.
type Event struct {
	// ID counts up; it is unique in a process.
	ID uint64    `json:"id,omitzero"`
	At time.Time `json:"at,omitzero"`
	// Kind is what it is about, and Text describes it in a sentence.
	Kind Kind   `json:"kind"`
	Text string `json:"text"`
	// Service, Device (an ID) and Name (of the device) are its subject; each may be
	// empty.
	Service string `json:"service,omitempty"`
	Device  string `json:"device,omitempty"`
	Name    string `json:"name,omitempty"`
	// Key is the changed value of an endpoint or a policy. From and To are its values
	// before and after.
	Key  string `json:"key,omitempty"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// By is the person who caused it, if one did.
	By string `json:"by,omitempty"`
	// Rollout is how far Envoys are with a publication.
	Rollout *Rollout `json:"reach,omitempty"`

	// endpoint is the one that was added, removed or changed, as it was before if it
	// existed.
	endpoint topology.Endpoint
	nth      int // of those with the same service, device and address

	publication uint64 // by which Envoys were told; 0 is none
}

// Rollout is how far Envoys are with a publication.
type Rollout struct {
	// Sent is how many Envoys were sent something, and Acked how many of them have all
	// of it. Rejected is how many rejected a part.
	Sent     int `json:"told"`
	Acked    int `json:"acked"`
	Rejected int `json:"rejected,omitempty"`
	// Millis is when the last of them had it, after the publication.
	Millis float64 `json:"millis"`
}

// String is "on 12 of 12 Envoys after 0.31 s".
func (r Rollout) String() string {
	s := fmt.Sprintf("on %d of %d Envoys after %.2f s", r.Acked, r.Sent, r.Millis/1000)
	if r.Rejected > 0 {
		s += fmt.Sprintf(", rejected by %d", r.Rejected)
	}
	return s
}

const (
	// retention is how long events are kept, and minKept how many stay whatever their
	// age.
	retention = 15 * time.Minute
	minKept   = 50
	// maxKept bounds all events, and maxOfOne those of one device or Envoy: one that
	// comes and goes all the time leaves room for others.
	maxKept  = 2_000
	maxOfOne = 100
	// maxText bounds each text, since problems quote what others wrote.
	maxText = 500
)

// Log holds recent events. Its zero value is empty.
type Log struct {
	mu     sync.Mutex
	events []Event // the oldest first
	lastID uint64  // ID
}

// Add adds events of a time, and the number of the publication that they caused, for
// [Log.SetRollout]; 0 if they caused none.
func (l *Log) Add(at time.Time, publication uint64, changes ...Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range changes {
		l.lastID++
		c.ID, c.At, c.publication = l.lastID, at, publication
		for _, text := range []*string{&c.Text, &c.From, &c.To, &c.Service, &c.Device, &c.Name, &c.Key, &c.By} {
			*text = truncate(*text)
		}
		l.events = append(l.events, c)
	}
	l.expire(at)
}

func truncate(s string) string {
	if r := []rune(s); len(r) > maxText {
		return string(r[:maxText]) + "…"
	}
	return s
}

// expire drops events that are too old or too many.
func (l *Log) expire(now time.Time) {
	n := max(0, len(l.events)-maxKept)
	for n < len(l.events)-minKept && now.Sub(l.events[n].At) > retention {
		n++
	}
	l.events = slices.Delete(l.events, 0, n)
	of := make(map[string]int)
	for _, c := range l.events {
		of[c.subject()]++
	}
	l.events = slices.DeleteFunc(l.events, func(c Event) bool { // the oldest first
		whose := c.subject()
		if whose == "" || of[whose] <= maxOfOne {
			return false
		}
		of[whose]--
		return true
	})
}

// subject returns the device that an event is about; empty if there is none.
func (c Event) subject() string { return cmp.Or(c.Device, c.Name) }

// SetRollout records how far Envoys are with a publication.
func (l *Log) SetRollout(publication uint64, r Rollout) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if publication == 0 || r.Sent == 0 {
		return
	}
	for i := len(l.events) - 1; i >= 0; i-- {
		c := &l.events[i]
		switch {
		case c.publication == 0:
		case c.publication < publication:
			return
		case c.publication == publication && c.hasRollout():
			c.Rollout = &r
		}
	}
}

// hasRollout reports whether such a change is sent to Envoys.
func (c Event) hasRollout() bool {
	switch c.Kind {
	case Added, Removed, Weight, Moved, State, Released, Policy:
		return true
	default:
		return false
	}
}

// Recent returns the events that are kept, the newest first.
func (l *Log) Recent(now time.Time) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(now)
	all := slices.Clone(l.events)
	slices.Reverse(all)
	return all
}
