package guard

import (
	"encoding/json"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tailxds/tailxds/internal/topology"
)

// machine drives the guard with whatever a tailnet, a source and people can do,
// and holds each judgement to the rules. What it knows of the past it counts by
// itself and naively.
type machine struct {
	*world
	devices  []topology.Device
	current  List                           // the last that was judged
	before   map[string][]topology.Endpoint // published, by service
	gone     map[string]map[string]bool     // removed as lost and not forgiven, by service
	history  map[string][]seen
	served   map[string]map[string]bool // when the loss began, by service
	accepted map[string][]string        // IDs, by service; nil if nobody accepted
	// words are when the Envoys were connected on whose word devices served by
	// the last judgement, and saying those of this one.
	words, saying map[string]time.Time
	// away are the devices that were published when the source was well again, and
	// are offline in each list since.
	away map[string]bool
	well time.Time // since when the source was, by the last list
}

// seen is a loss that was judged.
type seen struct {
	lost      []string
	held      []string  // those of them that stay published
	at, now   time.Time // of the list, and of the judgement
	well      time.Time // since when the source was
	unhealthy bool
	restarted bool
}

func TestDecide_randomRuns_rulesHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{world: newWorld(t), before: map[string][]topology.Endpoint{}, gone: map[string]map[string]bool{}, history: map[string][]seen{}, served: map[string]map[string]bool{}, accepted: map[string][]string{}}
		m.devices = append(fleet("a", 5), device(6, "tag:service-b"), device(7, "tag:service-b", "tag:weight-2"))
		m.step(t, time.Second)
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) {
				long := rapid.SampledFrom([]time.Duration{time.Second, 5 * time.Second, 20 * time.Second, 70 * time.Second}).Draw(t, "for")
				m.step(t, long)
			},
			"time passes without a list": func(t *rapid.T) {
				m.now = m.now.Add(rapid.SampledFrom([]time.Duration{time.Second, 20 * time.Second, 70 * time.Second}).Draw(t, "for"))
				m.judged(t)
			},
			"devices come and go": func(t *rapid.T) {
				for i := range m.devices {
					m.devices[i].Online = m.devices[i].Online != (rapid.IntRange(0, 3).Draw(t, "flip") == 0)
				}
				m.step(t, time.Second)
			},
			"a device joins": func(t *rapid.T) {
				if n := len(m.devices) + 1; n < 13 {
					m.devices = append(m.devices, device(n, rapid.SampledFrom([]string{"tag:service-a", "tag:service-b", "tag:service-c"}).Draw(t, "service")))
				}
				m.step(t, time.Second)
			},
			"devices are locked out": func(t *rapid.T) {
				for i := range m.devices {
					m.devices[i].Unreachable = ""
					if rapid.IntRange(0, 3).Draw(t, "this") == 0 {
						m.devices[i].Unreachable = "it is locked out"
					}
				}
				m.step(t, time.Second)
			},
			"tags change": func(t *rapid.T) {
				tags := rapid.SampledFrom([][]string{
					nil,
					{"tag:service-a"},
					{"tag:service-b", "tag:weight-3"},
					{"tag:service-a", "tag:weight-0"},
					{"tag:service-a", "tag:weight-O"},
					{"tag:service-a_", "tag:weight-2"},
					{"tag:servcie-a", "tag:weight-2"},
					{"tag:service-b", "tag:weigth-0"},
					{"tag:service-a", "tag:region-west", "tag:port-x"},
				}).Draw(t, "tags")
				i := rapid.IntRange(0, len(m.devices)-1).Draw(t, "device")
				m.devices[i].Tags = tags
				m.step(t, time.Second)
			},
			"grants change": func(t *rapid.T) {
				grants := rapid.SampledFrom([][]json.RawMessage{
					nil,
					{json.RawMessage(`{"service":"a","port":81}`), json.RawMessage(`{"service":"a","port":82,"weight":2}`)},
					{json.RawMessage(`{"service":"a","port":81}`), json.RawMessage(`{"service":"a","port":82,"weight":0}`)},
					{json.RawMessage(`{"service":"a","port":"81"}`), json.RawMessage(`{"service":"b","port":82}`)},
					{json.RawMessage(`{"servcie":"b","port":81}`), json.RawMessage(`{"Service":"a","port":82}`)},
					{json.RawMessage(`{"service":"a_","port":81}`), json.RawMessage(`{"service":"a","port":82}`)},
				}).Draw(t, "grants")
				m.devices[rapid.IntRange(0, len(m.devices)-1).Draw(t, "device")].Grants = grants
				m.step(t, time.Second)
			},
			"keys run out": func(t *rapid.T) {
				at := m.now.Add(rapid.SampledFrom([]time.Duration{5 * time.Minute, time.Minute, time.Hour}).Draw(t, "in"))
				for i := range m.devices {
					if rapid.Bool().Draw(t, "this") {
						m.devices[i].Expires = &at
					} else {
						m.devices[i].Expires = nil
					}
				}
				m.step(t, time.Second)
			},
			"a list is cut short": func(t *rapid.T) {
				whole := m.devices
				m.devices = whole[:rapid.IntRange(0, len(whole)).Draw(t, "length")]
				m.step(t, time.Second)
				m.devices = whole
			},
			"streams open and close": func(t *rapid.T) {
				clear(m.stream)
				for _, d := range m.devices {
					if rapid.IntRange(0, 2).Draw(t, "stream") == 0 {
						m.stream[netip.MustParseAddr(d.Addresses[0])] = true
					}
				}
				m.judged(t)
			},
			"the source fails": func(t *rapid.T) {
				m.healthy, m.unwell = time.Time{}, "it fails"
				m.step(t, time.Second)
			},
			"the source is well again": func(t *rapid.T) {
				m.healthy = m.now.Add(time.Second)
				m.step(t, time.Second)
			},
			"a person accepts": func(t *rapid.T) {
				service := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "service")
				if next, names, err := m.m.Accept(service); err == nil {
					m.m = next
					for _, name := range names {
						m.accepted[name] = next.Services[name].Held
					}
				}
				m.step(t, time.Second)
			},
			"an operator drains": func(t *rapid.T) {
				word := topology.Drain{By: "op"}
				if long := rapid.SampledFrom([]time.Duration{0, 3 * time.Second, 90 * time.Second}).Draw(t, "for"); long > 0 {
					word.Until = m.now.Add(long)
				}
				m.drains[rapid.SampledFrom(m.devices).Draw(t, "device").ID] = word
				m.step(t, time.Second)
			},
			"an operator restores": func(t *rapid.T) {
				delete(m.drains, rapid.SampledFrom(m.devices).Draw(t, "device").ID)
				m.step(t, time.Second)
			},
			"it restarts": func(t *rapid.T) {
				m.restart()
				m.streams = m.now
				if !m.healthy.IsZero() { // it answers this process since its first list
					m.healthy = m.now.Add(time.Second)
				}
				for service := range m.history {
					m.history[service] = append(m.history[service], seen{restarted: true})
				}
				if rapid.Bool().Draw(t, "the source is away") {
					m.current.At, m.current.HealthySince, m.current.UnhealthyReason = time.Time{}, time.Time{}, "no list has come"
					m.judged(t)
				} else {
					m.step(t, time.Second)
				}
			},
		})
	})
}

// step judges a list of now.
func (m *machine) step(t *rapid.T, after time.Duration) {
	m.now = m.now.Add(after)
	m.current = List{Provider: m.provider, Devices: slices.Clone(m.devices), At: m.now, HealthySince: m.healthy, UnhealthyReason: m.unwell}
	m.away, m.well = m.stillAway(m.well.Equal(m.healthy)), m.healthy
	m.judged(t)
}

// stillAway are those that were away, and are offline still. If the source failed
// in between, they are all that are published and offline.
func (m *machine) stillAway(sameTime bool) map[string]bool {
	was, away := m.away, make(map[string]bool)
	if !sameTime {
		was = make(map[string]bool)
		for _, endpoints := range m.before {
			for _, e := range endpoints {
				was[e.Device] = true
			}
		}
	}
	for _, d := range m.devices {
		if !d.Online && was[d.ID] {
			away[d.ID] = true
		}
	}
	return away
}

// returns tells whether an endpoint served before the source failed, and may
// still be on its way back.
func (m *machine) returns(service string, e topology.Endpoint) bool {
	return m.away[e.Device] && slices.Contains(deviceIDs(m.before[service]), e.Device) && !m.current.HealthySince.IsZero() &&
		m.now.Before(m.current.HealthySince.Add(returnGrace))
}

// judged judges by the last list and holds the verdict to the rules.
func (m *machine) judged(t *rapid.T) {
	m.judge(m.current)
	m.words, m.saying = m.saying, make(map[string]time.Time)
	built := make(map[string]topology.Service)
	for _, s := range m.built.Services {
		built[s.Name] = s
	}
	published := make(map[string][]topology.Endpoint)
	for _, s := range m.last.Topology.Services {
		published[s.Name] = s.Serving()
	}
	for service, was := range m.before {
		if _, there := published[service]; !there && len(was) > 0 && m.accepted[service] == nil {
			t.Fatalf("service %s is gone", service)
		} else if !there {
			published[service] = nil
		}
	}
	for _, service := range slices.Sorted(maps.Keys(published)) {
		m.rules(t, service, built[service], published[service])
	}
	m.before = published
	clear(m.accepted)
	m.again(t)
}

// again judges once more without a new fact: at once, and in the last moment before
// the verdict says that time alone may change something.
func (m *machine) again(t *rapid.T) {
	moments := []time.Time{m.now}
	if next := m.last.Topology.Next; next.After(m.now) {
		moments = append(moments, next.Add(-time.Nanosecond))
	}
	memory := m.m
	for _, now := range moments {
		var l List
		l, l.Devices = m.current, nil
		memory, l.Devices = memory.Observe(m.current)
		v := Decide(memory, m.at(now, memory, l))
		for i, s := range v.Topology.Services {
			if !slices.Equal(s.Serving(), m.last.Topology.Services[i].Serving()) {
				t.Fatalf("judged again after %s, %s is served by %v, and was by %v", now.Sub(m.now), s.Name, s.Serving(), m.last.Topology.Services[i].Serving())
			}
		}
		if len(v.Topology.Services) != len(m.last.Topology.Services) || !reflect.DeepEqual(losses(v.Held), losses(m.last.Held)) {
			t.Fatalf("judged again after %s: held %+v, and was %+v", now.Sub(m.now), v.Held, m.last.Held)
		}
		memory = v.Memory
	}
}

// losses are what is held, without the time of drains alone: these have no loss that
// began, so that it is the time of the judgement.
func losses(held []Held) []Held {
	held = slices.Clone(held)
	for i := range held {
		if held[i].Lost == 0 {
			held[i].Since = time.Time{}
		}
	}
	return held
}

// vouched tells whether a device's own Envoy is connected, or may come again.
func (m *machine) vouched(e topology.Endpoint) bool {
	if m.stream[e.Address.Addr()] {
		m.saying[e.Device] = m.now
		return true
	}
	at, known := m.words[e.Device]
	until := at.Add(grace)
	if at.Before(m.streams) {
		until = m.streams.Add(returnGrace)
	}
	if !known || !m.now.Before(until) {
		return false
	}
	m.saying[e.Device] = at
	return true
}

func (m *machine) offline(id string) bool {
	return slices.ContainsFunc(m.current.Devices, func(d topology.Device) bool { return d.ID == id && !d.Online })
}

func (m *machine) rules(t *rapid.T, service string, built topology.Service, now []topology.Endpoint) {
	was, accepted := m.before[service], m.accepted[service] != nil
	serving, state := make(map[string]bool), make(map[string]topology.State)
	word := func(id string) bool {
		d, said := m.drains[id]
		return said && (d.Until.IsZero() || m.now.Before(d.Until))
	}
	for _, e := range built.Serving() {
		serving[e.Device] = true
		if at, known := m.words[e.Device]; known && m.offline(e.Device) {
			m.saying[e.Device] = at // it serves by its grace, and may need the word after
		}
		if word(e.Device) {
			t.Fatalf("an operator drained it, and it serves: %+v", e)
		}
		if !slices.Contains(now, e) {
			t.Fatalf("an addition or change waits: %+v", e)
		}
	}
	for _, e := range built.Idle {
		switch {
		case word(e.Device):
			state[e.Device] = topology.Drained
		case state[e.Device] == topology.Offline: // though another of its endpoints is drained
		case e.Weight == 0:
			state[e.Device] = topology.Drained
		default:
			state[e.Device] = e.State
		}
		if e.State != topology.Offline || e.Weight == 0 || word(e.Device) {
			continue
		}
		vouched, returns := m.vouched(e), m.returns(service, e)
		if at, known := m.words[e.Device]; returns && !vouched && known {
			m.saying[e.Device] = at // it may need the word after
		}
		if vouched || returns {
			serving[e.Device] = true
			if !slices.Contains(deviceIDs(now), e.Device) {
				t.Fatalf("it is offline, and its Envoy is connected (%v) or it may come back (%v): %+v", vouched, returns, e)
			}
		}
	}
	listed := make(map[string]bool)
	for _, d := range m.current.Devices {
		listed[d.ID] = true
	}
	for _, e := range was {
		if !listed[e.Device] && !word(e.Device) && m.vouched(e) {
			serving[e.Device] = true
			if !slices.Contains(now, e) {
				t.Fatalf("its Envoy is connected, and it is missing: %+v", e)
			}
		}
	}
	if len(was) > 0 && len(now) == 0 && !accepted {
		t.Fatalf("service %s was emptied", service)
	}
	drains := func(id string) bool {
		return word(id) || !serving[id] && (state[id] == topology.Drained || state[id] == topology.Expiring || state[id] == topology.Expired)
	}
	gone := m.gone[service]
	if gone == nil || accepted {
		gone = make(map[string]bool)
	}
	maps.DeleteFunc(gone, func(id string, _ bool) bool { return drains(id) })
	var removed []string
	for _, e := range was {
		stays := slices.Contains(deviceIDs(now), e.Device)
		switch {
		case serving[e.Device]:
		case stays && !slices.Contains(now, e):
			t.Fatalf("what is held changed: %+v", e)
		case drains(e.Device) && stays && len(serving) > 0:
			t.Fatalf("a drain waits: %+v", e)
		case !stays && !drains(e.Device) && !slices.Contains(m.accepted[service], e.Device):
			removed = append(removed, e.Device)
		}
	}
	for _, id := range removed {
		within := grace
		if m.away[id] {
			within = returnGrace
		}
		if state[id] == topology.Offline && m.now.Before(m.current.HealthySince.Add(within)) {
			t.Fatalf("%s of %s was removed %s after it could come back", id, service, m.now.Sub(m.current.HealthySince))
		}
	}
	m.proportion(t, service, was, gone, serving, drains, removed)
}

// proportion holds removals to the share that may go at once, or to the time
// that their loss stood.
func (m *machine) proportion(t *rapid.T, service string, was []topology.Endpoint, gone, serving map[string]bool, drains func(string) bool, removed []string) {
	all, unwell := maps.Clone(gone), m.current.HealthySince.IsZero()
	for _, e := range was {
		if !drains(e.Device) && !slices.Contains(m.accepted[service], e.Device) {
			all[e.Device] = true
		}
	}
	var lost []string
	for id := range all {
		if !serving[id] {
			lost = append(lost, id)
		}
	}
	slices.Sort(lost)
	all = m.measure(service, all, lost, drains)
	maps.DeleteFunc(gone, func(id string, _ bool) bool { return serving[id] })
	var held []string
	for _, e := range was {
		if slices.Contains(lost, e.Device) && !slices.Contains(removed, e.Device) {
			held = append(held, e.Device)
		}
	}
	m.history[service] = append(m.history[service], seen{lost: lost, held: held, at: m.current.At, now: m.now, well: m.current.HealthySince, unhealthy: unwell})
	stood := m.stood(service)
	if len(removed) > 0 {
		if unwell {
			t.Fatalf("%v of %s were removed while the source is not well", removed, service)
		}
		if 2*len(lost) > len(all) && !stood {
			t.Fatalf("%v of %s were removed: %d of %d are lost, and that did not stand", removed, service, len(lost), len(all))
		}
	}
	if !unwell && 2*len(lost) <= len(all) && len(serving) > 0 {
		for _, e := range was {
			if slices.Contains(lost, e.Device) && !slices.Contains(removed, e.Device) {
				t.Fatalf("%s of %s waits, though only %d of %d are lost", e.Device, service, len(lost), len(all))
			}
		}
	}
	for _, id := range removed {
		gone[id] = true
	}
	if stood && len(serving) > 0 {
		clear(gone)
	}
	m.gone[service] = gone
}

// measure returns what a loss is measured against: the devices that served when it
// began, while any device that was held back is lost still.
func (m *machine) measure(service string, all map[string]bool, lost []string, drains func(string) bool) map[string]bool {
	before := m.history[service]
	goesOn := slices.ContainsFunc(lost, func(id string) bool {
		for _, s := range slices.Backward(before) {
			if !s.restarted {
				return slices.Contains(s.held, id)
			}
		}
		return false
	})
	if !goesOn {
		m.served[service] = maps.Clone(all)
	}
	of := maps.Clone(m.served[service])
	maps.DeleteFunc(of, func(id string, _ bool) bool { return drains(id) || slices.Contains(m.accepted[service], id) })
	for _, id := range lost {
		of[id] = true
	}
	return of
}

// stood goes through all that was seen of a service, and tells whether lists
// gave the loss of now for long enough.
func (m *machine) stood(service string) bool {
	var lost []string
	var long time.Duration
	var confirmed time.Time
	for _, s := range m.history[service] {
		switch {
		case s.restarted:
			confirmed = time.Time{} // the time that nobody looked does not count
			continue
		case s.unhealthy:
			long, confirmed = 0, time.Time{}
		case !slices.Equal(s.lost, lost):
			long, confirmed = 0, s.now
		case confirmed.IsZero():
			confirmed = s.at
		case s.well.After(confirmed): // it failed in between
			long, confirmed = 0, s.at
		case s.at.After(confirmed):
			long += s.at.Sub(confirmed)
			confirmed = s.at
		}
		lost = s.lost
	}
	return long >= holdFor
}
