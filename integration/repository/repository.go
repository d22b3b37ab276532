// Package repository finds and builds what tests run: the scripts and the programs of the
// working tree.
package repository

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Path is the path of a file of the working tree, given as in "lab/policy/policy.yaml".
func Path(name string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "..", filepath.FromSlash(name))
}

// Script runs a script of scripts/ that prints a path or a command, and returns what it
// printed. The error wraps the [exec.ExitError] and has what the script wrote to standard
// error.
func Script(ctx context.Context, name string, args ...string) (string, error) {
	out, err := Output(exec.CommandContext(ctx, Path("scripts/"+name), args...))
	return strings.TrimSpace(out), err
}

// Build builds programs into a directory, from packages such as "./cmd/tailxds".
func Build(ctx context.Context, dir string, packages ...string) error {
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", dir + "/"}, packages...)
	build := exec.CommandContext(ctx, "go", args...)
	build.Dir = Path("")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := Output(build); err != nil {
		return fmt.Errorf("build %s: %w", strings.Join(packages, " "), err)
	}
	return nil
}

// Output runs a command and returns what it printed. The error of a command that failed has
// its standard error.
func Output(command *exec.Cmd) (string, error) {
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", command.Path, err, stderr.String())
	}
	return string(out), nil
}
