package guard

import (
	"fmt"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// returnGrace is how long Envoys and devices may take to reconnect once they can. An
// Envoy retries at growing intervals of up to 30 s; a node's tailscaled waits up to
// 45 s between two tries to reach the coordination server:
// https://pkg.go.dev/tailscale.com/util/backoff.
const returnGrace = 45 * time.Second

// envoyConfirms reports whether a device's own Envoy shows that it is there, against
// the list, and adds a problem then. The reason has a place for "is" or "was".
func (dc *decider) envoyConfirms(e topology.Endpoint, subject, reason string) bool {
	seen, connected := dc.input.Now, dc.input.Connected[e.Address.Addr()]
	verb := "is"
	if !connected {
		var known bool
		if seen, known = dc.confirmed[e.Device]; !known {
			return false
		}
		until := seen.Add(dc.input.Grace)
		if seen.Before(dc.input.StreamsSince) || seen.After(dc.input.Now) { // remembered, maybe by a wrong clock
			until = dc.input.StreamsSince.Add(returnGrace)
		}
		if !dc.input.Now.Before(until) {
			return false
		}
		dc.wakeAt(until)
		verb = "was"
	}
	dc.decision.Memory.ConfirmedByEnvoy[e.Device] = seen
	p := topology.Problem{Device: e.Device, Name: e.Name, Subject: subject, Reason: fmt.Sprintf(reason, verb)}
	if !slices.Contains(dc.decision.Problems, p) {
		dc.decision.Problems = append(dc.decision.Problems, p)
	}
	return true
}

// withinReturnGrace reports whether an endpoint that the list calls offline served
// before the source failed and may still be reconnecting to the coordination server.
// Its Envoy's confirmation is kept meanwhile.
func (dc *decider) withinReturnGrace(e topology.Endpoint, was Service) bool {
	until := dc.input.List.HealthySince.Add(returnGrace)
	if !dc.healthy() || !dc.decision.Memory.mayReturn[e.Device] || !dc.input.Now.Before(until) || !was.publishes(e.Device) {
		return false
	}
	dc.wakeAt(until)
	dc.keepConfirmation(e.Device)
	return true
}

// publishes reports whether a device has an endpoint in the last publication.
func (s Service) publishes(device string) bool {
	return slices.ContainsFunc(s.Published, func(e topology.Endpoint) bool { return e.Device == device })
}

// keepConfirmation keeps an Envoy's confirmation of a device that does not need it
// now, but may when its grace ends.
func (dc *decider) keepConfirmation(id string) {
	seen, known := dc.confirmed[id]
	if _, offline := dc.decision.Memory.Offline[id]; known && offline {
		dc.decision.Memory.ConfirmedByEnvoy[id] = seen
	}
}
