package topology

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	anyTag = rapid.SampledFrom([]string{
		"tag:weight-0", "tag:weight-1", "tag:weight-7", "tag:weight-x", "tag:weigth-2", "tag:service-a", "tag:service-b", "tag:service-!", "tag:region-x",
		"tag:zone-1", "tag:port-80", "tag:port-81", "tag:port-0", "tag:priority-5", "tag:other",
	})
	anyGrant = rapid.Custom(func(t *rapid.T) json.RawMessage {
		return json.RawMessage(rapid.SampledFrom([]string{
			`{"service":"a","weight":2}`, `{"service":"b"}`, `{"service":"b","port":81}`, `{"weight":"x"}`, `{"service":"a","weight":-1}`, `{`,
		}).Draw(t, "grant"))
	})
	anyAddress = rapid.SampledFrom([]string{"100.64.0.1", "100.64.0.2", "100.64.0.3", "fd7a:115c:a1e0::3", "10.0.0.0/8", "x"})
)

// remembering is what devices said last, for [Rules.LastGood].
func remembering(all map[string]ServiceEndpoints) func(string) ServiceEndpoints {
	return func(id string) ServiceEndpoints { return all[id] }
}

// world is a list of devices and rules that change a little with each step.
type world struct {
	devices []Device
	rules   Rules
	last    Topology
	memory  Memory
}

func (w *world) one(t *rapid.T) *Device {
	if len(w.devices) == 0 {
		t.Skip("there is no device")
	}
	return &w.devices[rapid.IntRange(0, len(w.devices)-1).Draw(t, "device")]
}

// A build with a memory builds what one without does, whatever happened before:
// topology, problems, and when to look again.
func TestAMemoryMakesNoDifference(t *testing.T) {
	start := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	minutes := rapid.IntRange(-3, 20)
	rapid.Check(t, func(t *rapid.T) {
		w := &world{rules: Rules{
			DefaultService: "a", DefaultPort: 80, Now: start, OfflineGrace: time.Minute, DrainWindow: 5 * time.Minute,
			Drains: map[string]Drain{},
		}}
		after := func(t *rapid.T) *time.Time {
			return new(start.Add(time.Duration(minutes.Draw(t, "minutes")) * time.Minute))
		}
		t.Repeat(map[string]func(*rapid.T){
			"joins": func(t *rapid.T) {
				w.devices = append(w.devices, Device{
					ID: rapid.SampledFrom([]string{"", "1", "2", "3", "10", "n1", "n2"}).Draw(t, "id"), Name: "d", Online: true,
					Addresses: rapid.SliceOfN(anyAddress, 0, 2).Draw(t, "addresses"), Tags: rapid.SliceOfN(anyTag, 0, 4).Draw(t, "tags"),
				})
			},
			"leaves": func(t *rapid.T) {
				*w.one(t) = w.devices[len(w.devices)-1]
				w.devices = w.devices[:len(w.devices)-1]
			},
			"moves in the list": func(t *rapid.T) { slices.Reverse(w.devices) },
			"is renamed":        func(t *rapid.T) { w.one(t).Name = rapid.SampledFrom([]string{"d", "e"}).Draw(t, "name") },
			"says otherwise":    func(t *rapid.T) { w.one(t).Tags = rapid.SliceOfN(anyTag, 0, 4).Draw(t, "tags") },
			"writes into what it said": func(t *rapid.T) {
				if d := w.one(t); len(d.Tags) > 0 {
					d.Tags[0] = anyTag.Draw(t, "tag")
				}
			},
			"is granted": func(t *rapid.T) { w.one(t).Grants = rapid.SliceOfN(anyGrant, 0, 2).Draw(t, "grants") },
			"writes into a grant": func(t *rapid.T) {
				if d := w.one(t); len(d.Grants) > 0 {
					copy(d.Grants[0], `{"service"`)
				}
			},
			"has an attribute": func(t *rapid.T) {
				w.one(t).Attributes = map[string]string{"weight": rapid.SampledFrom([]string{"0", "3", "x"}).Draw(t, "weight")}
			},
			"has another address": func(t *rapid.T) { w.one(t).Addresses = rapid.SliceOfN(anyAddress, 0, 2).Draw(t, "addresses") },
			"goes or comes":       func(t *rapid.T) { d := w.one(t); d.Online, d.OfflineSince = !d.Online, after(t) },
			"has a key that ends": func(t *rapid.T) { w.one(t).Expires = after(t) },
			"is drained":          func(t *rapid.T) { w.rules.Drains[w.one(t).ID] = Drain{By: "op", Until: *after(t)} },
			"is restored":         func(t *rapid.T) { delete(w.rules.Drains, w.one(t).ID) },
			"time passes":         func(t *rapid.T) { w.rules.Now = w.rules.Now.Add(time.Minute) },
			"other rules": func(t *rapid.T) {
				w.rules.PreferIPv6 = rapid.Bool().Draw(t, "6")
				w.rules.DefaultService = rapid.SampledFrom([]string{"a", "c"}).Draw(t, "default")
				w.rules.DefaultPort = rapid.SampledFrom([]uint16{80, 81}).Draw(t, "port")
			},
			"remembers what was said": func(t *rapid.T) { w.rules.LastGood = remembering(w.last.ByDevice()) },
			"": func(t *rapid.T) {
				want, wantProblems := Build(w.devices, w.rules)
				got, problems, memory := w.memory.Build(w.devices, w.rules)
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("got  %+v\nwant %+v", got, want)
				}
				if !slices.Equal(problems, wantProblems) {
					t.Fatalf("problems: got %v\nwant %v", problems, wantProblems)
				}
				if again, _, _ := w.memory.Build(w.devices, w.rules); !reflect.DeepEqual(again, want) {
					t.Fatalf("the memory was changed: %+v", again)
				}
				w.last, w.memory = got, memory
			},
		})
	})
}

// Of many devices only the one that changed is read, and only its service is
// grouped, whoever else left: the rest is not even copied.
func TestWhatDidNotChangeIsTakenOver(t *testing.T) {
	devices := make([]Device, 100)
	for i := range devices {
		devices[i] = Device{
			ID: fmt.Sprint(i), Name: "d", Online: true, Addresses: []string{fmt.Sprintf("100.64.0.%d", i)},
			Tags: []string{fmt.Sprintf("tag:service-s%d", i/10), "tag:weight-1"},
		}
	}
	rules := Rules{DefaultService: "s0", DefaultPort: 80}
	first, _, memory := Memory{}.Build(devices, rules)
	devices[15].Tags = []string{"tag:service-s1", "tag:weight-3"}
	second, _, after := memory.Build(devices[1:], rules)
	for i, s := range second.Services {
		same := &s.Localities[0].Endpoints[0] == &first.Services[i].Localities[0].Endpoints[0]
		if changed := s.Name == "s0" || s.Name == "s1"; same == changed {
			t.Errorf("service %s: taken over %t", s.Name, same)
		}
	}
	for i := 1; i < len(devices); i++ {
		if same, changed := after.devices[i-1] == memory.devices[i], i == 15; same == changed {
			t.Errorf("device %d: taken over %t", i, same)
		}
	}
}

func BenchmarkBuildAfterOneChange(b *testing.B) {
	devices := make([]Device, 10_000)
	for i := range devices {
		devices[i] = Device{
			ID: fmt.Sprint(i), Name: "d", Online: true, Addresses: []string{fmt.Sprintf("100.64.%d.%d", i>>8, i&255)},
			Tags: []string{fmt.Sprintf("tag:service-s%d", i/100), "tag:weight-1", "tag:region-west"},
		}
	}
	rules := Rules{DefaultService: "s0", DefaultPort: 80}
	for _, remembers := range []bool{false, true} {
		b.Run(fmt.Sprintf("memory=%t", remembers), func(b *testing.B) {
			b.ReportAllocs()
			var memory Memory
			for i := range b.N {
				devices[0].Tags = []string{"tag:service-s0", fmt.Sprintf("tag:weight-%d", i%2+1)}
				_, _, next := memory.Build(devices, rules)
				if remembers {
					memory = next
				}
			}
		})
	}
}

// Whoever relies on the same devices gets the same of all that is told of them.
func TestSameDevices(t *testing.T) {
	places := rapid.SampledFrom([]string{"", "west", "east"})
	endpoint := rapid.Custom(func(t *rapid.T) Endpoint {
		return Endpoint{
			Device: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "device"), Region: places.Draw(t, "region"), Weight: rapid.Uint32Range(0, 2).Draw(t, "weight"),
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, 0, rapid.Byte().Draw(t, "address") % 3}), 80),
			State:   rapid.SampledFrom([]State{Serving, Drained, Offline, Expired}).Draw(t, "state"),
		}
	})
	both := 0
	rapid.Check(t, func(t *rapid.T) {
		endpoints := rapid.SliceOfN(endpoint, 1, 3).Draw(t, "endpoints")
		a := Topology{Services: []Service{NewService("a", endpoints)}}
		other := slices.Clone(endpoints)
		other[0] = rapid.OneOf(endpoint, rapid.Just(func() Endpoint { e := other[0]; e.Weight++; return e }())).Draw(t, "other")
		b := Topology{Services: []Service{NewService("a", other)}}
		if !a.SameDevices(b) {
			if a.SameDevices(a) && slices.Equal(endpoints, other) {
				t.Fatal("the same topology has other devices")
			}
			return
		}
		both++
		if !maps.Equal(a.Present(), b.Present()) || !maps.Equal(a.Addresses(), b.Addresses()) || !maps.Equal(a.Regions(), b.Regions()) {
			t.Fatalf("not the same devices: %+v and %+v", a, b)
		}
	})
	if both == 0 {
		t.Error("no two topologies had the same devices")
	}
	alone := Topology{Services: []Service{NewService("a", nil)}}
	if !alone.SameDevices(alone) || alone.SameDevices(Topology{}) {
		t.Error("a service without devices counts, too")
	}
}
