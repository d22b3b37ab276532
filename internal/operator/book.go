// Package operator keeps what operators said of devices: which of them take no
// new requests, on whose word, and until when.
//
// It is pure. A [Book] is a value that can be written to disk and handed to
// another control plane; what two of them know is merged, and the later word on
// a device counts, in whatever order and however often they hear of it.
package operator

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// Word is what an operator said last of one device.
type Word struct {
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
}

// ended tells whether a word says nothing any more.
func (w Word) ended(now time.Time) bool {
	if !w.Drain {
		return now.Sub(w.At) > rememberRestored
	}
	return !w.Until.IsZero() && !now.Before(w.Until)
}

// rememberRestored is for how long another control plane may be away and still
// hear that a device was restored.
const rememberRestored = 30 * 24 * time.Hour

// same tells whether two words are about one device.
func (w Word) same(o Word) bool {
	return (w.Provider == o.Provider && w.Device == o.Device) ||
		slices.ContainsFunc(w.Addresses, func(a netip.Addr) bool { return slices.Contains(o.Addresses, a) })
}

// compare orders words on one device: the greater counts. Two of the same
// moment are ordered all the same, so that everybody takes the same one: a
// drain rather than a restoration, and the longer one.
func (w Word) compare(o Word) int {
	end := func(w Word) int64 {
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

// Book is the last word on each device. Its zero value is empty. A Book is
// never changed: what changes it returns another.
type Book struct {
	words []Word // by At
}

// NewBook is the book of words that were written down.
func NewBook(words []Word) Book { return Book{}.Merge(words, time.Time{}) }

// Words are what was said, also what was taken back; the oldest first.
func (b Book) Words() []Word { return slices.Clone(b.words) }

// Drains are the drains in force, the oldest first.
func (b Book) Drains(now time.Time) []Word {
	return slices.DeleteFunc(b.Words(), func(w Word) bool { return !w.Drain || w.ended(now) })
}

// Say adds a word that is said now. It counts as later than what the book holds
// of the device, even if another control plane's clock was ahead.
func (b Book) Say(w Word) Book {
	for _, o := range b.words {
		if w.same(o) && !w.At.After(o.At) {
			w.At = o.At.Add(time.Millisecond)
		}
	}
	return b.Merge([]Word{w}, time.Time{})
}

// Merge adds words from elsewhere, where they are later than the book's own.
// Those that have ended by now are left out.
func (b Book) Merge(words []Word, now time.Time) Book {
	next := slices.Clone(b.words)
	for _, w := range words {
		if w.ended(now) && !now.IsZero() {
			continue
		}
		later := slices.ContainsFunc(next, func(o Word) bool { return w.same(o) && w.compare(o) <= 0 })
		if !later {
			next = append(slices.DeleteFunc(next, w.same), w)
		}
	}
	slices.SortFunc(next, Word.compare)
	return Book{next}
}

// Prune leaves out what has ended, and returns the drains among that.
func (b Book) Prune(now time.Time) (Book, []Word) {
	var kept, ended []Word
	for _, w := range b.words {
		switch {
		case !w.ended(now):
			kept = append(kept, w)
		case w.Drain:
			ended = append(ended, w)
		}
	}
	return Book{kept}, ended
}

// Equal tells whether two books say the same.
func (b Book) Equal(o Book) bool {
	return slices.EqualFunc(b.words, o.words, func(a, b Word) bool {
		return a.Provider == b.Provider && a.Device == b.Device && a.Name == b.Name && slices.Equal(a.Addresses, b.Addresses) &&
			a.Drain == b.Drain && a.By == b.By && a.At.Equal(b.At) && a.Until.Equal(b.Until)
	})
}

// InForce are the drains in force by the IDs that a provider's devices have.
func (b Book) InForce(provider string, known []Device, now time.Time) map[string]topology.Drain {
	ids := make(map[string]bool, len(known))
	for _, d := range known {
		ids[d.ID] = true
	}
	all := make(map[string]topology.Drain)
	for _, w := range b.Drains(now) {
		drain := topology.Drain{By: w.By, Until: w.Until}
		if w.Provider == provider && ids[w.Device] {
			all[w.Device] = drain
			continue
		}
		for _, d := range known {
			if w.same(Word{Addresses: d.Addresses}) {
				all[d.ID] = drain
			}
		}
	}
	return all
}

// What a word may hold.
const (
	// MaxAddresses is how many addresses of a device are told.
	MaxAddresses = 8
	maxText      = 256
)

// Check tells whether a word that comes from elsewhere makes sense.
func (w Word) Check() error {
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
