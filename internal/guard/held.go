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
	Lacks int `json:"lacks"`
	Of    int `json:"of"`
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
	Of int `json:"of"`
}

func (d Degraded) String() string { return fmt.Sprintf("%s: 0 of %d serving", d.Service, d.Of) }

// findings are what decided about one service.
type findings struct {
	lacks, of      int
	tooMuch, alone bool
	clock          Loss
}

// tell adds what is held of a service to the verdict, and whether anybody
// serves it.
func (j *judge) tell(service string, h hearing, held []topology.Endpoint, f findings) {
	if known := h.known(held); len(h.serving) == 0 && known > 0 {
		j.v.Degraded = append(j.v.Degraded, Degraded{service, known})
	}
	if len(held) == 0 {
		return
	}
	told := Held{Service: service, Lacks: f.lacks, Of: f.of, Since: f.clock.Since}
	if told.Since.IsZero() {
		told.Since = j.c.Now // drains alone
	}
	for _, e := range held {
		told.Endpoints = append(told.Endpoints, HeldEndpoint{e.Device, e.Name, e.Address.String(), h.listed(e.Device)})
	}
	if !f.alone && j.healthy() {
		until := f.clock.last.Add(j.c.HoldFor - f.clock.Stood)
		told.Until = &until
		if j.v.ListAt.IsZero() || until.Before(j.v.ListAt) {
			j.v.ListAt = until
		}
	}
	told.Reason = j.reason(told, f)
	j.v.Held = append(j.v.Held, told)
}

// known counts the devices of a service.
func (h hearing) known(held []topology.Endpoint) int {
	return len(devices(append(h.idleBeside(nil), append(held, h.serving...)...)))
}

// listed is what the list says of a device that is held.
func (h hearing) listed(id string) string {
	switch state, idle := h.why[id]; {
	case idle:
		return string(state)
	case h.gone[id]:
		return "missing"
	default:
		return "withdrawn"
	}
}

func (j *judge) reason(held Held, f findings) string {
	command := "`tailxds accept " + held.Service + "`"
	switch {
	case f.alone:
		return fmt.Sprintf("%s: the last %d that serve are %s at once; they stay until another serves, or until %s",
			held.Service, len(held.Endpoints), held.kinds(), command)
	case !j.healthy():
		return fmt.Sprintf("%s: %d of %d serving devices are %s while %s; judged again when that is mended, or applied at once by %s",
			held.Service, held.Lacks, held.Of, held.kinds(), j.c.List.UnhealthyReason, command)
	default:
		return fmt.Sprintf("%s: %d of %d serving devices are %s at once; applied at %s if that stands, or at once by %s",
			held.Service, held.Lacks, held.Of, held.kinds(), held.Until.Format(time.TimeOnly), command)
	}
}

// kinds are what the list says of the held endpoints, "missing or offline".
func (held Held) kinds() string {
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
