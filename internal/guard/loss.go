package guard

import (
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// split gives the endpoints that were published and do not serve by what was
// heard: those that are lost, and those that leave by a drain.
func (h hearing) split(was Service, accepted map[string]bool) (lost, left []topology.Endpoint) {
	for _, e := range was.Published {
		switch {
		case h.serves[e.Device] || accepted[e.Device]:
		case h.drained(e.Device):
			left = append(left, e)
		default:
			lost = append(lost, e)
		}
	}
	return lost, left
}

// drained tells whether a device leaves on purpose, or by its key. One that
// serves on another port does not leave.
func (h hearing) drained(id string) bool {
	if h.serves[id] {
		return false
	}
	switch h.why[id] {
	case topology.Drained, topology.Expiring, topology.Expired:
		return true
	default:
		return false
	}
}

// count returns the devices that served, of late too, and are lost, and those that
// a loss is measured against. While devices of a loss are held back, those are the
// devices that served when it began: a device that joins meanwhile does not dilute it.
// Where nothing is held back they are counted anew, so that a rolling replacement,
// whose new devices serve before the old ones go, is not held.
func (j *judge) count(h hearing, was Service, accepted map[string]bool) (lost, served []string) {
	for _, id := range devices(slices.Concat(was.Published, was.Gone)) {
		if h.drained(id) || accepted[id] {
			continue
		}
		served = append(served, id)
		if !h.serves[id] {
			lost = append(lost, id)
		}
	}
	holding := slices.ContainsFunc(lost, func(id string) bool {
		return slices.Contains(was.Held, id) && slices.Contains(was.Loss.Devices, id) // and not held for another reason
	})
	if holding && len(was.Loss.Served) > 0 {
		served = was.Loss.Served
	}
	return lost, served
}

// present counts the devices that a loss is measured against: those that served
// when it began, without those that leave on purpose, and those that are lost.
func (h hearing) present(served, lost []string, accepted map[string]bool) int {
	of := slices.DeleteFunc(slices.Concat(served, lost), func(id string) bool { return h.drained(id) || accepted[id] })
	slices.Sort(of)
	return len(slices.Compact(of))
}

// expiring are the idle endpoints that serve where no other does: their keys expire
// soon, and until then they can.
func (j *judge) expiring(h hearing, beside []topology.Endpoint, dismissed []string) []topology.Endpoint {
	online := make(map[string]bool)
	for _, d := range j.c.List.Devices {
		since, known := j.v.Memory.Offline[d.ID]
		online[d.ID] = d.Online || (known && j.c.Now.Before(since.Add(j.c.Grace)))
	}
	taken := make(map[netip.AddrPort]bool)
	for _, e := range beside {
		taken[e.Address] = true
	}
	var all []topology.Endpoint
	for _, e := range h.idle {
		if !h.expires(e) || !online[e.Device] || taken[e.Address] || slices.Contains(dismissed, e.Device) {
			continue
		}
		e.State = topology.Serving
		all = append(all, e)
	}
	return all
}

// expires reports whether an idle endpoint could serve until its key expires.
func (h hearing) expires(e topology.Endpoint) bool {
	return e.State == topology.Expiring && !e.DrainRequested()
}

// dismissed are those of some devices whose keys still expire soon, sorted.
func (h hearing) dismissed(ids []string) []string {
	var all []string
	for _, e := range h.idle {
		if h.expires(e) && slices.Contains(ids, e.Device) {
			all = append(all, e.Device)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// clock measures for how long lists have confirmed just this loss.
func (j *judge) clock(l Loss, devices []string) Loss {
	at := j.c.List.At
	switch {
	case len(devices) == 0:
		return Loss{}
	case !slices.Equal(l.Devices, devices):
		l = Loss{Devices: devices, Since: j.c.Now}
		if j.healthy() {
			l.last = j.c.Now
		}
		return l
	}
	switch {
	case !j.healthy():
		l.Stood, l.last = 0, time.Time{}
	case !at.After(l.last):
	case l.last.IsZero():
		l.last = at
	case j.c.List.HealthySince.After(l.last):
		l.Stood, l.last = 0, at // it was not well in between
	default:
		l.Stood += at.Sub(l.last)
		l.last = at
	}
	return l
}

// stillGone are the endpoints that count as lost for a further loss: those that
// went, did not come back, and whose loss has not stood its time.
func stillGone(all []topology.Endpoint, loss []string, stood bool) []topology.Endpoint {
	var gone []topology.Endpoint
	seen := make(map[string]bool)
	for _, e := range all {
		_, counts := slices.BinarySearch(loss, e.Device)
		if !counts || stood || seen[e.Device] {
			continue
		}
		seen[e.Device] = true
		gone = append(gone, e)
	}
	return gone
}
