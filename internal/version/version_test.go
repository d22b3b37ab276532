package version

import (
	"runtime/debug"
	"testing"
)

func TestBuildOf_sources_giveTheVersion(t *testing.T) {
	vcs := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
	}
	revision, changed := debug.BuildSetting{Key: "vcs.revision", Value: "abc"}, debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	for name, c := range map[string]struct {
		stamp           string
		info            *debug.BuildInfo
		version, commit string
	}{
		"a release":                         {"v1.2.3", vcs("v1.2.4-0.2026", revision), "v1.2.3", "abc"},
		"go install module@version":         {"", vcs("v1.2.3"), "v1.2.3", ""},
		"a working tree":                    {"", vcs("v1.2.4-0.2026+dirty", revision, changed), "v1.2.4-0.2026+dirty", "abc-dirty"},
		"a tree without .git":               {"", vcs("(devel)"), release, ""},
		"go test, and other odd ways":       {"", vcs(""), release, ""},
		"a program without what Go says":    {"", nil, release, ""},
		"changes to no commit that we know": {"", vcs("", changed), release, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if b := buildOf(c.stamp, c.info); b.Version != c.version || b.Commit != c.commit || b.Go == "" || b.Platform == "" {
				t.Errorf("got %+v, want version %q and commit %q", b, c.version, c.commit)
			}
		})
	}
}
