package envoy

import (
	"regexp"
	"testing"
)

func TestRefuseHidden_dotSegmentBesideEncodedSlash_matches(t *testing.T) {
	pattern := regexp.MustCompile("^(?:" + refuseHidden("x").GetMatch().GetSafeRegex().GetRegex() + ")$")
	for path, want := range map[string]bool{
		"/x%2F..%2Fcart": true, "/x/..%2fcart": true, "/x%5C../cart": true, "/x%2F.": true, "/x%2F%2E%2e%2Fcart": true, "/x%2F.%2Fcart": true,
		"/x%2Fy": false, "/a..b/c": false, "/x/...": false, "/.well-known/x": false, "/x%2F.hidden": false, "/x%2F..y": false, "/": false,
	} {
		if got := pattern.MatchString(path); got != want {
			t.Errorf("%s: %t, want %t", path, got, want)
		}
	}
}
