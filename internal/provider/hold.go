package provider

import (
	"maps"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// Held tells of a list that is not applied yet, because it would take away too
// much at once.
type Held struct {
	// Since is when a list like it first came.
	Since time.Time `json:"since"`
	// Lists is how many of them came in a row.
	Lists int `json:"lists"`
	// Lacks is how many of the devices that serve, or did a moment ago, are
	// missing or offline in it, and Of how many those are.
	Lacks int `json:"lacks"`
	Of    int `json:"of"`
	// Reason says why it is held and what ends that.
	Reason string `json:"reason"`

	// standing is since when such lists came while our own link was up: what
	// comes while it is down proves nothing.
	standing time.Time
}

// confirm counts a further list like it.
func (h *Held) confirm(now time.Time, linkUp bool) {
	h.Lists++
	if !linkUp {
		h.standing = time.Time{}
	} else if h.standing.IsZero() {
		h.standing = now
	}
}

// stood tells whether such lists came for long enough, so at least twice.
func (h *Held) stood(now time.Time, long time.Duration) bool {
	return !h.standing.IsZero() && now.Sub(h.standing) >= long
}

// serving remembers which devices serve, and which did until lately. What a
// list lacks is counted against both, since a netmap tells of a lost region
// one peer at a time.
type serving struct {
	window time.Duration
	now    map[string]bool      // by the list in use
	gone   map[string]time.Time // within the window, and when
}

// replace notes the devices that serve by a list that is applied.
func (s *serving) replace(now time.Time, ids map[string]bool) {
	if s.gone == nil {
		s.gone = make(map[string]time.Time)
	}
	for id := range s.now {
		if !ids[id] {
			s.gone[id] = now
		}
	}
	maps.DeleteFunc(s.gone, func(id string, at time.Time) bool { return ids[id] || now.Sub(at) >= s.window })
	s.now = ids
}

// forgive forgets the devices that are gone: they were meant to go.
func (s *serving) forgive() { clear(s.gone) }

// lacks counts the serving devices that are not in ids: those of now, and all
// of the window with how many those are.
func (s *serving) lacks(now time.Time, ids map[string]bool) (ofNow, ofWindow, window int) {
	for id := range s.now {
		if !ids[id] {
			ofNow++
		}
	}
	ofWindow, window = ofNow, len(s.now)
	for id, at := range s.gone {
		if now.Sub(at) >= s.window {
			continue
		}
		window++
		if !ids[id] {
			ofWindow++
		}
	}
	return ofNow, ofWindow, window
}

// settled is the list as it will be judged once every grace is over, so that
// a mass of devices that just went offline is counted now and not when it is
// too late to hold it.
func settled(devices []topology.Device) []topology.Device {
	devices = slices.Clone(devices)
	for i := range devices {
		devices[i].OfflineSince = nil
	}
	return devices
}

// stamp sets when each offline device was first seen so, from the list before.
func stamp(devices, before []topology.Device, now time.Time) {
	known := make(map[string]*topology.Device, len(before))
	for i := range before {
		known[before[i].ID] = &before[i]
	}
	for i := range devices {
		d := &devices[i]
		d.OfflineSince = nil
		last, seen := known[d.ID]
		switch {
		case d.Online || !seen:
		case last.Online:
			d.OfflineSince = &now
		default:
			d.OfflineSince = last.OfflineSince
		}
	}
}
