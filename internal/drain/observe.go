package drain

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

const (
	// MaxRecords bounds a set. A tailnet of 10,000 devices hardly drains more than
	// one in ten of them by name.
	MaxRecords = 1_000
	// missingRetention is how long the record of an unknown device is kept: the list
	// may be behind, or the device away for a repair.
	missingRetention = 7 * 24 * time.Hour
)

// Observe compares the set with the devices that are known now. Records of devices
// that are missing for a week end. Of more than [MaxRecords] the records of known
// devices stay first, then drains, then the oldest; dropped counts the others.
// Before the first list devices is nil, and every device counts as known.
func (s Set) Observe(provider string, devices []Device, now time.Time) (next Set, ended []Record, dropped int) {
	x := newIndex(provider, devices)
	var kept []Record
	for _, r := range s.records {
		switch {
		case devices == nil || len(x.find(r)) > 0:
			r.MissingSince = time.Time{}
		case r.MissingSince.IsZero() || r.MissingSince.After(now): // else the clock was wrong
			r.MissingSince = now
		case now.Sub(r.MissingSince) > missingRetention:
			ended = append(ended, r)
			continue
		}
		kept = append(kept, r)
	}
	if dropped = len(kept) - MaxRecords; dropped <= 0 {
		return Set{kept}, ended, 0
	}
	slices.SortStableFunc(kept, func(a, b Record) int { return cmp.Compare(a.evictionRank(), b.evictionRank()) })
	kept = kept[:MaxRecords]
	slices.SortFunc(kept, Record.compare)
	return Set{kept}, ended, dropped
}

// evictionRank is greater for records that are dropped sooner.
func (r Record) evictionRank() int {
	rank := 0
	if !r.MissingSince.IsZero() {
		rank += 2
	}
	if !r.Drain {
		rank++
	}
	return rank
}

// Full reports whether no further known device can be drained.
func (s Set) Full(now time.Time) bool {
	drains := s.Drains(now)
	return len(drains) >= MaxRecords && !slices.ContainsFunc(drains, func(r Record) bool { return !r.MissingSince.IsZero() })
}

// Unknown returns the devices of drains in force that are none of a provider's
// devices, so that an operator can still name them.
func (s Set) Unknown(provider string, devices []Device, now time.Time) []Device {
	x := newIndex(provider, devices)
	var unknown []Device
	for _, r := range s.Drains(now) {
		if len(x.find(r)) == 0 {
			unknown = append(unknown, Device{ID: r.Device, Name: r.Name, Addresses: r.Addresses})
		}
	}
	return unknown
}

// index finds the devices of records.
type index struct {
	provider string
	ids      map[string]bool
	byAddr   map[netip.Addr][]string // IDs
}

func newIndex(provider string, devices []Device) index {
	x := index{provider, make(map[string]bool, len(devices)), make(map[netip.Addr][]string, 2*len(devices))}
	for _, d := range devices {
		x.ids[d.ID] = true
		for _, a := range d.Addresses {
			x.byAddr[a] = append(x.byAddr[a], d.ID)
		}
	}
	return x
}

// find returns the IDs of a record's devices: by its own ID in the record's
// provider, else by its addresses.
func (x index) find(r Record) []string {
	if r.Provider == x.provider && x.ids[r.Device] {
		return []string{r.Device}
	}
	var ids []string
	for _, a := range r.Addresses {
		ids = append(ids, x.byAddr[a]...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
