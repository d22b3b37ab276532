package engine_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tailxds/tailxds/integration/engine"
)

// start begins a run whose leftovers are gone when the test ends.
func start(t *testing.T) *engine.Run {
	t.Helper()
	run, err := engine.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := run.Clean(ctx, run.ID); err != nil {
			t.Error(err)
		}
	})
	return run
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	output, err := engine.Docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

func TestSweep_runs_onlyDeadOnesRemoved(t *testing.T) {
	living, dead := start(t), start(t)
	for _, run := range []*engine.Run{living, dead} {
		docker(t, "network", "create", "--internal", "--label", engine.Label+"="+run.ID, run.Project("net"))
		docker(t, "volume", "create", "--label", "com.docker.compose.project="+run.Project("lab"), run.Project("vol"))
	}
	abandon(t, dead)

	next := start(t)
	defer next.Close()
	if left, err := dead.Leftovers(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("the dead run's %v are still there (%v)", left, err)
	}
	left, err := living.Leftovers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(left)
	want := []string{"network " + living.ID, "volume " + living.Project("lab")}
	if !slices.Equal(left, want) {
		t.Errorf("the living run has %v, want %v", left, want)
	}

	if err := living.Clean(t.Context(), living.ID); err != nil {
		t.Fatal(err)
	}
	if left, err := living.Leftovers(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("after cleaning there are still %v (%v)", left, err)
	}
	if err := living.Close(); err != nil {
		t.Error(err)
	}
}

// The packages of the integration tests start side by side, and each sweeps.
func TestSweep_startedTogether_noError(t *testing.T) {
	dead := start(t)
	for n := range 6 {
		name := dead.Project(strconv.Itoa(n))
		docker(t, "network", "create", "--internal", "--label", engine.Label+"="+name, name)
		docker(t, "volume", "create", "--label", engine.Label+"="+name, name)
	}
	abandon(t, dead)
	var sweepers errgroup.Group
	for range 4 {
		sweepers.Go(func() error {
			if err := engine.Sweep(t.Context()); err != nil {
				return err
			}
			left, err := dead.Leftovers(t.Context())
			if len(left) > 0 {
				return fmt.Errorf("after a sweep there are still %v", left)
			}
			return err
		})
	}
	if err := sweepers.Wait(); err != nil {
		t.Error(err)
	}
}

// abandon leaves a run as a killed process does: its file is there, unlocked.
func abandon(t *testing.T, run *engine.Run) {
	t.Helper()
	if err := run.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(run.LockPath(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestClean_otherRuns_untouched(t *testing.T) {
	run := start(t)
	defer run.Close()
	if err := run.Clean(t.Context(), "tailxds"); err == nil {
		t.Error("a run removed what is not its own")
	}
}

func TestBundle_stoppedContainer_hasItsLog(t *testing.T) {
	run := start(t)
	defer run.Close()
	probe, err := run.BuildProbe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Without arguments the probe prints its usage and fails.
	name := run.Project("envoy")
	_, err = engine.Docker(t.Context(), "run", "--name", name, "--label", engine.Label+"="+run.ID, run.ID+"-probe")
	if err == nil {
		t.Fatal("the probe ran without a command")
	}
	t.Setenv("TAILXDS_BUNDLES", t.TempDir())
	path, err := run.Bundle(t.Context(), probe, run.ID, []engine.Look{
		{Name: "envoy", File: "clusters.txt", URL: "http://127.0.0.1:9901/clusters"},
		{Name: "headscale", File: "nodes.txt", Command: []string{"headscale", "nodes", "list"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, path)
	if log := files[name+"/log.txt"]; !strings.Contains(log, "probe get URL") {
		t.Errorf("the log is %q", log)
	}
	if answer := files[name+"/clusters.txt"]; !strings.Contains(answer, "docker run") {
		t.Errorf("the dead container's answer does not give a reason: %q", answer)
	}
	if _, there := files[name+"/nodes.txt"]; there {
		t.Error("a container was asked what is not for it")
	}
}

func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zip, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(content)
	}
}
