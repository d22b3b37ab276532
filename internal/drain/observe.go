package drain

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

const (
	// MaxRecords bounds the words of a book, and maxMissing those among them that are
	// about devices which this control plane does not know. More than one device in
	// ten is not drained by name in a tailnet of 10,000.
	MaxRecords = 1_000
	maxMissing = 100
	// forgetMissing is how long a word is kept about a device that is not known: its
	// list may be behind, or the device away for a repair.
	forgetMissing = 7 * 24 * time.Hour
)

// Observe compares the book with the devices that are known now. Words on unknown
// devices end after a week. Where there are more words than are kept, those on
// known devices stay before others, drains before restorations, and of those the
// oldest; dropped is how many went for that. While no list has come, known is nil,
// and every device counts as known.
func (b Set) Observe(provider string, known []Device, now time.Time) (next Set, ended []Record, dropped int) {
	if len(b.words) == 0 {
		return b, nil, 0
	}
	x := newIndex(provider, known)
	kept := make([]Record, 0, len(b.words))
	for _, w := range b.words {
		switch {
		case known == nil || len(x.devices(w)) > 0:
			w.MissingSince = time.Time{}
		case w.MissingSince.IsZero() || w.MissingSince.After(now): // else the clock was wrong
			w.MissingSince = now
		case now.Sub(w.MissingSince) > forgetMissing:
			ended = append(ended, w)
			continue
		}
		kept = append(kept, w)
	}
	all := len(kept)
	slices.SortStableFunc(kept, func(a, b Record) int { return cmp.Compare(a.rank(), b.rank()) })
	firstMissing := len(kept)
	if i := slices.IndexFunc(kept, func(w Record) bool { return !w.MissingSince.IsZero() }); i >= 0 {
		firstMissing = i
	}
	kept = kept[:min(len(kept), firstMissing+maxMissing, MaxRecords)]
	slices.SortFunc(kept, Record.compare)
	return Set{kept}, ended, all - len(kept)
}

// rank orders words by how much they are worth keeping, the most first.
func (w Record) rank() int {
	rank := 0
	if !w.MissingSince.IsZero() {
		rank += 2
	}
	if !w.Drain {
		rank++
	}
	return rank
}

// Full tells whether no further device that is known can be drained.
func (b Set) Full(now time.Time) bool {
	known := 0
	for _, w := range b.words {
		if w.Drain && !w.ended(now) && w.MissingSince.IsZero() {
			known++
		}
	}
	return known >= MaxRecords
}

// index finds the devices that words are about.
type index struct {
	provider string
	ids      map[string]bool
	byAddr   map[netip.Addr][]string // IDs
}

func newIndex(provider string, known []Device) index {
	x := index{provider, make(map[string]bool, len(known)), make(map[netip.Addr][]string, 2*len(known))}
	for _, d := range known {
		x.ids[d.ID] = true
		for _, a := range d.Addresses {
			x.byAddr[a] = append(x.byAddr[a], d.ID)
		}
	}
	return x
}

// devices are the IDs of those that a word is about: by its ID, or by another
// source's list by its addresses.
func (x index) devices(w Record) []string {
	if w.Provider == x.provider && x.ids[w.Device] {
		return []string{w.Device}
	}
	var all []string
	for _, a := range w.Addresses {
		for _, id := range x.byAddr[a] {
			if !slices.Contains(all, id) {
				all = append(all, id)
			}
		}
	}
	return all
}

// Unknown are the drains in force of which none of the devices is the one, for
// those who look for a device by name.
func (b Set) Unknown(known []Device, now time.Time) []Device {
	ids, addresses := make(map[string]bool, len(known)), make(map[netip.Addr]bool, 2*len(known))
	for _, d := range known {
		ids[d.ID] = true
		for _, a := range d.Addresses {
			addresses[a] = true
		}
	}
	var all []Device
	for _, w := range b.Drains(now) {
		if !ids[w.Device] && !slices.ContainsFunc(w.Addresses, func(a netip.Addr) bool { return addresses[a] }) {
			all = append(all, Device{ID: w.Device, Name: w.Name, Addresses: w.Addresses})
		}
	}
	return all
}
