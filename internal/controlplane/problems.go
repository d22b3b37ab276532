package controlplane

import (
	"fmt"
	"log/slog"

	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/topology"
)

// problemLog logs each problem once when it begins and once when it ends.
type problemLog struct {
	to       *slog.Logger
	problems map[topology.Problem]bool
	held     map[string]bool // services
	degraded map[string]bool
}

func newProblemLog(to *slog.Logger) problemLog {
	return problemLog{to: to, problems: map[topology.Problem]bool{}, held: map[string]bool{}, degraded: map[string]bool{}}
}

const (
	// maxProblems bounds the problems that are kept of one plan, and
	// maxProblemsOfOne those of one device, which may have any number of tags.
	maxProblems      = 2_000
	maxProblemsOfOne = 20
	// maxReason bounds the texts of a problem, which quote what others wrote.
	maxReason = 500
	// maxLogged bounds the lines about problems that one plan logs.
	maxLogged = 100
)

// boundProblems are the first of all problems, and how many there are more.
func boundProblems(all []topology.Problem) []topology.Problem {
	kept, of := make([]topology.Problem, 0, min(len(all), maxProblems)), make(map[string]int)
	for _, p := range all {
		if of[p.Device]++; p.Device != "" && of[p.Device] > maxProblemsOfOne || len(kept) >= maxProblems {
			continue
		}
		p.Subject, p.Reason = cut(p.Subject), cut(p.Reason)
		kept = append(kept, p)
	}
	if more := len(all) - len(kept); more > 0 {
		kept = append(kept, topology.Problem{Subject: "problems", Reason: fmt.Sprintf("there are %d more, of which none is listed: fix some of those above", more)})
	}
	return kept
}

func cut(text string) string {
	if r := []rune(text); len(r) > maxReason {
		return string(r[:maxReason]) + "…"
	}
	return text
}

// update logs what a plan begins and ends.
func (l *problemLog) update(problems []topology.Problem, v guard.Decision) {
	now := make(map[topology.Problem]bool, len(problems))
	lines := 0
	for _, p := range problems {
		now[p] = true
		if !l.problems[p] {
			if lines++; lines <= maxLogged {
				l.to.Warn("problem", "device", p.Device, "name", p.Name, "subject", p.Subject, "reason", p.Reason)
			}
		}
	}
	for p := range l.problems {
		if !now[p] {
			if lines++; lines <= maxLogged {
				l.to.Info("problem solved", "device", p.Device, "name", p.Name, "subject", p.Subject)
			}
		}
	}
	if lines > maxLogged {
		l.to.Warn("more problems came or were solved than are logged: see tailxds status", "lines", lines-maxLogged)
	}
	l.problems = now

	held := make(map[string]bool)
	for _, h := range v.Held {
		held[h.Service] = true
		if !l.held[h.Service] {
			l.to.Warn("a device list is held", "service", h.Service, "reason", h.Reason, "endpoints", len(h.Endpoints))
		}
	}
	for service := range l.held {
		if !held[service] {
			l.to.Info("nothing is held any more", "service", service)
		}
	}
	l.held = held

	degraded := make(map[string]bool)
	for _, d := range v.Degraded {
		degraded[d.Service] = true
		if !l.degraded[d.Service] {
			l.to.Error("DEGRADED: nobody serves", "service", d.Service, "serving", 0, "of", d.Known)
		}
	}
	for service := range l.degraded {
		if !degraded[service] {
			l.to.Info("no longer degraded", "service", service)
		}
	}
	l.degraded = degraded
}
