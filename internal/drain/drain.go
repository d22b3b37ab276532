// Package drain keeps operators' drains: which devices take no new requests, who
// drained them, and until when.
//
// It is pure. A [Set] is a value that can be saved and sent to another control
// plane. Sets merge: of two records of one device the later counts, in whatever
// order and however often they arrive, so control planes that have seen the same
// records agree. [Set.Observe] bounds a set.
package drain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

const (
	// MaxAddresses bounds the addresses of a record.
	MaxAddresses = 8
	// MaxDrain is the longest duration of a drain that ends by itself.
	MaxDrain = 366 * 24 * time.Hour

	maxText = 256
	// maxClockSkew is how far another control plane's clock may be ahead.
	maxClockSkew = 5 * time.Minute
	// restoreRetention is how long a restoration is kept. A control plane that was
	// away for longer brings an old drain back.
	restoreRetention = 30 * 24 * time.Hour
)

// Record is an operator's last action on one device.
type Record struct {
	// Provider is the source in which Device is the device's ID. In the list of
	// another source the device is found by its addresses.
	Provider  string       `json:"provider"`
	Device    string       `json:"device"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	// Drain is true for a drain, and false for a restoration, which is kept so that
	// it can replace the drain on other control planes.
	Drain bool `json:"drain"`
	// By is the operator, At the time of the action, and Until the end of a drain;
	// zero if it has none.
	By    string    `json:"by"`
	At    time.Time `json:"at"`
	Until time.Time `json:"until,omitzero"`
	// MissingSince is since when this control plane knows no such device; zero if
	// it knows one. It is never sent to other control planes.
	MissingSince time.Time `json:"missingSince,omitzero"`
}

// Check returns an error if the record is invalid by itself.
func (r Record) Check() error {
	for _, text := range []string{r.Provider, r.Device, r.Name, r.By} {
		if len(text) > maxText {
			return fmt.Errorf("drain record of %.40q has a text of more than %d bytes", r.Name, maxText)
		}
	}
	switch {
	case r.Device == "" || len(r.Addresses) > MaxAddresses:
		return fmt.Errorf("drain record of %q needs a device ID and at most %d addresses", r.Name, MaxAddresses)
	case slices.ContainsFunc(r.Addresses, func(a netip.Addr) bool { return !a.IsValid() }):
		return fmt.Errorf("drain record of %q has an invalid address", r.Name)
	case r.At.IsZero() || r.By == "":
		return fmt.Errorf("drain record of %q lacks its operator or time", r.Name)
	default:
		return nil
	}
}

// CheckDates returns an error if a record that arrives now is dated ahead, since
// it would override whatever an operator does next, or if it lasts too long.
func (r Record) CheckDates(now time.Time) error {
	switch {
	case r.At.Sub(now) > maxClockSkew:
		return fmt.Errorf("the drain of %q is dated %s, which is ahead of the clock here: set the clocks", r.Name, r.At.UTC().Format(time.RFC3339))
	case !r.Until.IsZero() && r.Until.Sub(r.At) > MaxDrain:
		return fmt.Errorf("the drain of %q lasts longer than %d days: give it no end instead", r.Name, MaxDrain/(24*time.Hour))
	default:
		return nil
	}
}

// ended reports whether the record has no effect any more.
func (r Record) ended(now time.Time) bool {
	if !r.Drain {
		return now.Sub(r.At) > restoreRetention
	}
	return !r.Until.IsZero() && !now.Before(r.Until)
}

// sameDevice reports whether two records are of one device.
func (r Record) sameDevice(o Record) bool {
	return (r.Provider == o.Provider && r.Device == o.Device) ||
		slices.ContainsFunc(r.Addresses, func(a netip.Addr) bool { return slices.Contains(o.Addresses, a) })
}

// compare orders records of one device; the greater counts. Records of the same
// moment are ordered too, so that every control plane picks the same one: a drain
// before a restoration, and the longer drain.
func (r Record) compare(o Record) int {
	end := func(r Record) int64 {
		switch {
		case !r.Drain:
			return 0
		case r.Until.IsZero():
			return 1<<63 - 1
		default:
			return r.Until.UnixNano()
		}
	}
	return cmp.Or(r.At.Compare(o.At), cmp.Compare(end(r), end(o)), cmp.Compare(r.By, o.By), cmp.Compare(r.Device, o.Device))
}

func (r Record) equal(o Record) bool {
	return r.Provider == o.Provider && r.Device == o.Device && r.Name == o.Name && slices.Equal(r.Addresses, o.Addresses) &&
		r.Drain == o.Drain && r.By == o.By && r.At.Equal(o.At) && r.Until.Equal(o.Until) && r.MissingSince.Equal(o.MissingSince)
}

// Set holds the last record of each device. Its zero value is empty. A Set is
// immutable: its methods return another one.
type Set struct {
	records []Record // by time
}

// NewSet returns the set of some records.
func NewSet(records []Record) Set { return Set{}.Merge(records, time.Time{}) }

// Load returns the set of saved records. A record that is dated ahead counts as of
// now, since the clock was wrong then or is wrong now; an end beyond [MaxDrain] is
// dropped.
func Load(records []Record, now time.Time) Set {
	records = slices.Clone(records)
	for i := range records {
		r := &records[i]
		if r.At.Sub(now) > maxClockSkew {
			r.At = now
		}
		if !r.Until.IsZero() && r.Until.Sub(r.At) > MaxDrain {
			r.Until = time.Time{}
		}
	}
	return NewSet(records)
}

// Records returns drains and restorations, the oldest first.
func (s Set) Records() []Record { return slices.Clone(s.records) }

// Empty reports whether the set has no records.
func (s Set) Empty() bool { return len(s.records) == 0 }

// Drains returns the drains in force, the oldest first.
func (s Set) Drains(now time.Time) []Record {
	return slices.DeleteFunc(s.Records(), func(r Record) bool { return !r.Drain || r.ended(now) })
}

// Add adds a record of now. It replaces older records of its device, even those of
// another control plane whose clock is ahead.
func (s Set) Add(r Record) Set {
	for _, o := range s.records {
		if r.sameDevice(o) && !r.At.After(o.At) {
			r.At = o.At.Add(time.Millisecond)
		}
	}
	return s.Merge([]Record{r}, time.Time{})
}

// Merge adds records from elsewhere that are later than the set's own and have
// not ended.
func (s Set) Merge(records []Record, now time.Time) Set {
	merged := s.Records()
	for _, r := range records {
		outdated := func(o Record) bool { return r.sameDevice(o) && r.compare(o) <= 0 }
		if !r.ended(now) && !slices.ContainsFunc(merged, outdated) {
			merged = append(slices.DeleteFunc(merged, r.sameDevice), r)
		}
	}
	slices.SortFunc(merged, Record.compare)
	return Set{merged}
}

// Prune removes the records that have ended, and returns the drains among them.
func (s Set) Prune(now time.Time) (Set, []Record) {
	var kept, ended []Record
	for _, r := range s.records {
		switch {
		case !r.ended(now):
			kept = append(kept, r)
		case r.Drain:
			ended = append(ended, r)
		}
	}
	return Set{kept}, ended
}

// Equal reports whether two sets have the same records.
func (s Set) Equal(o Set) bool { return slices.EqualFunc(s.records, o.records, Record.equal) }

// Active returns the drains in force by the IDs of a provider's devices.
func (s Set) Active(provider string, devices []Device, now time.Time) map[string]topology.Drain {
	x := newIndex(provider, devices)
	active := make(map[string]topology.Drain)
	for _, r := range s.Drains(now) {
		for _, id := range x.find(r) {
			active[id] = topology.Drain{By: r.By, Until: r.Until}
		}
	}
	return active
}
