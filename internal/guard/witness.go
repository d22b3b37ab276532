package guard

import (
	"fmt"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// returnWithin is how long those may take that connect again once they can. An
// Envoy tries at growing intervals of up to 30 s; a node's tailscaled waits up to
// 45 s between two tries to reach the coordination server:
// https://pkg.go.dev/tailscale.com/util/backoff.
const returnWithin = 45 * time.Second

// vouches tells whether a device's own Envoy says that it is there, against the
// list, and makes a problem of that. The reason says where "is" or "was" belongs.
func (j *judge) vouches(e topology.Endpoint, subject, reason string) bool {
	seen, connected := j.c.Now, j.c.Connected[e.Address.Addr()]
	verb := "is"
	if !connected {
		var known bool
		if seen, known = j.witnessed[e.Device]; !known {
			return false
		}
		until := seen.Add(j.c.Grace)
		if seen.Before(j.c.StreamsSince) || seen.After(j.c.Now) { // remembered, maybe by a wrong clock
			until = j.c.StreamsSince.Add(returnWithin)
		}
		if !j.c.Now.Before(until) {
			return false
		}
		j.wake(until)
		verb = "was"
	}
	j.v.Memory.Witnessed[e.Device] = seen
	p := topology.Problem{Device: e.Device, Name: e.Name, Subject: subject, Reason: fmt.Sprintf(reason, verb)}
	if !slices.Contains(j.v.Problems, p) {
		j.v.Problems = append(j.v.Problems, p)
	}
	return true
}

// returns tells whether an endpoint that the list calls offline served before the
// source failed, and may still be on its way back to the coordination server. The
// word of its Envoy is kept meanwhile.
func (j *judge) returns(e topology.Endpoint, was Service) bool {
	until := j.c.List.HealthySince.Add(returnWithin)
	if !j.healthy() || !j.v.Memory.returning[e.Device] || !j.c.Now.Before(until) || !was.publishes(e.Device) {
		return false
	}
	j.wake(until)
	j.remember(e.Device)
	return true
}

// publishes tells whether a device has an endpoint that was published last.
func (s Service) publishes(device string) bool {
	return slices.ContainsFunc(s.Published, func(e topology.Endpoint) bool { return e.Device == device })
}

// remember keeps what an Envoy said of a device that serves for a time without its
// word: when that ends, it may be needed.
func (j *judge) remember(id string) {
	seen, known := j.witnessed[id]
	if _, offline := j.v.Memory.Offline[id]; known && offline {
		j.v.Memory.Witnessed[id] = seen
	}
}
