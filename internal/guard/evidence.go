package guard

import (
	"fmt"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// returnGrace is how long those may take that connect again once they can. An
// Envoy tries at growing intervals of up to 30 s; a node's tailscaled waits up to
// 45 s between two tries to reach the coordination server:
// https://pkg.go.dev/tailscale.com/util/backoff.
const returnGrace = 45 * time.Second

// envoyConfirms tells whether a device's own Envoy says that it is there, against the
// list, and makes a problem of that. The reason says where "is" or "was" belongs.
func (j *decider) envoyConfirms(e topology.Endpoint, subject, reason string) bool {
	seen, connected := j.input.Now, j.input.Connected[e.Address.Addr()]
	verb := "is"
	if !connected {
		var known bool
		if seen, known = j.confirmed[e.Device]; !known {
			return false
		}
		until := seen.Add(j.input.Grace)
		if seen.Before(j.input.StreamsSince) || seen.After(j.input.Now) { // remembered, maybe by a wrong clock
			until = j.input.StreamsSince.Add(returnGrace)
		}
		if !j.input.Now.Before(until) {
			return false
		}
		j.wakeAt(until)
		verb = "was"
	}
	j.decision.Memory.ConfirmedByEnvoy[e.Device] = seen
	p := topology.Problem{Device: e.Device, Name: e.Name, Subject: subject, Reason: fmt.Sprintf(reason, verb)}
	if !slices.Contains(j.decision.Problems, p) {
		j.decision.Problems = append(j.decision.Problems, p)
	}
	return true
}

// withinReturnGrace tells whether an endpoint that the list calls offline served before the
// source failed, and may still be on its way back to the coordination server. The
// word of its Envoy is kept meanwhile.
func (j *decider) withinReturnGrace(e topology.Endpoint, was Service) bool {
	until := j.input.List.HealthySince.Add(returnGrace)
	if !j.healthy() || !j.decision.Memory.mayReturn[e.Device] || !j.input.Now.Before(until) || !was.publishes(e.Device) {
		return false
	}
	j.wakeAt(until)
	j.keepConfirmation(e.Device)
	return true
}

// publishes tells whether a device has an endpoint that was published last.
func (s Service) publishes(device string) bool {
	return slices.ContainsFunc(s.Published, func(e topology.Endpoint) bool { return e.Device == device })
}

// keepConfirmation keeps what an Envoy said of a device that serves for a time without its
// word: when that ends, it may be needed.
func (j *decider) keepConfirmation(id string) {
	seen, known := j.confirmed[id]
	if _, offline := j.decision.Memory.Offline[id]; known && offline {
		j.decision.Memory.ConfirmedByEnvoy[id] = seen
	}
}
