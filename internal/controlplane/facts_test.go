package controlplane

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/tailxds/tailxds/internal/doctor"
	"github.com/tailxds/tailxds/internal/store"
	"github.com/tailxds/tailxds/internal/topology"
)

// Before the control plane has joined, nothing passes that it can't know.
func TestDoctor_beforeJoining_servedDoesNotPass(t *testing.T) {
	d, err := New(Config{Rules: topology.Rules{DefaultService: "server", DefaultPort: 8080}}, store.File(filepath.Join(t.TempDir(), "memory.json")), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	facts := d.AddFacts(t.Context())
	if facts.Joining == "" {
		t.Fatal("it has joined")
	}
	for _, f := range doctor.Examine(doctor.Facts{ControlPlane: facts, Version: facts.Version}) {
		if f.Category == "services" || f.Check == "publication" && f.Level != doctor.Fail || f.Check == "joined" && f.Level != doctor.Fail {
			t.Errorf("%+v", f)
		}
	}
}
