package drain

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// numbered is a device of a large tailnet, and drained its drain.
func numbered(n int) Device {
	return Device{ID: fmt.Sprint("n", n), Name: fmt.Sprint("d", n), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{100, byte(64 + n>>16), byte(n >> 8), byte(n)})}}
}

func drained(n int, after time.Duration) Record {
	d := numbered(n)
	return Record{Provider: "p", Device: d.ID, Name: d.Name, Addresses: d.Addresses, Drain: true, By: "op", At: noon.Add(after)}
}

func fleet(from, to int) (all []Device) {
	for n := from; n < to; n++ {
		all = append(all, numbered(n))
	}
	return all
}

func drains(from, to int) (all []Record) {
	for n := from; n < to; n++ {
		all = append(all, drained(n, time.Duration(n)))
	}
	return all
}

// A flood of records of devices that are unknown here is bounded, ends after a week,
// and never replaces the records of known devices.
func TestObserve_unknownDevices_boundedAndEnd(t *testing.T) {
	known := fleet(0, 100)
	s := Set{}.Merge(drains(0, 10), noon)
	var dropped int
	for flood := range 3 {
		s, _, dropped = s.Merge(drains(10_000+1_000*flood, 11_000+1_000*flood), noon).Observe("p", known, noon)
		if len(s.Records()) != MaxRecords || dropped == 0 || s.Full(noon) {
			t.Fatalf("%d records are kept, %d dropped", len(s.Records()), dropped)
		}
	}
	if got := s.Active("p", known, noon); len(got) != 10 {
		t.Errorf("%d of the known devices' drains are in force", len(got))
	}
	later, ended, _ := s.Observe("p", known, noon.Add(missingRetention))
	if len(later.Records()) != MaxRecords || len(ended) != 0 {
		t.Errorf("after a week %d are kept, %d ended", len(later.Records()), len(ended))
	}
	later, ended, _ = s.Observe("p", known, noon.Add(missingRetention+1))
	if len(later.Records()) != 10 || len(ended) != MaxRecords-10 {
		t.Errorf("after more than a week %d are kept, %d ended", len(later.Records()), len(ended))
	}
}

func TestObserve_deviceComesBack_staysDrained(t *testing.T) {
	b := Set{}.Merge(drains(0, 1), noon)
	for day := range 30 { // away six days of seven
		known := fleet(1, 2)
		if day%7 == 6 {
			known = fleet(0, 2)
		}
		b, _, _ = b.Observe("p", known, noon.AddDate(0, 0, day))
	}
	if got := b.Active("p", fleet(0, 2), noon.AddDate(0, 0, 30)); len(got) != 1 {
		t.Errorf("in force: %v", got)
	}
	// A clock that was ahead when it went does not keep it, nor end it at once.
	b, _, _ = Set{}.Merge(drains(0, 1), noon).Observe("p", fleet(1, 2), noon.AddDate(1, 0, 0))
	if b, ended, _ := b.Observe("p", fleet(1, 2), noon); len(ended) > 0 || !b.Records()[0].MissingSince.Equal(noon) {
		t.Errorf("the clock was set back: %v, ended %v", b, ended)
	}
}

func TestObserve_moreThanAreKept_drainsOfKnownDevicesStay(t *testing.T) {
	known := fleet(0, 5_000)
	b := Set{}.Merge(drains(0, 600), noon)
	for n := 600; n < 1_600; n++ {
		w := drained(n, time.Duration(n))
		w.Drain = false
		b = b.Add(w)
	}
	b, _, dropped := b.Observe("p", known, noon)
	if len(b.Records()) != MaxRecords || dropped != 600 || len(b.Drains(noon)) != 600 || b.Full(noon) {
		t.Errorf("%d records, %d drains, %d dropped", len(b.Records()), len(b.Drains(noon)), dropped)
	}
	b, _, _ = b.Merge(drains(2_000, 3_000), noon).Observe("p", known, noon)
	if len(b.Records()) != MaxRecords || !b.Full(noon) || len(b.Active("p", fleet(0, 600), noon)) != 600 {
		t.Errorf("%d records, and of those that were drained first %d are", len(b.Records()), len(b.Active("p", fleet(0, 600), noon)))
	}
	// Before a list has come nobody is known to be missing.
	b, ended, dropped := NewSet(drains(0, 900)).Observe("", nil, noon)
	if len(b.Records()) != 900 || len(ended)+dropped > 0 || !b.Records()[0].MissingSince.IsZero() {
		t.Errorf("%d records, %d ended, %d dropped", len(b.Records()), len(ended), dropped)
	}
}

func TestCheckDates_aheadOrTooLong_isRefused(t *testing.T) {
	for name, test := range map[string]struct {
		at, until time.Duration // after noon
		want      string
	}{
		"now":           {0, 0, ""},
		"clock ahead":   {maxClockSkew, 0, ""},
		"far ahead":     {maxClockSkew + 1, 0, "ahead of the clock here"},
		"a year":        {0, MaxDrain, ""},
		"more":          {0, MaxDrain + 1, "longer than 366 days"},
		"said long ago": {-10 * MaxDrain, 0, ""},
	} {
		w := drained(1, test.at)
		if test.until > 0 {
			w.Until = noon.Add(test.until)
		}
		err := w.CheckDates(noon)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is loaded can be saved again, and what is said after it counts.
func TestLoad_datesOfAnotherTime_areBroughtNear(t *testing.T) {
	w := drained(1, 0)
	w.At, w.Until = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	b := Load([]Record{w}, noon)
	if got := b.Records()[0]; !got.At.Equal(noon) || !got.Until.IsZero() {
		t.Errorf("loaded as %+v", got)
	}
	restored := drained(1, time.Second)
	restored.Drain = false
	b = b.Add(restored)
	if _, err := json.Marshal(b.Records()); err != nil || len(b.Drains(noon)) != 0 {
		t.Errorf("%v, %v", b, err)
	}
}

// As many records as another control plane may send, beside 10,000 devices.
func BenchmarkMerge(b *testing.B) {
	known, own, records := fleet(0, 10_000), Set{}.Merge(drains(0, MaxRecords), noon), drains(MaxRecords, 2*MaxRecords)
	for b.Loop() {
		s, _, _ := own.Merge(records, noon).Observe("p", known, noon)
		s.Active("q", known, noon)
	}
}
