package topology

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var testNow = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func rules() Rules {
	return Rules{DefaultService: "server", DefaultPort: 8080, Now: testNow, OfflineGrace: 15 * time.Second, DrainWindow: 10 * time.Minute}
}

// device is an online device with an address made of its ID.
func device(id int, tags ...string) Device {
	return Device{ID: fmt.Sprint(id), Name: fmt.Sprintf("d%d", id), Addresses: []string{fmt.Sprintf("100.64.0.%d", id)}, Tags: tags, Online: true}
}

func grants(objects ...string) []json.RawMessage {
	var raw []json.RawMessage
	for _, o := range objects {
		raw = append(raw, json.RawMessage(o))
	}
	return raw
}

// lines writes a topology a line an endpoint, which is easy to read and compare.
func lines(t Topology) string {
	var b strings.Builder
	for _, s := range t.Services {
		for _, l := range s.Localities {
			fmt.Fprintf(&b, "%s p%d %s/%s =%d:", s.Name, l.Priority, l.Region, l.Zone, l.Weight)
			for _, e := range l.Endpoints {
				fmt.Fprintf(&b, " %s*%d", e.Address, e.Weight)
			}
			b.WriteString("\n")
		}
		for _, e := range s.Idle {
			fmt.Fprintf(&b, "%s idle %s %s*%d\n", s.Name, e.State, e.Address, e.Weight)
		}
	}
	return b.String()
}

func TestBuild_devices_becomeServices(t *testing.T) {
	with := func(d Device, change func(*Device)) Device { change(&d); return d }
	at := func(d time.Duration) *time.Time { x := testNow.Add(d); return &x }
	tests := map[string]struct {
		devices  []Device
		rules    func(*Rules)
		want     string
		problems []string // a part of each problem's reason, in order
	}{
		"two regions, the walkthrough": {
			devices: []Device{
				device(1, "tag:weight-1", "tag:region-west"), device(2, "tag:weight-1", "tag:region-west"),
				device(3, "tag:weight-2", "tag:region-east"), device(4, "tag:weight-2", "tag:region-east"),
			},
			want: "server p0 east/ =4: 100.64.0.3:8080*2 100.64.0.4:8080*2\nserver p0 west/ =2: 100.64.0.1:8080*1 100.64.0.2:8080*1\n",
		},
		"a device with neither weight nor service is no endpoint": {
			devices: []Device{device(1, "tag:region-west", "tag:laptop"), device(2)},
		},
		"a service tag alone is enough": {
			devices: []Device{device(1, "tag:service-hello", "tag:port-9000", "tag:zone-b")},
			want:    "hello p0 /b =1: 100.64.0.1:9000*1\n",
		},
		"case of tags is folded": {
			devices: []Device{device(1, "tag:Weight-3", "TAG:region-West"), device(2, "tag:weight-3", "tag:region-west")},
			want:    "server p0 west/ =6: 100.64.0.1:8080*3 100.64.0.2:8080*3\n",
		},
		"the grant wins over the tag, key by key": {
			devices: []Device{with(device(1, "tag:weight-9", "tag:region-west"), func(d *Device) { d.Grants = grants(`{"weight":2}`) })},
			want:    "server p0 west/ =2: 100.64.0.1:8080*2\n",
		},
		"the attribute wins over the grant": {
			devices: []Device{with(device(1), func(d *Device) {
				d.Grants = grants(`{"weight":2,"service":"a"}`, `{"service":"b"}`)
				d.Attributes = map[string]string{"weight": "5"}
			})},
			want: "a p0 / =5: 100.64.0.1:8080*5\nb p0 / =5: 100.64.0.1:8080*5\n",
		},
		"several grants make several services": {
			devices: []Device{with(device(1, "tag:weight-7"), func(d *Device) {
				d.Grants = grants(`{"service":"a","port":1}`, `{"service":"b","weight":2,"region":"r","zone":"z","priority":4}`)
			})},
			want: "a p0 / =7: 100.64.0.1:1*7\nb p0 r/z =2: 100.64.0.1:8080*2\n",
		},
		"a bad grant of a newcomer is ignored whole, and tags don't stand in for it": {
			devices:  []Device{with(device(1, "tag:weight-3"), func(d *Device) { d.Grants = grants(`{"service":"a","weight":1001}`) })},
			problems: []string{"weight must be a whole number from 0 to 1000"},
		},
		"an unknown key of a grant is reported, and no new device joins by it": {
			devices:  []Device{with(device(1), func(d *Device) { d.Grants = grants(`{"service":"a","wieght":2}`) })},
			problems: []string{`unknown key "wieght"`},
		},
		"bad tags are ignored, one by one": {
			devices: []Device{device(1, "tag:weight-x", "tag:weight-4", "tag:port-0", "tag:port-65536", "tag:priority-129", "tag:region-")},
			want:    "server p0 / =4: 100.64.0.1:8080*4\n",
			problems: []string{
				"tag:port-… must be a whole number from 1", "tag:port-… must be", "tag:priority-… must be", "tag:region-… must be 1 to 63", "tag:weight-… must be",
			},
		},
		"only a bad tag is as none": {
			devices: []Device{device(1, "tag:weight-1001")}, problems: []string{"from 0 to 1000"},
		},
		"of several values the lowest counts": {
			devices:  []Device{device(1, "tag:weight-20", "tag:weight-3", "tag:weight-100", "tag:region-b", "tag:region-a")},
			want:     "server p0 a/ =3: 100.64.0.1:8080*3\n",
			problems: []string{"tag:region-a is there too", "tag:weight-20 is there too", "tag:weight-3 is there too"},
		},
		"weight 0 drains, and the others' shares are as without it": {
			devices: []Device{device(1, "tag:weight-0", "tag:region-a"), device(2, "tag:weight-5", "tag:region-a")},
			want:    "server p0 a/ =5: 100.64.0.2:8080*5\nserver idle drained 100.64.0.1:8080*0\n",
		},
		"gaps between priorities are closed, a service at a time": {
			devices: []Device{
				device(1, "tag:weight-1", "tag:priority-7"), device(2, "tag:weight-1", "tag:priority-3"), device(3, "tag:weight-0", "tag:priority-0"),
				device(4, "tag:weight-1", "tag:priority-3", "tag:region-a"), device(5, "tag:service-x", "tag:priority-9"),
			},
			want: "server p0 / =1: 100.64.0.2:8080*1\nserver p0 a/ =1: 100.64.0.4:8080*1\nserver p1 / =1: 100.64.0.1:8080*1\n" +
				"server idle drained 100.64.0.3:8080*0\nx p0 / =1: 100.64.0.5:8080*1\n",
		},
		"IPv4 is preferred, routes are never taken": {
			devices: []Device{with(device(1, "tag:weight-1"), func(d *Device) {
				d.Addresses = []string{"fd7a:115c:a1e0::1", "10.0.0.0/24", "100.64.0.9"}
			})},
			want:     "server p0 / =1: 100.64.0.9:8080*1\n",
			problems: []string{"subnet route"},
		},
		"IPv6 where the flag says so": {
			devices: []Device{with(device(1, "tag:weight-1"), func(d *Device) { d.Addresses = []string{"100.64.0.9", "fd7a:115c:a1e0::1"} })},
			rules:   func(r *Rules) { r.PreferIPv6 = true },
			want:    "server p0 / =1: [fd7a:115c:a1e0::1]:8080*1\n",
		},
		"no usable address": {
			devices:  []Device{with(device(1, "tag:weight-1"), func(d *Device) { d.Addresses = []string{"0.0.0.0", "fe80::1%eth0", "x"} })},
			problems: []string{"not the unicast", "not the unicast", "not the unicast", "no usable tailnet address"},
		},
		"the lowest ID keeps a shared address": {
			devices: []Device{
				with(device(10, "tag:weight-1"), func(d *Device) { d.Addresses = []string{"100.64.0.2"} }), device(2, "tag:weight-2"),
			},
			want:     "server p0 / =2: 100.64.0.2:8080*2\n",
			problems: []string{"device 2 (d2) has this address already"},
		},
		"a device that is gone holds no address": {
			devices: []Device{
				with(device(1, "tag:weight-1"), func(d *Device) { d.Addresses, d.Online = []string{"100.64.0.2"}, false }), device(2, "tag:weight-2"),
			},
			want: "server p0 / =2: 100.64.0.2:8080*2\nserver idle offline 100.64.0.2:8080*1\n",
		},
		"the same service and port twice on one device": {
			devices:  []Device{with(device(1), func(d *Device) { d.Grants = grants(`{"weight":5}`, `{"weight":2}`) })},
			want:     "server p0 / =2: 100.64.0.1:8080*2\n",
			problems: []string{"has this address already"},
		},
		"the same ID twice": {
			devices:  []Device{device(1, "tag:weight-1"), device(1, "tag:weight-2"), with(device(3, "tag:weight-1"), func(d *Device) { d.ID = "" })},
			want:     "server p0 / =1: 100.64.0.1:8080*1\n",
			problems: []string{"no ID", "same ID"},
		},
		"offline within the grace serves, after it not": {
			devices: []Device{
				with(device(1, "tag:weight-1"), func(d *Device) { d.Online, d.OfflineSince = false, at(-14*time.Second) }),
				with(device(2, "tag:weight-1"), func(d *Device) { d.Online, d.OfflineSince = false, at(-15*time.Second) }),
				with(device(3, "tag:weight-1"), func(d *Device) { d.Online = false }),
			},
			want: "server p0 / =1: 100.64.0.1:8080*1\nserver idle offline 100.64.0.2:8080*1\nserver idle offline 100.64.0.3:8080*1\n",
		},
		"a key that expires soon drains, then leaves": {
			devices: []Device{
				with(device(1, "tag:weight-1"), func(d *Device) { d.Expires = at(11 * time.Minute) }),
				with(device(2, "tag:weight-1"), func(d *Device) { d.Expires = at(10 * time.Minute) }),
				with(device(3, "tag:weight-1"), func(d *Device) { d.Expires = at(0) }),
			},
			want: "server p0 / =1: 100.64.0.1:8080*1\nserver idle expiring 100.64.0.2:8080*1\nserver idle expired 100.64.0.3:8080*1\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := rules()
			if test.rules != nil {
				test.rules(&r)
			}
			topology, problems := Build(test.devices, r)
			if diff := cmp.Diff(test.want, lines(topology)); diff != "" {
				t.Errorf("topology (-want +got):\n%s", diff)
			}
			if len(problems) != len(test.problems) {
				t.Fatalf("got %d problems, want %d: %+v", len(problems), len(test.problems), problems)
			}
			for i, p := range problems {
				if !strings.Contains(p.Reason, test.problems[i]) {
					t.Errorf("problem %d: %q does not tell %q", i, p.Reason, test.problems[i])
				}
			}
		})
	}
}

func TestBuild_graceOrExpiryAhead_setsNext(t *testing.T) {
	off, expiry := testNow.Add(-5*time.Second), testNow.Add(time.Hour)
	a, b := device(1, "tag:weight-1"), device(2, "tag:weight-1")
	b.Expires = &expiry
	if got, _ := Build([]Device{a, b}, rules()); !got.Next.Equal(expiry.Add(-10 * time.Minute)) {
		t.Errorf("Next = %v, want the start of the drain window", got.Next)
	}
	a.Online, a.OfflineSince = false, &off
	if got, _ := Build([]Device{a, b}, rules()); !got.Next.Equal(testNow.Add(10 * time.Second)) {
		t.Errorf("Next = %v, want the end of the grace", got.Next)
	}
	if got, _ := Build([]Device{device(1, "tag:weight-1")}, rules()); !got.Next.IsZero() {
		t.Errorf("Next = %v, want never", got.Next)
	}
}

func TestBuilder_weightsOverflow_endpointIsIgnored(t *testing.T) {
	b := builder{}
	s := b.service("s", []Endpoint{
		{Device: "1", Address: netip.MustParseAddrPort("100.64.0.1:1"), Weight: math.MaxUint32 - 1, State: Serving},
		{Device: "2", Address: netip.MustParseAddrPort("100.64.0.2:1"), Weight: 2, State: Serving},
		{Device: "3", Address: netip.MustParseAddrPort("100.64.0.3:1"), Weight: 1, State: Serving},
	})
	if got := s.Localities[0]; got.Weight != math.MaxUint32 || len(got.Endpoints) != 2 || len(b.problems) != 1 {
		t.Errorf("got weight %d of %d endpoints and problems %v", got.Weight, len(got.Endpoints), b.problems)
	}
}

// Whatever the devices are, the topology keeps its promises to Envoy.
func TestBuild_anyDevices_keepsItsPromisesToEnvoy(t *testing.T) {
	tag := rapid.SampledFrom([]string{
		"tag:weight-0", "tag:weight-1", "tag:weight-1000", "tag:weight-", "tag:weight-99999999999", "tag:service-a", "tag:service-B",
		"tag:region-x", "tag:region-y", "tag:zone-1", "tag:port-80", "tag:priority-0", "tag:priority-5", "tag:priority-128", "tag:other", "", "tag:",
	})
	grant := rapid.SampledFrom([]string{`{"service":"a","weight":3}`, `{"weight":0}`, `{"priority":9}`, `{"port":81}`, `[]`, `null`, `{"weight":1.5}`, `x`})
	oneDevice := rapid.Custom(func(t *rapid.T) Device {
		return Device{
			ID:        rapid.StringMatching(`[0-9a-c]{0,2}`).Draw(t, "id"),
			Addresses: rapid.SliceOfN(rapid.SampledFrom([]string{"100.64.0.1", "100.64.0.2", "fd7a:115c:a1e0::3", "1.2.3.0/24", "junk"}), 0, 3).Draw(t, "addresses"),
			Tags:      rapid.SliceOfN(tag, 0, 5).Draw(t, "tags"),
			Grants:    grants(rapid.SliceOfN(grant, 0, 2).Draw(t, "grants")...),
			Online:    rapid.Bool().Draw(t, "online"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		devices := rapid.SliceOfN(oneDevice, 0, 12).Draw(t, "devices")
		got, problems := Build(devices, rules())
		again, _ := Build(rapid.Permutation(distinctIDs(devices)).Draw(t, "order"), rules())
		if len(distinctIDs(devices)) == len(devices) && lines(again) != lines(got) {
			t.Fatalf("the order of the list matters:\n%s\n%s", lines(got), lines(again))
		}
		for _, s := range got.Services {
			checkService(t, s)
		}
		for _, p := range problems {
			if p.Reason == "" {
				t.Fatalf("a problem without a reason: %+v", p)
			}
		}
	})
}

func distinctIDs(devices []Device) []Device {
	seen, out := map[string]bool{}, []Device{}
	for _, d := range devices {
		if !seen[d.ID] {
			seen[d.ID] = true
			out = append(out, d)
		}
	}
	return out
}

func checkService(t *rapid.T, s Service) {
	taken, places, priorities := map[netip.AddrPort]bool{}, map[place]bool{}, map[uint32]bool{}
	for _, l := range s.Localities {
		priorities[l.Priority] = true
		if at := (place{l.Priority, l.Region, l.Zone}); places[at] {
			t.Fatalf("locality %v twice", at)
		} else {
			places[at] = true
		}
		var sum uint32
		for _, e := range l.Endpoints {
			if sum += e.Weight; e.Weight == 0 || e.Weight > 1000 || taken[e.Address] {
				t.Fatalf("bad endpoint %+v", e)
			}
			taken[e.Address] = true
		}
		if sum != l.Weight || sum == 0 {
			t.Fatalf("locality weight %d, sum %d", l.Weight, sum)
		}
	}
	for i := range uint32(len(priorities)) {
		if !priorities[i] {
			t.Fatalf("gap at priority %d", i)
		}
	}
}

func FuzzBuild_tag(f *testing.F) {
	for _, s := range []string{"tag:weight-2", "tag:weight-+2", "tag:Region-west", "tag:weight-٣", "tag:service-a b", "tag:port-1e3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, tag string) {
		topology, _ := Build([]Device{device(1, tag)}, rules())
		for _, e := range topology.endpoints {
			if e.Weight > 1000 || e.Address.Port() == 0 || e.Priority > 128 {
				t.Errorf("%q made %+v", tag, e)
			}
			if number, ok := strings.CutPrefix(strings.ToLower(tag), "tag:weight-"); ok && strings.Trim(number, "0123456789") != "" {
				t.Errorf("%q was taken for a weight: %+v", tag, e)
			}
		}
	})
}

func FuzzBuild_grant(f *testing.F) {
	for _, s := range []string{`{"weight":2}`, `{"weight":"2"}`, `{"weight":2.0}`, `{"service":null}`, `{"weight":-0}`, `{"a":`, `{"weight":1,"weight":2}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, grant string) {
		d := device(1)
		d.Grants = grants(grant)
		topology, problems := Build([]Device{d}, rules())
		served := len(topology.ByDevice()) > 0
		if !served && len(problems) == 0 {
			t.Errorf("%q vanished without a word", grant)
		}
		for _, e := range topology.endpoints {
			if e.Weight > 1000 || e.Address.Port() == 0 || e.Priority > 128 {
				t.Errorf("%q made %+v", grant, e)
			}
		}
	})
}

// An operator's word counts above what devices say, and until its end; the
// device's own values stay known, for when it serves again.
func TestBuild_operatorDrains_overrideDevices(t *testing.T) {
	offline := device(4, "tag:weight-4")
	offline.Online = false
	expiring := device(5, "tag:weight-5")
	end := testNow.Add(time.Minute)
	expiring.Expires = &end
	devices := []Device{device(1, "tag:weight-1"), device(2, "tag:weight-2"), device(3, "tag:weight-0"), offline, expiring}
	later := testNow.Add(30 * time.Second)
	for name, c := range map[string]struct {
		now   time.Time
		until time.Time
		want  string
		next  time.Time
	}{
		"without an end": {now: testNow, want: "server p0 / =1: 100.64.0.1:8080*1\n" +
			"server idle drained 100.64.0.2:8080*2 op\nserver idle drained 100.64.0.3:8080*0 op\nserver idle offline 100.64.0.4:8080*4 op\nserver idle expiring 100.64.0.5:8080*5 op\n", next: end},
		"until later": {now: testNow, until: later, want: "server p0 / =1: 100.64.0.1:8080*1\n" +
			"server idle drained 100.64.0.2:8080*2 op until 2026-06-01 12:00:30 UTC\nserver idle drained 100.64.0.3:8080*0 op until 2026-06-01 12:00:30 UTC\n" +
			"server idle offline 100.64.0.4:8080*4 op until 2026-06-01 12:00:30 UTC\nserver idle expiring 100.64.0.5:8080*5 op until 2026-06-01 12:00:30 UTC\n", next: later},
		"ended": {now: later, until: later, want: "server p0 / =3: 100.64.0.1:8080*1 100.64.0.2:8080*2\n" +
			"server idle drained 100.64.0.3:8080*0\nserver idle offline 100.64.0.4:8080*4\nserver idle expiring 100.64.0.5:8080*5\n", next: end},
	} {
		r := rules()
		r.Now, r.Drains = c.now, make(map[string]Drain)
		for _, id := range []string{"2", "3", "4", "5", "nobody"} {
			r.Drains[id] = Drain{By: "op", Until: c.until}
		}
		got, problems := Build(devices, r)
		var b strings.Builder
		for line := range strings.Lines(lines(got)) {
			b.WriteString(strings.TrimSuffix(line, "\n"))
			for _, e := range got.Services[0].Idle {
				if e.DrainedBy != "" && strings.Contains(line, e.Address.String()) {
					b.WriteString(" " + e.DrainedBy)
				}
			}
			b.WriteString("\n")
		}
		if b.String() != c.want || !got.Next.Equal(c.next) || len(problems) > 0 {
			t.Errorf("%s: next %v, problems %v\n%swant\n%s", name, got.Next, problems, b.String(), c.want)
		}
		if _, there := got.Drains["nobody"]; there != (name != "ended") {
			t.Errorf("%s: drains %v", name, got.Drains)
		}
	}
}

// lastGood is what devices said last, for [Rules.LastGood].
func lastGood(all map[string]ServiceEndpoints) func(string) ServiceEndpoints {
	return func(id string) ServiceEndpoints { return all[id] }
}

func BenchmarkBuild_tenThousandDevices(b *testing.B) {
	devices := make([]Device, 10_000)
	for i := range devices {
		devices[i] = Device{
			ID: fmt.Sprint(i), Name: "d", Online: true, Addresses: []string{fmt.Sprintf("100.64.%d.%d", i>>8, i&255)},
			Tags: []string{fmt.Sprintf("tag:service-s%d", i/100), "tag:weight-1", "tag:region-west"},
		}
	}
	rules := Rules{DefaultService: "s0", DefaultPort: 80}
	b.ReportAllocs()
	for b.Loop() {
		Build(devices, rules)
	}
}
