package guard

import (
	"fmt"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// returnWithin is how long an Envoy may take to connect again once it can: it
// tries at growing intervals of up to 30 s.
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

// remember keeps what an Envoy said of a device that serves by its grace: when
// that ends, it may be needed.
func (j *judge) remember(id string) {
	seen, known := j.witnessed[id]
	if _, offline := j.v.Memory.Offline[id]; known && offline {
		j.v.Memory.Witnessed[id] = seen
	}
}
