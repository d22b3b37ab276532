package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/engine"
)

// fakeDocker puts a docker command on the PATH that knows of one network, and
// runs the script when that is to be removed. It returns its directory: the
// network is there as long as the file named network is.
func fakeDocker(t *testing.T, removal string) string {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\ncd " + dir + `
case "$1 $2" in
"network ls") [ ! -e network ] || printf '63eb1ad54482\t\t%s\n' "$(cat network)" ;;
"network rm") ` + removal + ` ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return dir
}

// aRunWithANetwork begins a run that the fake engine holds a network of.
func aRunWithANetwork(t *testing.T, removal string) (*engine.Run, string) {
	t.Helper()
	dir := fakeDocker(t, removal)
	run, err := engine.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := run.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "network"), []byte(run.ID), 0o600); err != nil {
		t.Fatal(err)
	}
	return run, dir
}

func TestRemove_goneMeanwhile_noError(t *testing.T) {
	run, _ := aRunWithANetwork(t, `rm network; echo "network $3 not found" >&2; exit 1`)
	if err := run.Clean(t.Context(), run.ID); err != nil {
		t.Errorf("it is gone, and yet: %v", err)
	}
}

func TestRemove_inProgress_isAwaited(t *testing.T) {
	run, dir := aRunWithANetwork(t, `[ -e asked ] && rm network; touch asked; echo "already in progress" >&2; exit 1`)
	if err := run.Clean(t.Context(), run.ID); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "network")); err == nil {
		t.Error("it is still there, and Clean says that it is gone")
	}
}

func TestRemove_refused_isError(t *testing.T) {
	run, dir := aRunWithANetwork(t, `echo "it has active endpoints" >&2; touch asked; exit 1`)
	ctx, giveUp := context.WithCancel(t.Context())
	go func() { // does not wait for as long as Clean would
		for tick := time.Tick(10 * time.Millisecond); ; <-tick {
			if _, err := os.Stat(filepath.Join(dir, "asked")); err == nil || ctx.Err() != nil {
				giveUp()
				return
			}
		}
	}()
	err := run.Clean(ctx, run.ID)
	if err == nil || !strings.Contains(err.Error(), "active endpoints") {
		t.Errorf("got %v", err)
	}
	giveUp()
}
