package topology

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestCompareIDs_anyIDs_isAnOrder(t *testing.T) {
	id := rapid.OneOf(rapid.StringMatching(`[0-9]{0,3}`), rapid.StringMatching(`[0-9][0-9a-c]{0,2}`))
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfN(id, 2, 12).Draw(t, "ids")
		for _, a := range ids {
			for _, b := range ids {
				ab, ba := CompareIDs(a, b), CompareIDs(b, a)
				if ab != -ba || (ab == 0) != (a == b) {
					t.Fatalf("%q and %q: %d and back %d", a, b, ab, ba)
				}
				for _, c := range ids {
					if ab <= 0 && CompareIDs(b, c) <= 0 && CompareIDs(a, c) > 0 {
						t.Fatalf("%q, %q, %q: in order by pairs, but not all three", a, b, c)
					}
				}
			}
		}
	})
	got := []string{"n2", "10", "9", "1a", "n10", "007", "0", "7", ""}
	slices.SortFunc(got, CompareIDs)
	if want := []string{"", "0", "007", "7", "9", "10", "1a", "n10", "n2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
