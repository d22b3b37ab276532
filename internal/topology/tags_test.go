package topology

import (
	"slices"
	"testing"
)

// Whatever the rules of a key are, its row is complete: a value that an endpoint
// has can be read from it, and its text can be parsed again.
func TestKeyTable_everyKey_hasACompleteRow(t *testing.T) {
	for k, row := range keyTable() {
		if row.name == "" || row.parse == nil || row.fallback == nil || row.get == nil || row.set == nil {
			t.Errorf("key %d has an incomplete row: %+v", k, row)
			continue
		}
		text := map[bool]string{true: "7", false: "x"}[row.numeric]
		v, err := row.parse(text)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		var m member
		row.set(&m, v)
		if got := row.text(row.get(m)); got != text {
			t.Errorf("%s: %q became %q", row.name, text, got)
		}
	}
	if names := KeyNames(); len(names) != int(numKeys) || len(slices.Compact(names)) != int(numKeys) {
		t.Errorf("names: %q", KeyNames())
	}
}
