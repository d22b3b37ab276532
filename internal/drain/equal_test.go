package drain

import (
	"net/netip"
	"testing"
	"time"
)

// Books that differ in any part of a word are written down anew.
func TestEqualLooksAtEachPart(t *testing.T) {
	said := Word{
		Provider: "p", Device: "1", Name: "d1", Addresses: []netip.Addr{netip.MustParseAddr("100.64.0.1")},
		Drain: true, By: "op", At: noon, Until: noon.Add(time.Hour),
	}
	for name, change := range map[string]func(*Word){
		"provider":  func(w *Word) { w.Provider = "q" },
		"device":    func(w *Word) { w.Device = "2" },
		"name":      func(w *Word) { w.Name = "d2" },
		"addresses": func(w *Word) { w.Addresses = nil },
		"drain":     func(w *Word) { w.Drain = false },
		"by":        func(w *Word) { w.By = "other" },
		"at":        func(w *Word) { w.At = noon.Add(time.Second) },
		"until":     func(w *Word) { w.Until = time.Time{} },
	} {
		other := said
		change(&other)
		if NewBook([]Word{said}).Equal(NewBook([]Word{other})) {
			t.Errorf("another %s is the same", name)
		}
	}
	if !NewBook([]Word{said}).Equal(NewBook([]Word{said})) {
		t.Error("the same is another")
	}
}

// A control plane that was away for a month hears of a restoration.
func TestARestorationIsRememberedForAMonth(t *testing.T) {
	b := NewBook([]Word{{Provider: "p", Device: "1", Name: "d1", By: "op", At: noon}})
	if kept, _ := b.Prune(noon.AddDate(0, 0, 30)); len(kept.Words()) != 1 {
		t.Error("it is forgotten too soon")
	}
	if kept, _ := b.Prune(noon.AddDate(0, 0, 30).Add(time.Second)); len(kept.Words()) != 0 {
		t.Error("it is remembered for ever")
	}
}
