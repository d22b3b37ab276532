package policy

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSize_written_readsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Size(rapid.Uint64Range(0, 999_999_999).Draw(t, "bytes"))
		var got Size
		if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
			t.Fatalf("%d is written %s, and read as %d, %v", want, want, got, err)
		}
	})
}

func TestSize_noSize_isRefused(t *testing.T) {
	for _, text := range []string{"", "8", "MiB", "8 MiB", "-1MiB", "1.5MiB", "8MB", "8mib", "1000000000GiB", "0x1MiB"} {
		s := 7 * MiB
		if err := s.UnmarshalText([]byte(text)); err == nil || s != 7*MiB {
			t.Errorf("%q is read as %s, %v", text, s, err)
		}
	}
	for text, want := range map[string]Size{"8MiB": 8 << 20, "512KiB": 512 << 10, "1GiB": 1 << 30, "3B": 3} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want || s.String() != text {
			t.Errorf("%s is read as %d, %v, and written %s", text, s, err, s)
		}
	}
}
