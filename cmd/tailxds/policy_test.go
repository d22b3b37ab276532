package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/xds"
)

// A policy that can be read and not published delays no device, is told once,
// and is tried again with each publication.
func TestAPolicyThatCannotBePublished(t *testing.T) {
	var log lockedBuffer
	d := &daemon{
		o: options{Config: filepath.Join(t.TempDir(), "policy.yaml")}, log: slog.New(slog.NewTextHandler(&log, nil)),
		server: xds.NewServer(xds.Config{DefaultService: "server"}),
	}
	if err := os.WriteFile(d.o.Config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first := topology.Topology{Services: []topology.Service{{Name: "server"}}}
	unfit := policyFile{policy: xds.Policy{}, text: "unfit"} // its every value is out of bounds
	d.policy.Store(&unfit)
	if err := d.serve(first); err == nil {
		t.Fatal("there is no good policy, and yet something was published")
	}

	kept := "services: {shop: {hosts: [shop.example.com]}}"
	if err := d.firstPolicy(kept); err != nil {
		t.Fatal(err)
	}
	d.policy.Store(&unfit)
	for range 3 {
		if err := d.serve(first); err != nil {
			t.Fatalf("the last good policy is not served: %v", err)
		}
	}
	if d.good.text != kept {
		t.Errorf("the good policy is now %q", d.good.text)
	}
	if wrong := d.policy.Load().wrong(); !strings.HasPrefix(wrong, d.o.Config+": ") || !strings.Contains(wrong, "the last good resources stay") {
		t.Errorf("what is wrong: %q", wrong)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors were logged, want one:\n%s", n, log.String())
	}

	d.policy.Store(&policyFile{policy: xds.DefaultPolicy(), unfit: "something"})
	if d.reloadPolicy() {
		t.Error("the file says nothing new, and is taken for an edit")
	}
	if err := d.serve(first); err != nil || d.policy.Load().wrong() != "" {
		t.Errorf("now it fits: %v, %q", err, d.policy.Load().wrong())
	}
}
