package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tailxds/tailxds/integration/repository"
)

// Package makes Debian's package of a version, and the other formats if they are
// asked for, as .goreleaser.yaml describes them: see scripts/tools/packages. It
// skips the test where there is no dpkg to install it with.
func (r *Rig) Package(version string, others bool) (deb string) {
	r.t.Helper()
	if _, err := exec.LookPath("dpkg"); err != nil {
		r.t.Skipf("the package can't be installed here: %v", err)
	}
	// What a release's build has, so that nothing is written into the tree.
	tree := filepath.Join(r.dir, "release")
	run := func(dir, program string, args ...string) string {
		r.t.Helper()
		cmd := exec.CommandContext(r.ctx, program, args...)
		cmd.Dir = dir
		printed, err := repository.Output(cmd)
		if err != nil {
			r.t.Fatal(err)
		}
		return printed
	}
	packages := filepath.Join(r.dir, "packages")
	if _, err := os.Stat(packages); err != nil {
		if err := os.MkdirAll(filepath.Join(tree, "bin"), 0o755); err != nil {
			r.t.Fatal(err)
		}
		run(repository.Path(""), "cp", "-R", ".goreleaser.yaml", "LICENSE", "deploy", tree)
		run(tree, r.programs.ControlPlane, "documents", "bin/documents")
		run(repository.Path("scripts/tools/packages"), "go", "build", "-trimpath", "-buildvcs=false", "-o", packages, ".")
	}
	args := []string{"-version", version, "-binary", r.programs.ControlPlane, "-to", r.dir}
	if !others {
		args = append(args, "-only", "deb")
	}
	for line := range strings.Lines(run(tree, packages, args...)) {
		if line = strings.TrimSpace(line); strings.HasSuffix(line, ".deb") {
			deb = line
		}
	}
	if deb == "" {
		r.t.Fatal(".goreleaser.yaml describes no package for Debian")
	}
	return deb
}
