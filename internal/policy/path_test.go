package policy

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// asServers are the segments of a path as servers see them that decode it and merge
// slashes.
func asServers(t *rapid.T, path string) []string {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.FieldsFunc(decoded, func(r rune) bool { return r == '/' })
}

// A rule matches each spelling of its path and of what is below, and nothing else.
func TestPathPattern_anySpelling_matchesAsServersRead(t *testing.T) {
	letter := rapid.SampledFrom([]string{"a", "b", "A", ".x", "-", "~", ":", "@", "+", "(", "$", "*", "|", "é", "%25", "%20"})
	segment := rapid.Map(rapid.SliceOfN(letter, 1, 3), func(l []string) string { return strings.Join(l, "") })
	rapid.Check(t, func(t *rapid.T) {
		path := ""
		for _, s := range rapid.SliceOfN(segment, 1, 4).Draw(t, "segments") {
			path += "/" + strings.ReplaceAll(s, "é", "%C3%a9")
		}
		canonical, err := pathOf(path)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := pathOf(canonical); err != nil || again != canonical {
			t.Fatalf("%s is %s, and that is %s, %v", path, canonical, again, err)
		}
		pattern, _ := PathPattern(canonical)

		// The path, below it, or beside it, as Envoy sees it once it has normalized it.
		decoded, _ := url.PathUnescape(path)
		decoded += rapid.SampledFrom([]string{"", "/", "/below", "beside", "//x/y", "%"}).Draw(t, "more")
		var request strings.Builder
		for _, c := range []byte(decoded) {
			switch {
			case c == '/':
				request.WriteString(strings.Repeat(rapid.SampledFrom([]string{"/", "%2F", "%2f"}).Draw(t, "slash"), rapid.IntRange(1, 2).Draw(t, "times")))
			case isUnreserved(c) || c > ' ' && c < 0x7f && c != '%' && rapid.Bool().Draw(t, "raw"):
				request.WriteByte(c)
			default:
				fmt.Fprintf(&request, rapid.SampledFrom([]string{"%%%02X", "%%%02x"}).Draw(t, "case"), c)
			}
		}
		want, got := asServers(t, path), asServers(t, request.String())
		fits := len(got) >= len(want)
		for i := 0; fits && i < len(want); i++ {
			fits = got[i] == want[i]
		}
		if matches := regexp.MustCompile("^(?:" + pattern + ")$").MatchString(request.String()); matches != fits {
			t.Fatalf("%s for %s by %s: %t, want %t", request.String(), path, pattern, matches, fits)
		}
	})
}
