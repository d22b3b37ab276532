// Package drain keeps what operators said of devices: which of them take no
// new requests, on whose word, and until when.
//
// What a book holds is bounded: see [Set.Observe]. It is pure. A [Set] is a value that can be written to disk and handed to
// another control plane; what two of them know is merged, and the later word on
// a device counts, in whatever order and however often they hear of it.
package drain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// Record is what an operator said last of one device.
type Record struct {
	// Provider is the source whose ID of the device is Device. By another
	// source's list the device is recognised by its addresses.
	Provider  string       `json:"provider"`
	Device    string       `json:"device"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	// Drain tells whether the device is drained, or was restored. A restored
	// one is remembered for those who have only heard of the drain.
	Drain bool `json:"drain"`
	// By is who said it, At when, and Until when a drain ends; zero is never.
	By    string    `json:"by"`
	At    time.Time `json:"at"`
	Until time.Time `json:"until,omitzero"`
	// MissingSince is since when this control plane knows no such device; zero if
	// it does. It is not told to others.
	MissingSince time.Time `json:"missingSince,omitzero"`
}

// ended tells whether a word says nothing any more.
func (w Record) ended(now time.Time) bool {
	if !w.Drain {
		return now.Sub(w.At) > rememberRestored
	}
	return !w.Until.IsZero() && !now.Before(w.Until)
}

// rememberRestored is for how long another control plane may be away and still
// hear that a device was restored.
const rememberRestored = 30 * 24 * time.Hour

// same tells whether two words are about one device.
func (w Record) same(o Record) bool {
	return (w.Provider == o.Provider && w.Device == o.Device) ||
		slices.ContainsFunc(w.Addresses, func(a netip.Addr) bool { return slices.Contains(o.Addresses, a) })
}

// compare orders words on one device: the greater counts. Two of the same
// moment are ordered all the same, so that everybody takes the same one: a
// drain rather than a restoration, and the longer one.
func (w Record) compare(o Record) int {
	end := func(w Record) int64 {
		switch {
		case !w.Drain:
			return 0
		case w.Until.IsZero():
			return 1<<63 - 1
		default:
			return w.Until.UnixNano()
		}
	}
	return cmp.Or(w.At.Compare(o.At), cmp.Compare(end(w), end(o)), cmp.Compare(w.By, o.By), cmp.Compare(w.Device, o.Device))
}

// Set is the last word on each device. Its zero value is empty. A Book is
// never changed: what changes it returns another.
type Set struct {
	words []Record // by At
}

// NewSet is the book of words that were written down.
func NewSet(words []Record) Set { return Set{}.Merge(words, time.Time{}) }

// Load is the book of words that were kept and are read now. Those that are dated
// ahead count as said now: the clock was wrong then, or is now. An end that no
// drain may have is none.
func Load(words []Record, now time.Time) Set {
	words = slices.Clone(words)
	for i := range words {
		w := &words[i]
		if w.At.Sub(now) > maxAhead {
			w.At = now
		}
		if !w.Until.IsZero() && w.Until.Sub(w.At) > MaxDrain {
			w.Until = time.Time{}
		}
	}
	return NewSet(words)
}

// Records are what was said, also what was taken back; the oldest first.
func (b Set) Records() []Record { return slices.Clone(b.words) }

// Empty tells whether nothing was said.
func (b Set) Empty() bool { return len(b.words) == 0 }

// Drains are the drains in force, the oldest first.
func (b Set) Drains(now time.Time) []Record {
	return slices.DeleteFunc(b.Records(), func(w Record) bool { return !w.Drain || w.ended(now) })
}

// Add adds a word that is said now. It counts as later than what the book holds
// of the device, even if another control plane's clock was ahead.
func (b Set) Add(w Record) Set {
	for _, o := range b.words {
		if w.same(o) && !w.At.After(o.At) {
			w.At = o.At.Add(time.Millisecond)
		}
	}
	return b.Merge([]Record{w}, time.Time{})
}

// Merge adds words from elsewhere, where they are later than the book's own.
// Those that have ended by now are left out.
func (b Set) Merge(words []Record, now time.Time) Set {
	x := newSlots(b.words, len(words))
	for _, w := range words {
		if !w.ended(now) || now.IsZero() {
			x.add(w)
		}
	}
	return Set{x.live()}
}

// slots are words by what they are about. A word replaces all that are the same,
// so no two have an address or an ID in common.
type slots struct {
	words    []Record
	replaced []bool
	byID     map[[2]string]int // provider and device
	byAddr   map[netip.Addr]int
}

// newSlots takes over the words of a book.
func newSlots(words []Record, more int) *slots {
	x := &slots{
		words: make([]Record, 0, len(words)+more), replaced: make([]bool, 0, len(words)+more),
		byID: make(map[[2]string]int, len(words)+more), byAddr: make(map[netip.Addr]int, len(words)+more),
	}
	for _, w := range words {
		x.put(w)
	}
	return x
}

func (x *slots) put(w Record) {
	i := len(x.words)
	x.words, x.replaced = append(x.words, w), append(x.replaced, false)
	x.byID[[2]string{w.Provider, w.Device}] = i
	for _, a := range w.Addresses {
		x.byAddr[a] = i
	}
}

// add puts a word in the place of all that are the same and older, unless one of
// them is not older.
func (x *slots) add(w Record) {
	var same []int
	see := func(i int, there bool) {
		if there && !x.replaced[i] {
			same = append(same, i)
		}
	}
	i, there := x.byID[[2]string{w.Provider, w.Device}]
	see(i, there)
	for _, a := range w.Addresses {
		i, there := x.byAddr[a]
		see(i, there)
	}
	if slices.ContainsFunc(same, func(i int) bool { return w.compare(x.words[i]) <= 0 }) {
		return
	}
	for _, i := range same {
		x.replaced[i] = true
	}
	x.put(w)
}

// live are the words that were not replaced, the oldest first.
func (x *slots) live() []Record {
	var all []Record
	for i, w := range x.words {
		if !x.replaced[i] {
			all = append(all, w)
		}
	}
	slices.SortFunc(all, Record.compare)
	return all
}

// Prune leaves out what has ended, and returns the drains among that.
func (b Set) Prune(now time.Time) (Set, []Record) {
	var kept, ended []Record
	for _, w := range b.words {
		switch {
		case !w.ended(now):
			kept = append(kept, w)
		case w.Drain:
			ended = append(ended, w)
		}
	}
	return Set{kept}, ended
}

// Equal tells whether two books say the same.
func (b Set) Equal(o Set) bool {
	return slices.EqualFunc(b.words, o.words, func(a, b Record) bool {
		return a.Provider == b.Provider && a.Device == b.Device && a.Name == b.Name && slices.Equal(a.Addresses, b.Addresses) &&
			a.Drain == b.Drain && a.By == b.By && a.At.Equal(b.At) && a.Until.Equal(b.Until) && a.MissingSince.Equal(b.MissingSince)
	})
}

// Active are the drains in force by the IDs that a provider's devices have.
func (b Set) Active(provider string, known []Device, now time.Time) map[string]topology.Drain {
	x := newIndex(provider, known)
	all := make(map[string]topology.Drain)
	for _, w := range b.Drains(now) {
		for _, id := range x.devices(w) {
			all[id] = topology.Drain{By: w.By, Until: w.Until}
		}
	}
	return all
}

// What a word may hold.
const (
	// MaxAddresses is how many addresses of a device are told.
	MaxAddresses = 8
	maxText      = 256
	// MaxDrain is how long a drain may be that has an end.
	MaxDrain = 366 * 24 * time.Hour
	// maxAhead is how far another control plane's clock may be ahead of ours.
	maxAhead = 5 * time.Minute
)

// Check tells whether a word makes sense by itself.
func (w Record) Check() error {
	for _, text := range []string{w.Provider, w.Device, w.Name, w.By} {
		if len(text) > maxText {
			return fmt.Errorf("the word on %.40q holds a text of more than %d bytes", w.Name, maxText)
		}
	}
	switch {
	case w.Device == "" || len(w.Addresses) > MaxAddresses:
		return fmt.Errorf("the word on %q names no device", w.Name)
	case slices.ContainsFunc(w.Addresses, func(a netip.Addr) bool { return !a.IsValid() }):
		return fmt.Errorf("the word on %q holds an invalid address", w.Name)
	case w.At.IsZero() || w.By == "":
		return fmt.Errorf("the word on %q does not tell who said it, and when", w.Name)
	default:
		return nil
	}
}

// CheckDates tells whether a word that comes now from elsewhere was said by now,
// and ends within a year: one that is dated ahead would count above all that is
// said here later.
func (w Record) CheckDates(now time.Time) error {
	switch {
	case w.At.Sub(now) > maxAhead:
		return fmt.Errorf("the drain of %q is dated %s, which is ahead of the clock here: set the clocks", w.Name, w.At.UTC().Format(time.RFC3339))
	case !w.Until.IsZero() && w.Until.Sub(w.At) > MaxDrain:
		return fmt.Errorf("the drain of %q lasts longer than %d days: give it no end instead", w.Name, MaxDrain/(24*time.Hour))
	default:
		return nil
	}
}
