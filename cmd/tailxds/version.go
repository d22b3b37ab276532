package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is the version that this source becomes. A build says so when nothing
// tells it more: from a tree without .git, as in an image.
const release = "v0.1.0-dev"

// stamp is the version that a release's build is given:
//
//	go build -ldflags "-X main.stamp=v0.1.0" ./cmd/tailxds
var stamp string

// build is what a program is made of.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"` // with "-dirty" where files differ from it
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// thisBuild is what this program is made of.
func thisBuild() build {
	info, _ := debug.ReadBuildInfo()
	return buildOf(stamp, info)
}

// version is the version of this program.
func version() string { return thisBuild().Version }

// buildOf reads what the linker and the Go command left in a program; info may
// be nil. The stamp counts first, then the module's version, then [release].
func buildOf(stamp string, info *debug.BuildInfo) build {
	b := build{Version: stamp, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
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

func versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version, and what it was built from",
		Example: "  tailxds version -o json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(thisBuild())
			}
			return printBuild(cmd.OutOrStdout(), thisBuild())
		},
	}
	outputFlag(cmd.Flags(), &output, "text", "json")
	return cmd
}

func printBuild(out io.Writer, b build) error {
	from := ""
	if b.Commit != "" {
		from = "commit " + b.Commit + ", "
	}
	if _, err := fmt.Fprintf(out, "tailxds %s (%s%s, %s)\n", b.Version, from, b.Go, b.Platform); err != nil {
		return fmt.Errorf("print the version: %w", err)
	}
	return nil
}
