// Package guard decides what may be published. Envoy keeps its configuration while
// its control plane is away, so the worst that a control plane can do is to publish
// a wrong one: of a partial device list, a mistyped tag, or a region that the
// coordination server lost touch with.
//
// It is pure. The last publication, the topology of the current list, the connected
// Envoys and the time go in; what may be published, what is held and until when come
// out. Its state is one value, [Memory].
package guard

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// Memory is the guard's state between decisions and over restarts. Its zero value is
// empty. A Memory is immutable: methods return another one.
type Memory struct {
	// Provider is the source of the device IDs. Devices of another source are
	// recognized by their addresses.
	Provider string `json:"provider"`
	// List is when the last list was taken; zero before the first.
	List time.Time `json:"list,omitzero"`
	// Offline is since when devices that served once are offline.
	Offline map[string]time.Time `json:"offline,omitempty"`
	// ConfirmedByEnvoy are the devices that serve only because their own Envoy
	// confirms them, and when it was last connected.
	ConfirmedByEnvoy map[string]time.Time `json:"witnessed,omitempty"`
	// Services are the published services by name.
	Services map[string]Service `json:"services,omitempty"`

	// mayReturn are the devices that were published when the source recovered, and are
	// offline in each list since: they may be reconnecting.
	mayReturn map[string]bool
}

// Service is the state of one service.
type Service struct {
	// Published are the endpoints that serve by the last publication.
	Published []topology.Endpoint `json:"published,omitempty"`
	// LastDescribed are the endpoints as devices described them last, idle ones
	// included. They count where a value cannot be read: see [topology.Rules].
	LastDescribed []topology.Endpoint `json:"said,omitempty"`
	// RecentlyRemoved are endpoints that were removed before their loss was confirmed
	// for long: a further loss is counted together with theirs.
	RecentlyRemoved []topology.Endpoint `json:"gone,omitempty"`
	// Loss is the loss that is being confirmed.
	Loss Loss `json:"loss,omitzero"`
	// Held are the IDs of the devices that are published against the list.
	Held []string `json:"held,omitempty"`
	// Dismissed are the IDs of devices whose key expires soon, and whose removal an
	// operator accepted although no other endpoint serves.
	Dismissed []string `json:"dismissed,omitempty"`

	accepted bool // Held may go
}

// Loss is a set of devices that served and that lists lack, and for how long exactly
// these.
type Loss struct {
	// Devices are the IDs of the lost devices, sorted.
	Devices []string `json:"devices,omitempty"`
	// Served are the IDs of the devices that served when the loss began, sorted. The
	// loss is measured against them, so devices that join later do not dilute it.
	Served []string `json:"served,omitempty"`
	// Since is when this loss was first seen.
	Since time.Time `json:"since,omitzero"`
	// ConfirmedFor is for how long lists have confirmed it without a break.
	ConfirmedFor time.Duration `json:"stood,omitempty"`

	// confirmedAt is when a list confirmed it last; zero after a restart, so that the
	// time without a control plane does not count.
	confirmedAt time.Time
}

// List is a source's device list and the source's health.
type List struct {
	// Provider is the source's name.
	Provider string
	// Devices are the list's; nil with a zero At before the first list.
	Devices []topology.Device
	// At is when the list was taken; zero for one that was kept from before.
	At time.Time
	// HealthySince is since when the source answers and the control plane's own link
	// to the coordination server is up, both without a break; zero while either fails.
	HealthySince time.Time
	// UnhealthyReason says what fails while HealthySince is zero.
	UnhealthyReason string
}

// Observe records whose devices a list has, and since when each is offline; it
// returns the devices with that time, copied if it differs. A device that served,
// and every device of the first list, counts as online until then: a coordination
// server that has just started may report all of them offline. For the same reason a
// published device counts as offline only since the source recovered: before, it
// could not reconnect.
func (m Memory) Observe(list List) (Memory, []topology.Device) {
	if list.At.IsZero() {
		return m, m.stamp(list.Devices, m.Offline)
	}
	first, again := m.List.IsZero(), m.List.Before(list.HealthySince)
	m = m.adoptIDs(list)
	served, published := m.offlineDevices(list.Devices)
	away := m.mayReturn
	if again { // none could reconnect before
		away = published
	}
	offline, returning := make(map[string]time.Time), make(map[string]bool)
	for _, d := range list.Devices {
		since, known := m.Offline[d.ID]
		if published[d.ID] && since.Before(list.HealthySince) {
			since = list.HealthySince
		}
		if !d.Online && away[d.ID] {
			returning[d.ID] = true
		}
		switch {
		case d.Online:
		case known && !since.After(list.At): // else the clock was wrong
			offline[d.ID] = since
		case first || known || served[d.ID]:
			offline[d.ID] = list.At
		}
	}
	m.Offline, m.mayReturn, m.List = offline, returning, list.At
	return m, m.stamp(list.Devices, offline)
}

// offlineDevices returns which offline devices served, and which are published.
func (m Memory) offlineDevices(devices []topology.Device) (served, published map[string]bool) {
	away := make(map[string]bool)
	for _, d := range devices {
		if !d.Online {
			away[d.ID] = true
		}
	}
	served, published = make(map[string]bool), make(map[string]bool)
	if len(away) == 0 {
		return served, published
	}
	for _, s := range m.Services {
		for _, e := range s.LastDescribed {
			// A device that was offline when it was first listed never served.
			if away[e.Device] && (e.State == topology.Serving || e.State == topology.Drained) {
				served[e.Device] = true
			}
		}
		for _, e := range s.Published {
			if away[e.Device] {
				served[e.Device], published[e.Device] = true, true
			}
		}
	}
	return served, published
}

func (Memory) stamp(devices []topology.Device, offline map[string]time.Time) []topology.Device {
	if len(offline) == 0 && !slices.ContainsFunc(devices, func(d topology.Device) bool { return d.OfflineSince != nil }) {
		return devices // there is nothing to write
	}
	stamped := slices.Clone(devices)
	for i := range stamped {
		stamped[i].OfflineSince = nil
		if since, ok := offline[stamped[i].ID]; ok {
			stamped[i].OfflineSince = &since
		}
	}
	return stamped
}

// adoptIDs replaces remembered IDs by those of the list. A device keeps its ID
// within one provider; otherwise its address identifies it.
func (m Memory) adoptIDs(list List) Memory {
	was := m.Provider
	another := was != "" && was != list.Provider
	m.Provider = list.Provider
	unlisted := m.unlistedEndpoints(list, another)
	if len(unlisted) == 0 {
		return m
	}
	owner := make(map[netip.Addr]string, len(list.Devices))
	for _, d := range list.Devices {
		for _, text := range d.Addresses {
			if a, err := netip.ParseAddr(text); err == nil {
				owner[a.Unmap()] = d.ID
			}
		}
	}
	renamed := make(map[string]string)
	for _, e := range unlisted {
		id, known := owner[e.Address.Addr()]
		switch {
		case known && id != e.Device:
			renamed[e.Device] = id
		case !known && another && !strings.Contains(e.Device, "/"):
			// Must not be mistaken for the device that has this ID here.
			renamed[e.Device] = was + "/" + e.Device
		}
	}
	if len(renamed) == 0 {
		return m
	}
	m.Offline, m.ConfirmedByEnvoy = renameIDs(m.Offline, renamed), renameIDs(m.ConfirmedByEnvoy, renamed)
	services := make(map[string]Service, len(m.Services))
	for name, s := range m.Services {
		services[name] = s.renameIDs(renamed)
	}
	m.Services = services
	return m
}

// unlistedEndpoints returns the remembered endpoints whose device IDs the list
// lacks; all of them, if the list is another provider's.
func (m Memory) unlistedEndpoints(list List, another bool) []topology.Endpoint {
	listed := make(map[string]bool)
	if !another {
		listed = list.ids()
	}
	var all []topology.Endpoint
	for _, s := range m.Services {
		for _, endpoints := range [][]topology.Endpoint{s.Published, s.LastDescribed, s.RecentlyRemoved} {
			for _, e := range endpoints {
				if !listed[e.Device] {
					all = append(all, e)
				}
			}
		}
	}
	return all
}

// renameIDs replaces IDs; of two that become one the later time counts.
func renameIDs(byID map[string]time.Time, to map[string]string) map[string]time.Time {
	all := make(map[string]time.Time, len(byID))
	for id, at := range byID {
		if other, ok := to[id]; ok {
			id = other
		}
		if known, twice := all[id]; !twice || at.After(known) {
			all[id] = at
		}
	}
	return all
}

func (s Service) renameIDs(to map[string]string) Service {
	endpoints := func(all []topology.Endpoint) []topology.Endpoint {
		all = slices.Clone(all)
		for i := range all {
			if id, ok := to[all[i].Device]; ok {
				all[i].Device = id
			}
		}
		return all
	}
	ids := func(all []string) []string {
		all = slices.Clone(all)
		for i := range all {
			if id, ok := to[all[i]]; ok {
				all[i] = id
			}
		}
		slices.Sort(all)
		return all
	}
	s.Published, s.LastDescribed, s.RecentlyRemoved = endpoints(s.Published), endpoints(s.LastDescribed), endpoints(s.RecentlyRemoved)
	s.Loss.Devices, s.Loss.Served = ids(s.Loss.Devices), ids(s.Loss.Served)
	s.Held, s.Dismissed = ids(s.Held), ids(s.Dismissed)
	return s
}

// LastGood returns each device's last description, for [topology.Rules]. It is
// computed when first called.
func (m Memory) LastGood() func(id string) topology.ServiceEndpoints {
	all := sync.OnceValue(m.lastDescribedByDevice)
	return func(id string) topology.ServiceEndpoints { return all()[id] }
}

func (m Memory) lastDescribedByDevice() map[string]topology.ServiceEndpoints {
	all := make(map[string]topology.ServiceEndpoints)
	for name, s := range m.Services {
		for _, e := range s.LastDescribed {
			if all[e.Device] == nil {
				all[e.Device] = make(topology.ServiceEndpoints)
			}
			all[e.Device][name] = append(all[e.Device][name], e)
		}
	}
	return all
}

// ErrNothingHeld is the error of [Memory.Accept] if nothing is held.
var ErrNothingHeld = errors.New("nothing is held; there is nothing to accept")

// Accept makes the next decision remove what is held of one service, or of all if
// service is empty. It returns the names of those services, or [ErrNothingHeld].
func (m Memory) Accept(service string) (Memory, []string, error) {
	var names []string
	services := maps.Clone(m.Services)
	for _, name := range slices.Sorted(maps.Keys(services)) {
		s := services[name]
		if len(s.Held) > 0 && (service == "" || service == name) {
			s.accepted = true
			services[name] = s
			names = append(names, name)
		}
	}
	switch {
	case len(names) > 0:
		m.Services = services
		return m, names, nil
	case service == "":
		return m, nil, ErrNothingHeld
	default:
		return m, nil, fmt.Errorf("service %q: %w", service, ErrNothingHeld)
	}
}

// LossPending reports whether any loss is being confirmed.
func (m Memory) LossPending() bool {
	for _, s := range m.Services {
		if len(s.Loss.Devices) > 0 {
			return true
		}
	}
	return false
}

// EqualExceptTimes reports whether two memories differ in nothing but when the last
// list was taken and how long losses were confirmed.
func (m Memory) EqualExceptTimes(o Memory) bool {
	anyTime := func(time.Time, time.Time) bool { return true }
	return m.Provider == o.Provider && maps.EqualFunc(m.Offline, o.Offline, time.Time.Equal) && maps.EqualFunc(m.ConfirmedByEnvoy, o.ConfirmedByEnvoy, anyTime) &&
		maps.EqualFunc(m.Services, o.Services, func(a, b Service) bool {
			return slices.Equal(a.Published, b.Published) && slices.Equal(a.LastDescribed, b.LastDescribed) && slices.Equal(a.RecentlyRemoved, b.RecentlyRemoved) &&
				slices.Equal(a.Held, b.Held) && slices.Equal(a.Loss.Devices, b.Loss.Devices) &&
				slices.Equal(a.Loss.Served, b.Loss.Served) && slices.Equal(a.Dismissed, b.Dismissed)
		})
}

// Check returns an error if a memory that was read back is invalid.
func (m Memory) Check() error {
	for name, s := range m.Services {
		if err := topology.ValidName(name); err != nil {
			return fmt.Errorf("the service name %q %w", name, err)
		}
		for _, e := range slices.Concat(s.Published, s.LastDescribed, s.RecentlyRemoved) {
			if e.Device == "" || !e.Address.IsValid() || e.Address.Port() == 0 {
				return fmt.Errorf("service %s has an endpoint without device or address", name)
			}
		}
		for _, e := range s.Published {
			if e.State != topology.Serving || e.Weight == 0 {
				return fmt.Errorf("service %s: the published endpoint %s does not serve", name, e.Address)
			}
		}
	}
	return nil
}
