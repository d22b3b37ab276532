// Command packages makes the packages that .goreleaser.yaml describes, and fails
// if that file says what GoReleaser does not know. It reads it by GoReleaser's own
// types and packs by the library that GoReleaser packs with, so that a test sees
// what a release installs; GoReleaser itself takes long to build.
//
//	packages -version 0.1.0 -binary bin/tailxds -to DIR    in the repository, or in what a release has of it
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/goreleaser/goreleaser/v2/pkg/config"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the format
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers the format
)

func main() {
	version := flag.String("version", "0.0.0", "the packages' version")
	binary := flag.String("binary", "bin/tailxds", "the program")
	to := flag.String("to", "dist", "the directory for the packages")
	only := flag.String("only", "", "the one format to make")
	flag.Parse()
	if err := run(*version, *binary, *to, *only); err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		os.Exit(1)
	}
}

func run(version, binary, to, only string) error {
	project, err := config.Load(".goreleaser.yaml")
	if err != nil {
		return fmt.Errorf("read .goreleaser.yaml: %w", err)
	}
	if len(project.NFPMs) == 0 {
		return errors.New(".goreleaser.yaml has no packages")
	}
	for _, described := range project.NFPMs {
		for _, format := range described.Formats {
			if only != "" && format != only {
				continue
			}
			if err := pack(described, format, version, binary, to); err != nil {
				return fmt.Errorf("make the %s: %w", format, err)
			}
		}
	}
	return nil
}

// pack makes one package, and prints where it is.
func pack(described config.NFPM, format, version, binary, to string) error {
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: described.PackageName, Version: version, Arch: runtime.GOARCH, Platform: "linux",
		Section: described.Section, Maintainer: described.Maintainer, Description: described.Description,
		Vendor: described.Vendor, Homepage: described.Homepage, License: described.License,
		Overridables: nfpm.Overridables{
			Suggests: described.Suggests,
			Contents: contents(described, binary),
			Scripts: nfpm.Scripts{
				PreInstall: described.Scripts.PreInstall, PostInstall: described.Scripts.PostInstall,
				PreRemove: described.Scripts.PreRemove, PostRemove: described.Scripts.PostRemove,
			},
		},
	})
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	path := filepath.Join(to, packager.ConventionalFileName(info))
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := errors.Join(packager.Package(info, out), out.Close()); err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

// contents are the files of a package, the program included.
func contents(described config.NFPM, binary string) files.Contents {
	bin := described.Bindir
	if bin == "" {
		bin = "/usr/bin" // GoReleaser's own default
	}
	all := files.Contents{{Source: binary, Destination: filepath.Join(bin, "tailxds"), FileInfo: &files.ContentFileInfo{Mode: 0o755}}}
	for _, c := range described.Contents {
		all = append(all, &files.Content{
			Source: c.Source, Destination: c.Destination, Type: c.Type, Packager: c.Packager,
			FileInfo: &files.ContentFileInfo{Owner: c.FileInfo.Owner, Group: c.FileInfo.Group, Mode: c.FileInfo.Mode},
		})
	}
	return all
}
