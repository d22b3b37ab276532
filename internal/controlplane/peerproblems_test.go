package controlplane

import (
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/drain/peersync"
)

func TestOthers_names_excludeItself(t *testing.T) {
	o := Config{Hostname: "Plane-1", Peers: []string{"plane-1", "plane-1.example.ts.net", "plane-1:8080", "plane-2", "plane-10:80"}}
	if got := strings.Join(o.others(), " "); got != "plane-2 plane-10:80" {
		t.Errorf("others: %s", got)
	}
	now := time.Now()
	got := peerProblems([]peersync.State{
		{Name: "well", LastAnswer: now, LastPoll: now.Add(-time.Minute)},
		{Name: "new"},
		{Name: "away", Error: "no route", LastAnswer: now},
		{Name: "deaf", LastAnswer: now, LastPoll: now.Add(-time.Minute - 1)},
	}, "plane-1", now)
	if len(got) != 2 || got[0].Name != "away" || got[0].Reason != "what operators tell it is not heard here: no route" ||
		got[1].Name != "deaf" || got[1].Reason != "it does not ask what operators say here: give it --peer plane-1" {
		t.Errorf("estranged: %+v", got)
	}
}
