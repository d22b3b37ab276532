package controlplane

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/topology"
)

// One device with any number of bad tags hides no other's problem, and no list of
// devices makes more problems, or lines of the log, than people read.
func TestSomeProblems_hostileDevices_areBounded(t *testing.T) {
	var all []topology.Problem
	for n := range 10_000 {
		all = append(all, topology.Problem{Device: "bad", Subject: fmt.Sprint("tag:", n), Reason: strings.Repeat("x", 10_000)})
	}
	all = append(all, topology.Problem{Device: "other", Subject: "tag:weight-x"})
	got := boundProblems(all)
	if len(got) != maxProblemsOfOne+2 || got[maxProblemsOfOne].Device != "other" || len(got[0].Reason) > maxReason+len("…") ||
		got[len(got)-1].Reason != "there are 9980 more, of which none is listed: fix some of those above" {
		t.Errorf("%d problems, the last %+v", len(got), got[len(got)-1])
	}
	for n := range 10_000 {
		all = append(all, topology.Problem{Device: fmt.Sprint(n), Subject: "tag:x"}, topology.Problem{Subject: "route", Reason: fmt.Sprint(n)})
	}
	got = boundProblems(all)
	if len(got) != maxProblems+1 {
		t.Errorf("%d problems", len(got))
	}
	var log bytes.Buffer
	l := newProblemLog(slog.New(slog.NewTextHandler(&log, nil)))
	l.update(got, guard.Decision{})
	l.update(nil, guard.Decision{})
	if lines := strings.Count(log.String(), "\n"); lines != 2*(maxLogged+1) || !strings.Contains(log.String(), fmt.Sprintf("lines=%d", len(got)-maxLogged)) {
		t.Errorf("%d lines", lines)
	}
	if few := boundProblems(all[:1]); len(few) != 1 {
		t.Errorf("of one problem: %+v", few)
	}
}
