package drain

import (
	"net/netip"
	"testing"
	"time"
)

// Books that differ in any part of a word are written down anew.
func TestEqualLooksAtEachPart(t *testing.T) {
	said := Record{
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
		other := said
		change(&other)
		if NewSet([]Record{said}).Equal(NewSet([]Record{other})) {
			t.Errorf("another %s is the same", name)
		}
	}
	if !NewSet([]Record{said}).Equal(NewSet([]Record{said})) {
		t.Error("the same is another")
	}
}

// A control plane that was away for a month hears of a restoration.
func TestARestorationIsRememberedForAMonth(t *testing.T) {
	b := NewSet([]Record{{Provider: "p", Device: "1", Name: "d1", By: "op", At: noon}})
	if kept, _ := b.Prune(noon.AddDate(0, 0, 30)); len(kept.Records()) != 1 {
		t.Error("it is forgotten too soon")
	}
	if kept, _ := b.Prune(noon.AddDate(0, 0, 30).Add(time.Second)); len(kept.Records()) != 0 {
		t.Error("it is remembered for ever")
	}
}
