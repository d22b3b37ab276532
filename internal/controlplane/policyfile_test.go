package controlplane

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/policyfile"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/store"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// A policy that can be read and not published delays no device, is logged once,
// and is tried again with each publication.
func TestReconcile_policyThatCannotBePublished_lastGoodStays(t *testing.T) {
	var log bytes.Buffer
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(&log, nil))
	begin := emptyBeginning(t, store.File(filepath.Join(t.TempDir(), "memory.json")))
	c := newControlPlane(Config{PolicyFile: file, Rules: topology.Rules{DefaultService: "server", DefaultPort: 8080}}, begin,
		links{watcher: provider.NewWatcher(nil, provider.Options{Provider: provider.File, Log: logger})}, logger)
	published := func() string {
		t.Helper()
		c.reconcile(time.Now())
		if text := c.publishErr.Load(); text != nil {
			return *text
		}
		return ""
	}
	at := time.Now()
	c.list = guard.List{Provider: provider.File, Devices: topologytest.ManyDevices(1), At: at, HealthySince: at}
	unfit := policyFile{policy: policy.Policy{}, text: "unfit"} // its every value is out of bounds
	c.policy.Store(&unfit)
	if text := published(); !strings.Contains(text, "the last good resources stay") || c.published.Load() != nil {
		t.Fatalf("there is no good policy, and yet something was published: %q", text)
	}

	last, err := parsePolicy(file, "services: {shop: {hosts: [shop.example.com]}}")
	if err != nil {
		t.Fatal(err)
	}
	c.good = &last
	for range 3 {
		if text := published(); text != "" || c.published.Load() == nil {
			t.Fatalf("the last good policy is not served: %q", text)
		}
		c.policy.Store(&policyFile{policy: unfit.policy, text: unfit.text, unfit: c.policy.Load().unfit})
	}
	if c.good.text != last.text {
		t.Errorf("the good policy is now %q", c.good.text)
	}
	if wrong := c.policy.Load().wrong(); !strings.HasPrefix(wrong, file+": ") || !strings.Contains(wrong, "the last good resources stay") {
		t.Errorf("what is wrong: %q", wrong)
	}
	if n := strings.Count(log.String(), "the policy can't be published"); n != 1 {
		t.Errorf("it was logged %d times, want once:\n%s", n, log.String())
	}

	c.policy.Store(&policyFile{policy: policy.Default(), unfit: "something"})
	same, err := loadPolicy(file)
	if c.applyEdit(edit{same, err}) {
		t.Error("the file says nothing new, and is taken for an edit")
	}
	if text := published(); text != "" || c.policy.Load().wrong() != "" {
		t.Errorf("now it fits: %q, %q", text, c.policy.Load().wrong())
	}
}

// Idle, the file is not even read but every two seconds, and what is read is
// parsed only if it is another text.
func TestPolicyWatcher_edits_areFoundOnceEach(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	past := now.Add(-time.Hour)
	w := policyWatcher{path: path}
	look := func(after time.Duration, want string) {
		t.Helper()
		now = now.Add(after)
		text, changed, err := w.look(now)
		got := "nothing"
		switch {
		case err != nil:
			got = "error"
		case changed:
			got = string(text)
		}
		if got != want {
			t.Fatalf("it found %q, want %q", got, want)
		}
	}
	look(0, "error") // there is none yet
	look(pollInterval, "nothing")
	write(path, "one")
	look(pollInterval, "one")
	for range 100 { // 25 s
		look(pollInterval, "nothing")
	}
	// The same size, and the same time to the nanosecond, in the same file.
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	look(pollInterval, "nothing")
	write(path, "two")
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	look(rereadInterval, "two")
	// Another file under the name, of the same size and time.
	write(path+".new", "six")
	if err := errors.Join(os.Chtimes(path+".new", past, past), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
	look(pollInterval, "six")
	// As Kubernetes swaps a ConfigMap: a link to a file in a directory that is a
	// link.
	for _, version := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		of := filepath.Join(dir, version, "policy.yaml")
		write(of, version)
		if err := os.Chtimes(of, past, past); err != nil {
			t.Fatal(err)
		}
	}
	w.path = filepath.Join(dir, "mounted.yaml")
	data := filepath.Join(dir, "..data")
	if err := errors.Join(os.Symlink("v1", data), os.Symlink(filepath.Join("..data", "policy.yaml"), w.path)); err != nil {
		t.Fatal(err)
	}
	look(pollInterval, "v1")
	if err := errors.Join(os.Symlink("v2", data+"_tmp"), os.Rename(data+"_tmp", data)); err != nil {
		t.Fatal(err)
	}
	look(pollInterval, "v2")
	if err := os.Remove(w.path); err != nil {
		t.Fatal(err)
	}
	look(pollInterval, "error")
	look(pollInterval, "nothing")
	look(rereadInterval, "nothing")
	write(w.path, strings.Repeat("x", 3<<20))
	now = now.Add(pollInterval)
	if text, changed, err := w.look(now); !changed || err != nil || len(text) != policyfile.MaxBytes {
		t.Errorf("of a large file %d bytes, %v", len(text), err)
	}
}

func TestWatchPolicy_idle_parsesOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(path, []byte("defaults: {retries: 1}"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := &ControlPlane{config: Config{PolicyFile: path}, policyEdits: make(chan edit)}
		ctx, cancel := context.WithCancel(t.Context())
		var parsed []uint32
		go func() {
			for {
				select {
				case e := <-d.policyEdits:
					parsed = append(parsed, e.policy.policy.Defaults.Retries)
				case <-ctx.Done():
					return
				}
			}
		}()
		ended := make(chan error)
		go func() { ended <- d.watchPolicy(ctx) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if !slices.Equal(parsed, []uint32{1}) {
			t.Errorf("it parsed %d times: %v", len(parsed), parsed)
		}
		if err := os.WriteFile(path, []byte("defaults: {retries: 2}"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rereadInterval)
		synctest.Wait()
		if !slices.Equal(parsed, []uint32{1, 2}) {
			t.Errorf("after an edit: %v", parsed)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
