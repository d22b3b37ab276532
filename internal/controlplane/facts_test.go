package controlplane

import (
	"testing"

	"github.com/tailxds/tailxds/internal/doctor"
)

// Before the control plane has joined, nothing passes that it can't know.
func TestDoctor_beforeJoining_servedDoesNotPass(t *testing.T) {
	facts := doctorFacts(Config{}, newStartup(Config{}, beginning{}).status())
	if facts.Joining == "" {
		t.Fatal("it has joined")
	}
	for _, f := range doctor.Examine(doctor.Facts{ControlPlane: facts, Version: facts.Version}) {
		if f.Category == "services" || f.Check == "publication" && f.Level != doctor.Fail || f.Check == "joined" && f.Level != doctor.Fail {
			t.Errorf("%+v", f)
		}
	}
}
