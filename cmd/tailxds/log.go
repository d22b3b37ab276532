package main

import (
	"log/slog"

	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/topology"
)

// log tells each thing once, and once more when it is over.
type log struct {
	to       *slog.Logger
	problems map[topology.Problem]bool
	held     map[string]bool // services
	degraded map[string]bool
}

func newLog(to *slog.Logger) log {
	return log{to: to, problems: map[topology.Problem]bool{}, held: map[string]bool{}, degraded: map[string]bool{}}
}

// tell logs what is new in a judgement, and what is over.
func (l *log) tell(problems []topology.Problem, v guard.Verdict) {
	now := make(map[topology.Problem]bool, len(problems))
	for _, p := range problems {
		now[p] = true
		if !l.problems[p] {
			l.to.Warn("problem", "device", p.Device, "name", p.Name, "subject", p.Subject, "reason", p.Reason)
		}
	}
	for p := range l.problems {
		if !now[p] {
			l.to.Info("problem solved", "device", p.Device, "name", p.Name, "subject", p.Subject)
		}
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
			l.to.Error("DEGRADED: nobody serves", "service", d.Service, "serving", 0, "of", d.Of)
		}
	}
	for service := range l.degraded {
		if !degraded[service] {
			l.to.Info("no longer degraded", "service", service)
		}
	}
	l.degraded = degraded
}
