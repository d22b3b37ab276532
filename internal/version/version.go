// Package version tells which version of tailxds a program is.
package version

import (
	"runtime"
	"runtime/debug"
)

// release is the version that this source becomes. A build says so when nothing
// tells it more: from a tree without .git, as in an image.
const release = "v0.1.0-dev"

// stamp is the version that a release's build is given:
//
//	go build -ldflags "-X github.com/tailxds/tailxds/internal/version.stamp=v0.1.0" ./cmd/tailxds
var stamp string

// Build is what a program was built from.
type Build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"` // with "-dirty" where files differ from it
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Current returns what this program was built from.
func Current() Build {
	info, _ := debug.ReadBuildInfo()
	return buildOf(stamp, info)
}

// buildOf reads what the linker and the Go command left in a program; info may
// be nil. The stamp counts first, then the module's version, then [release].
func buildOf(stamp string, info *debug.BuildInfo) Build {
	b := Build{Version: stamp, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info == nil {
		info = &debug.BuildInfo{}
	}
	dirty := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty && b.Commit != "" {
		b.Commit += "-dirty"
	}
	if b.Version == "" && info.Main.Version != "(devel)" {
		b.Version = info.Main.Version
	}
	if b.Version == "" {
		b.Version = release
	}
	return b
}
