package guard

import (
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// splitRemoved returns the published endpoints that serve no longer: those that are
// lost, and those that leave by a drain or their key.
func (h evidence) splitRemoved(was Service, accepted map[string]bool) (lost, left []topology.Endpoint) {
	for _, e := range was.Published {
		switch {
		case h.serves[e.Device] || accepted[e.Device]:
		case h.leaves(e.Device):
			left = append(left, e)
		default:
			lost = append(lost, e)
		}
	}
	return lost, left
}

// leaves reports whether a device leaves by a drain or its key. A device that serves
// on another port does not leave.
func (h evidence) leaves(id string) bool {
	if h.serves[id] {
		return false
	}
	switch h.idleState[id] {
	case topology.Drained, topology.Expiring, topology.Expired:
		return true
	default:
		return false
	}
}

// measureLoss returns the devices that served, recently removed ones included, and
// are lost, and the devices that the loss is measured against. While devices of a
// loss are held, those are the devices that served when it began: a device that
// joins meanwhile does not dilute it. Otherwise they are counted anew, so that a
// rolling replacement, whose new devices serve before the old ones go, is not held.
func (dc *decider) measureLoss(h evidence, was Service, accepted map[string]bool) (lost, served []string) {
	for _, id := range deviceIDs(slices.Concat(was.Published, was.RecentlyRemoved)) {
		if h.leaves(id) || accepted[id] {
			continue
		}
		served = append(served, id)
		if !h.serves[id] {
			lost = append(lost, id)
		}
	}
	holding := slices.ContainsFunc(lost, func(id string) bool {
		return slices.Contains(was.Held, id) && slices.Contains(was.Loss.Devices, id) // not held for another reason
	})
	if holding && len(was.Loss.Served) > 0 {
		served = was.Loss.Served
	}
	return lost, served
}

// countServed returns the number of devices that a loss is measured against: those
// that served when it began, without those that leave, and the lost ones.
func (h evidence) countServed(served, lost []string, accepted map[string]bool) int {
	of := slices.DeleteFunc(slices.Concat(served, lost), func(id string) bool { return h.leaves(id) || accepted[id] })
	slices.Sort(of)
	return len(slices.Compact(of))
}

// expiringEndpoints returns the idle endpoints that serve where no other does, since
// their keys have not expired yet.
func (dc *decider) expiringEndpoints(h evidence, beside []topology.Endpoint, dismissed []string) []topology.Endpoint {
	online := make(map[string]bool)
	for _, d := range dc.input.List.Devices {
		since, known := dc.decision.Memory.Offline[d.ID]
		online[d.ID] = d.Online || (known && dc.input.Now.Before(since.Add(dc.input.Grace)))
	}
	taken := make(map[netip.AddrPort]bool)
	for _, e := range beside {
		taken[e.Address] = true
	}
	var all []topology.Endpoint
	for _, e := range h.idle {
		if !h.servesUntilExpiry(e) || !online[e.Device] || taken[e.Address] || slices.Contains(dismissed, e.Device) {
			continue
		}
		e.State = topology.Serving
		all = append(all, e)
	}
	return all
}

// servesUntilExpiry reports whether an idle endpoint could serve until its key
// expires.
func (h evidence) servesUntilExpiry(e topology.Endpoint) bool {
	return e.State == topology.Expiring && !e.DrainRequested()
}

// dismissed returns those of some devices whose keys still expire soon, sorted.
func (h evidence) dismissed(ids []string) []string {
	var all []string
	for _, e := range h.idle {
		if h.servesUntilExpiry(e) && slices.Contains(ids, e.Device) {
			all = append(all, e.Device)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// advanceClock measures for how long lists have confirmed exactly this loss.
func (dc *decider) advanceClock(l Loss, devices []string) Loss {
	at := dc.input.List.At
	switch {
	case len(devices) == 0:
		return Loss{}
	case !slices.Equal(l.Devices, devices):
		l = Loss{Devices: devices, Since: dc.input.Now}
		if dc.healthy() {
			l.confirmedAt = dc.input.Now
		}
		return l
	}
	switch {
	case !dc.healthy():
		l.ConfirmedFor, l.confirmedAt = 0, time.Time{}
	case !at.After(l.confirmedAt):
	case l.confirmedAt.IsZero():
		l.confirmedAt = at
	case dc.input.List.HealthySince.After(l.confirmedAt):
		l.ConfirmedFor, l.confirmedAt = 0, at // it was unhealthy in between
	default:
		l.ConfirmedFor += at.Sub(l.confirmedAt)
		l.confirmedAt = at
	}
	return l
}

// recentlyRemoved returns the endpoints that count as lost for a further loss:
// removed, not back, and lost for less than the time that confirms a loss.
func recentlyRemoved(all []topology.Endpoint, loss []string, confirmed bool) []topology.Endpoint {
	var gone []topology.Endpoint
	seen := make(map[string]bool)
	for _, e := range all {
		_, counts := slices.BinarySearch(loss, e.Device)
		if !counts || confirmed || seen[e.Device] {
			continue
		}
		seen[e.Device] = true
		gone = append(gone, e)
	}
	return gone
}
