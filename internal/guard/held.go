package guard

import (
	"fmt"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// Held tells of the endpoints of one service that are published against the
// list.
type Held struct {
	Service string `json:"service"`
	// Endpoints are held, as they were published last.
	Endpoints []HeldEndpoint `json:"endpoints"`
	// Lacks is how many devices that serve, or did of late, are lost, and Of
	// how many those are.
	Lost  int `json:"lacks"`
	Total int `json:"of"`
	// Since is when this loss was first seen.
	Since time.Time `json:"since"`
	// Until is when the next list can let it through; absent if time will not.
	Until *time.Time `json:"until,omitempty"`
	// Reason says why it is held and what ends that.
	Reason string `json:"reason"`
}

// HeldEndpoint is one endpoint that stays, and what the list says of it.
type HeldEndpoint struct {
	Device  string `json:"device"`
	Name    string `json:"name"`
	Address string `json:"address"`
	// Listed is "missing", "offline", "withdrawn" (its tags and grants name the
	// service no longer), "drained", "expiring" or "expired".
	Listed string `json:"listed"`
}

// Degraded is a service that nobody serves, or only who is held.
type Degraded struct {
	Service string `json:"service"`
	// Of is how many devices are known to it.
	Known int `json:"of"`
}

func (d Degraded) String() string { return fmt.Sprintf("%s: 0 of %d serving", d.Service, d.Known) }

// serviceFindings are what decided about one service.
type serviceFindings struct {
	lost, total                 int
	exceedsFraction, noneServes bool
	clock                       Loss
}

// reportService adds what is held of a service to the verdict, and whether anybody
// serves it.
func (j *decider) reportService(service string, h evidence, held []topology.Endpoint, f serviceFindings) {
	if known := h.countKnown(held); len(h.serving) == 0 && known > 0 {
		j.decision.Degraded = append(j.decision.Degraded, Degraded{service, known})
	}
	if len(held) == 0 {
		return
	}
	told := Held{Service: service, Lost: f.lost, Total: f.total, Since: f.clock.Since}
	if told.Since.IsZero() {
		told.Since = j.input.Now // drains alone
	}
	for _, e := range held {
		told.Endpoints = append(told.Endpoints, HeldEndpoint{e.Device, e.Name, e.Address.String(), h.listState(e.Device)})
	}
	if !f.noneServes && j.healthy() {
		until := f.clock.confirmedAt.Add(j.input.HoldFor - f.clock.ConfirmedFor)
		told.Until = &until
		if j.decision.NextListAt.IsZero() || until.Before(j.decision.NextListAt) {
			j.decision.NextListAt = until
		}
	}
	told.Reason = j.reason(told, f)
	j.decision.Held = append(j.decision.Held, told)
}

// countKnown counts the devices of a service.
func (h evidence) countKnown(held []topology.Endpoint) int {
	return len(deviceIDs(append(h.idleBeside(nil), append(held, h.serving...)...)))
}

// listState is what the list says of a device that is held.
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

func (j *decider) reason(held Held, f serviceFindings) string {
	command := "`tailxds accept " + held.Service + "`"
	switch {
	case f.noneServes:
		return fmt.Sprintf("%s: the last %d that serve are %s at once; they stay until another serves, or until %s",
			held.Service, len(held.Endpoints), held.listStates(), command)
	case !j.healthy():
		return fmt.Sprintf("%s: %d of %d serving devices are %s while %s; judged again when that is mended, or applied at once by %s",
			held.Service, held.Lost, held.Total, held.listStates(), j.input.List.UnhealthyReason, command)
	default:
		return fmt.Sprintf("%s: %d of %d serving devices are %s at once; applied at %s if that stands, or at once by %s",
			held.Service, held.Lost, held.Total, held.listStates(), held.Until.Format(time.TimeOnly), command)
	}
}

// listStates are what the list says of the held endpoints, "missing or offline".
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
