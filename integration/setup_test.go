// Package integration_test runs the shipped lab, and a smaller rig put together
// part by part, on a Docker engine. Each test process has names of its own and
// removes all it made. See engine.Run.
package integration_test

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/integration/lab"
	"github.com/tailxds/tailxds/integration/shares"
)

// patience bounds how long a test waits for a state that must come. Reaching it
// is a failure; no test waits longer than it has to.
const patience = 60 * time.Second

// begin starts a run that ends with the test: a bundle if it failed, and nothing
// left on the engine. The context also ends on an interrupt, so that the
// clean-up still happens.
func begin(t *testing.T, name string) (context.Context, *lab.Lab) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a Docker engine and the lab's images")
	}
	forgetSettings(t)
	// The directory for temporary files goes after what is mounted from it.
	_ = t.TempDir()
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)
	// A command that hangs ends while there is still time to say why and to clean up.
	if over, bounded := t.Deadline(); bounded {
		ctx, stop = context.WithDeadline(ctx, over.Add(-cleaning-time.Minute))
		t.Cleanup(stop)
	}
	run, err := engine.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab.Lab{Run: run, Project: run.Project(name)}
	t.Cleanup(func() { finish(t, l) })
	if l.Probe, err = run.BuildProbe(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx, l
}

// cleaning bounds how long the end of a run takes.
const cleaning = 3 * time.Minute

func finish(t *testing.T, l *lab.Lab) {
	ctx, cancel := context.WithTimeout(context.Background(), cleaning)
	defer cancel()
	if t.Failed() {
		path, err := l.Run.Bundle(ctx, l.Probe, l.Run.ID, lab.Looks())
		t.Logf("what explains the failure is in %s (%v)", path, err)
	}
	if err := l.Run.Clean(ctx, l.Run.ID); err != nil {
		t.Errorf("cleaning up: %v", err)
	}
	if left, err := l.Run.Leftovers(ctx); err != nil || len(left) > 0 {
		t.Errorf("still there after cleaning up: %v (%v)", left, err)
	}
	if err := l.Run.Close(); err != nil {
		t.Error(err)
	}
}

// forgetSettings keeps the settings of whoever runs the tests away from the lab:
// an auth key in .env or in the environment would make it join a real tailnet.
func forgetSettings(t *testing.T) {
	t.Helper()
	for _, setting := range os.Environ() {
		name, value, _ := strings.Cut(setting, "=")
		for _, prefix := range []string{"TS_", "LAB_", "COMPOSE_"} {
			if strings.HasPrefix(name, prefix) {
				t.Setenv(name, value) // to have it back when the test ends
				if err := os.Unsetenv(name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Setenv("COMPOSE_DISABLE_ENV_FILE", "1")
	// There is no image to clean up with, and we do it ourselves.
	t.Setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
	// Where this machine looks like a container, the engine is still its own.
	t.Setenv("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
}

// composeFile is the lab as it is shipped; unpublished takes its ports away.
const (
	composeFile = "../compose.yaml"
	unpublished = "testdata/unpublished.yaml"
)

// loadProject reads the shipped lab, as the environment sets it.
func loadProject(ctx context.Context, t *testing.T, name string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{composeFile, unpublished},
		cli.WithOsEnv, cli.WithName(name), cli.WithProfiles([]string{"*"}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// headscaleConfig makes the lab use a copy of headscale's configuration, where a
// test may edit the policy and nobody else does, and returns where it is.
func headscaleConfig(t *testing.T) string {
	t.Helper()
	return copied(t, "LAB_HEADSCALE_CONFIG", "../lab/headscale")
}

// controlPlanePolicy does the same for the control plane's policy file.
func controlPlanePolicy(t *testing.T) string {
	t.Helper()
	return filepath.Join(copied(t, "LAB_POLICY", "../lab/policy"), "policy.yaml")
}

// copied copies a directory for the test alone and names it by a setting of the lab.
func copied(t *testing.T, setting, from string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	// In the containers, users of their own read it.
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if entry.IsDir() {
			mode = 0o755
		}
		return os.Chmod(path, mode)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(setting, dir)
	return dir
}

// await fails the test unless check comes true.
func await(ctx context.Context, t *testing.T, check func() error) {
	t.Helper()
	if err := lab.Await(ctx, patience, check); err != nil {
		t.Fatal(err)
	}
}

// assertShares sends enough requests to tell the shares from the wrong ones, and
// holds who answered against the shares.
func assertShares(ctx context.Context, t *testing.T, l *lab.Lab, url string, want shares.Shares, wrong ...shares.Shares) {
	t.Helper()
	tally, err := l.Ask(ctx, url, shares.Enough(want, wrong...))
	if err != nil {
		t.Fatal(err)
	}
	if err := shares.Check(tally.By(shares.Host), want); err != nil {
		t.Errorf("%s: %v", url, err)
	}
}

// assertNoneFailed ends a flow of requests and fails the test if any of them
// failed, or if they were too few to have noticed.
func assertNoneFailed(t *testing.T, stop func() (shares.Tally, error)) {
	t.Helper()
	tally, err := stop()
	if err != nil {
		t.Fatal(err)
	}
	if tally.Failed > 0 {
		t.Errorf("%d of %d requests failed: %s", tally.Failed, tally.Failed+tally.Answered(), tally.Reasons)
	}
	if tally.Answered() < 1_000 {
		t.Errorf("only %d requests were sent meanwhile", tally.Answered())
	}
}
