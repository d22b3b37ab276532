package guard

import (
	"fmt"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// Held describes the endpoints of one service that are published against the list.
type Held struct {
	Service string `json:"service"`
	// Endpoints are the held endpoints, as they were last published.
	Endpoints []HeldEndpoint `json:"endpoints"`
	// Lost is how many devices that serve, or did recently, are lost; Total is how
	// many those are measured against.
	Lost  int `json:"lacks"`
	Total int `json:"of"`
	// Since is when this loss was first seen.
	Since time.Time `json:"since"`
	// Until is when the next list can end the hold; absent if time alone does not.
	Until *time.Time `json:"until,omitempty"`
	// Reason says why the endpoints are held, and what ends that.
	Reason string `json:"reason"`
}

// HeldEndpoint is a held endpoint and its state in the list.
type HeldEndpoint struct {
	Device  string `json:"device"`
	Name    string `json:"name"`
	Address string `json:"address"`
	// Listed is "missing", "offline", "withdrawn" (its tags and grants name the
	// service no longer), "drained", "expiring" or "expired".
	Listed string `json:"listed"`
}

// Degraded is a service without a serving endpoint, or with held ones only.
type Degraded struct {
	Service string `json:"service"`
	// Known is how many devices of the service are known.
	Known int `json:"of"`
}

func (d Degraded) String() string { return fmt.Sprintf("%s: 0 of %d serving", d.Service, d.Known) }

// serviceFindings are what a decision about one service was based on.
type serviceFindings struct {
	lost, total                 int
	exceedsFraction, noneServes bool
	clock                       Loss
}

// reportService adds a service's held endpoints to the decision, and whether it is
// degraded.
func (dc *decider) reportService(service string, h evidence, held []topology.Endpoint, f serviceFindings) {
	if known := h.countKnown(held); len(h.serving) == 0 && known > 0 {
		dc.decision.Degraded = append(dc.decision.Degraded, Degraded{service, known})
	}
	if len(held) == 0 {
		return
	}
	hold := Held{Service: service, Lost: f.lost, Total: f.total, Since: f.clock.Since}
	if hold.Since.IsZero() {
		hold.Since = dc.input.Now // only drains are held
	}
	for _, e := range held {
		hold.Endpoints = append(hold.Endpoints, HeldEndpoint{e.Device, e.Name, e.Address.String(), h.listState(e.Device)})
	}
	if !f.noneServes && dc.healthy() {
		until := f.clock.confirmedAt.Add(dc.input.HoldFor - f.clock.ConfirmedFor)
		hold.Until = &until
		if dc.decision.NextListAt.IsZero() || until.Before(dc.decision.NextListAt) {
			dc.decision.NextListAt = until
		}
	}
	hold.Reason = dc.reason(hold, f)
	dc.decision.Held = append(dc.decision.Held, hold)
}

// countKnown returns the number of the service's devices.
func (h evidence) countKnown(held []topology.Endpoint) int {
	return len(deviceIDs(append(h.idleBeside(nil), append(held, h.serving...)...)))
}

// listState returns the state of a held device in the list.
func (h evidence) listState(id string) string {
	switch state, idle := h.idleState[id]; {
	case idle:
		return string(state)
	case h.missing[id]:
		return "missing"
	default:
		return "withdrawn"
	}
}

func (dc *decider) reason(held Held, f serviceFindings) string {
	command := "`tailxds accept " + held.Service + "`"
	switch {
	case f.noneServes:
		return fmt.Sprintf("%s: the last %d that serve are %s at once; they stay until another serves, or until %s",
			held.Service, len(held.Endpoints), held.listStates(), command)
	case !dc.healthy():
		return fmt.Sprintf("%s: %d of %d serving devices are %s while %s; judged again when that is mended, or applied at once by %s",
			held.Service, held.Lost, held.Total, held.listStates(), dc.input.List.UnhealthyReason, command)
	default:
		return fmt.Sprintf("%s: %d of %d serving devices are %s at once; applied at %s if that stands, or at once by %s",
			held.Service, held.Lost, held.Total, held.listStates(), held.Until.Format(time.TimeOnly), command)
	}
}

// listStates returns the states of the held endpoints in the list, "missing or
// offline".
func (held Held) listStates() string {
	var kinds []string
	for _, kind := range []string{"missing", "offline", "withdrawn", "drained", "expiring", "expired"} {
		for _, e := range held.Endpoints {
			if e.Listed == kind {
				kinds = append(kinds, kind)
				break
			}
		}
	}
	return strings.Join(kinds, " or ")
}
