package drain

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tailxds/tailxds/internal/topology"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// device is one with an address made of its number.
func device(n int) Device {
	return Device{ID: fmt.Sprint(n), Name: fmt.Sprintf("d%d", n), Addresses: []netip.Addr{address(n), netip.MustParseAddr(fmt.Sprintf("fd7a::%d", n))}}
}

func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, byte(n)}) }

// record is of device n, some time after noon.
func record(n int, drain bool, after time.Duration) Record {
	d := device(n)
	return Record{Provider: "p", Device: d.ID, Name: d.Name, Addresses: d.Addresses, Drain: drain, By: "op", At: noon.Add(after)}
}

func TestActive_drainWithAnEnd_endsThen(t *testing.T) {
	w := record(1, true, 0)
	w.Until = noon.Add(time.Minute)
	b := Set{}.Add(w).Add(record(2, true, 0))
	known := []Device{device(1), device(2), device(3)}
	forever := topology.Drain{By: "op"}
	for after, want := range map[time.Duration]map[string]topology.Drain{
		0:                             {"1": {By: "op", Until: w.Until}, "2": forever},
		time.Minute - time.Nanosecond: {"1": {By: "op", Until: w.Until}, "2": forever},
		time.Minute:                   {"2": forever},
	} {
		if got := b.Active("p", known, noon.Add(after)); !maps.Equal(got, want) {
			t.Errorf("after %v: %v", after, got)
		}
	}
	pruned, ended := b.Prune(noon.Add(time.Minute))
	if len(ended) != 1 || ended[0].Device != "1" || len(pruned.Records()) != 1 {
		t.Errorf("pruned %v of which ended %v", pruned, ended)
	}
	if again, ended := pruned.Prune(noon.Add(time.Minute)); len(ended) > 0 || !again.Equal(pruned) {
		t.Errorf("pruned twice: %v", ended)
	}
}

func TestAdd_deviceWithARecord_replacesIt(t *testing.T) {
	b := Set{}.Add(record(1, true, 0)).Add(record(1, false, time.Second))
	if got := b.Drains(noon.Add(time.Hour)); len(got) > 0 {
		t.Errorf("restored, and drained: %v", got)
	}
	// The other control plane's clock was ahead of ours.
	b = Set{}.Add(record(1, true, time.Hour)).Add(record(1, false, time.Second))
	if got := b.Drains(noon.Add(time.Hour)); len(got) > 0 {
		t.Errorf("said later by a clock that is behind: %v", got)
	}
	if w := b.Records(); len(w) != 1 || !w[0].At.After(noon.Add(time.Hour)) {
		t.Errorf("records %v", w)
	}
}

// A restoration is kept for as long as a control plane that only knows the drain may
// be away.
func TestPrune_restoration_staysForAMonth(t *testing.T) {
	b := Set{}.Add(record(1, false, 0))
	for after, want := range map[time.Duration]int{restoreRetention: 1, restoreRetention + 1: 0} {
		if kept, ended := b.Prune(noon.Add(after)); len(kept.Records()) != want || len(ended) > 0 {
			t.Errorf("after %v: %v, ended %v", after, kept, ended)
		}
	}
	old := record(1, true, -time.Minute)
	if got := b.Merge([]Record{old}, noon); !got.Equal(b) {
		t.Errorf("an old drain comes back: %v", got)
	}
}

func TestActive_changedDevices_matchesByIDThenAddress(t *testing.T) {
	b := Set{}.Add(record(1, true, 0))
	for name, c := range map[string]struct {
		provider string
		known    []Device
		want     string
	}{
		"by its ID, though its address changed":      {"p", []Device{{ID: "1", Addresses: []netip.Addr{address(9)}}, {ID: "9", Addresses: []netip.Addr{address(1)}}}, "1"},
		"by its address, if another source names it": {"q", []Device{{ID: "1", Addresses: []netip.Addr{address(9)}}, {ID: "nA", Addresses: []netip.Addr{address(1)}}}, "nA"},
		"by its address, if it joined anew":          {"p", []Device{{ID: "7", Addresses: []netip.Addr{address(1)}}}, "7"},
		"none":                                       {"q", []Device{{ID: "1", Addresses: []netip.Addr{address(9)}}}, ""},
		"none, since the device has no address":      {"q", []Device{{ID: "1"}}, ""},
	} {
		got := slices.Sorted(maps.Keys(b.Active(c.provider, c.known, noon)))
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// anyRecord draws records that are likely to be of the same devices and moments.
func anyRecord(t *rapid.T) Record {
	w := record(rapid.IntRange(1, 4).Draw(t, "device"), rapid.Bool().Draw(t, "drain"), time.Duration(rapid.IntRange(0, 5).Draw(t, "at"))*time.Second)
	w.Provider = rapid.SampledFrom([]string{"p", "q"}).Draw(t, "provider")
	if w.Provider == "q" {
		w.Device = "n" + w.Device
	}
	w.By = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "by")
	if w.Drain {
		if end := rapid.IntRange(0, 3).Draw(t, "until"); end > 0 {
			w.Until = noon.Add(time.Duration(end) * time.Minute)
		}
	}
	return w
}

// However records travel between control planes, those that have the same records
// agree.
func TestMerge_anyOrder_setsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.SliceOfN(rapid.Custom(anyRecord), 0, 12).Draw(t, "records")
		one := Set{}.Merge(records, noon)
		shuffled := rapid.Permutation(records).Draw(t, "order")
		cut := rapid.IntRange(0, len(records)).Draw(t, "cut")
		left, right := Set{}.Merge(shuffled[:cut], noon), Set{}.Merge(shuffled[cut:], noon)
		for _, other := range []Set{left.Merge(right.Records(), noon), right.Merge(left.Records(), noon), one.Merge(left.Records(), noon)} {
			if !one.Equal(other) {
				t.Fatalf("%v\n%v", one, other)
			}
		}
		text, err := json.Marshal(one.Records())
		if err != nil {
			t.Fatal(err)
		}
		var read []Record
		if err := json.Unmarshal(text, &read); err != nil || !NewSet(read).Equal(one) {
			t.Fatalf("read back: %v, %v", read, err)
		}
		said := one.Add(record(1, false, 0))
		if slices.ContainsFunc(said.Drains(noon), func(w Record) bool { return w.sameDevice(record(1, true, 0)) }) {
			t.Fatalf("what was said last does not count: %v", said)
		}
	})
}

func TestCheck_invalidRecord_isRefused(t *testing.T) {
	if err := record(1, true, 0).Check(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Record){
		"needs a device ID":   func(w *Record) { w.Device = "" },
		"than 256 bytes":      func(w *Record) { w.Provider = strings.Repeat("x", 257) },
		"at most 8 addresses": func(w *Record) { w.Addresses = slices.Repeat(w.Addresses, 5) },
		"an invalid address":  func(w *Record) { w.Addresses = []netip.Addr{{}} },
		"lacks its operator":  func(w *Record) { w.By = "" },
		"or time":             func(w *Record) { w.At = time.Time{} },
	} {
		w := record(1, true, 0)
		change(&w)
		if err := w.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	w := record(1, true, 0)
	w.Name, w.Addresses = strings.Repeat("x", 256), slices.Repeat(w.Addresses, 4)
	if err := w.Check(); err != nil {
		t.Errorf("the most that may be: %v", err)
	}
}

func TestFind_names_findsTheDeviceOrSaysWhy(t *testing.T) {
	devices := []Device{
		{ID: "1", Name: "west-1", Addresses: []netip.Addr{address(1), netip.MustParseAddr("fd7a::1")}},
		{ID: "2", Name: "west-2.example.ts.net.", Addresses: []netip.Addr{address(2)}},
		{ID: "nX", Name: "twin", Addresses: []netip.Addr{address(3)}},
		{ID: "nY", Name: "TWIN", Addresses: []netip.Addr{address(4)}},
		{ID: "twin-2", Name: "1", Addresses: []netip.Addr{address(5)}},
		{ID: "7"},
	}
	for query, want := range map[string]string{
		"west-1": "1", "WEST-1": "1", "west-1.example.ts.net": "1", "100.64.0.1": "1", "fd7a::1": "1", "fd7a:0::1": "1", "::ffff:100.64.0.2": "2",
		"west-2": "2", "west-2.example.ts.net": "2", "2": "2", "nX": "nX", "twin-2": "twin-2", "7": "7",
		"1":          `"1" is more than one device: west-1 (100.64.0.1, ID 1), 1 (100.64.0.5, ID twin-2); name one by its address`,
		"twin":       `"twin" is more than one device: twin (100.64.0.3, ID nX), TWIN (100.64.0.4, ID nY); name one by its address`,
		"west-3":     `no device has the name, ID or address "west-3"; there are west-1 (100.64.0.1, ID 1), west-2.example.ts.net. (100.64.0.2, ID 2)`,
		"100.64.0.9": `no device has the name, ID or address "100.64.0.9"; there are a device without a name (ID 7), 1 (100.64.0.5, ID twin-2), TWIN (100.64.0.4, ID nY), twin (100.64.0.3, ID nX), west-1 (100.64.0.1, ID 1), west-2.example.ts.net. (100.64.0.2, ID 2)`,
	} {
		got, err := Find(query, devices)
		if said := got.ID; err != nil && err.Error() != want || err == nil && said != want {
			t.Errorf("%s: %q, %v", query, said, err)
		}
	}
	if _, err := Find("x", nil); err == nil || err.Error() != `no device has the name, ID or address "x"` {
		t.Errorf("nobody: %v", err)
	}
	for _, nothing := range []string{"", ".", " "} { // not the device that has no name
		if got, err := Find(nothing, devices); err == nil || !strings.HasPrefix(err.Error(), "no device is named: give the name, ID or address of one; there are ") {
			t.Errorf("%q: %+v, %v", nothing, got, err)
		}
	}
	var many []Device
	for n := range 15 {
		many = append(many, device(n))
	}
	if _, err := Find("something else", many); err == nil || !strings.HasSuffix(err.Error(), ", and 3 more") {
		t.Errorf("many: %v", err)
	}
}

// Sets that differ in any field are saved again.
func TestEqual_anyFieldDiffers_isFalse(t *testing.T) {
	original := Record{
		Provider: "p", Device: "1", Name: "d1", Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.1")},
		Drain: true, By: "op", At: noon, Until: noon.Add(time.Hour),
	}
	for name, change := range map[string]func(*Record){
		"provider":  func(w *Record) { w.Provider = "q" },
		"device":    func(w *Record) { w.Device = "2" },
		"name":      func(w *Record) { w.Name = "d2" },
		"addresses": func(w *Record) { w.Addresses = nil },
		"drain":     func(w *Record) { w.Drain = false },
		"by":        func(w *Record) { w.By = "other" },
		"at":        func(w *Record) { w.At = noon.Add(time.Second) },
		"until":     func(w *Record) { w.Until = time.Time{} },
	} {
		other := original
		change(&other)
		if NewSet([]Record{original}).Equal(NewSet([]Record{other})) {
			t.Errorf("another %s is equal", name)
		}
	}
	if !NewSet([]Record{original}).Equal(NewSet([]Record{original})) {
		t.Error("equal sets differ")
	}
}
