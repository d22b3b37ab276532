package guard

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// A device that joined anew has another ID and its old address: it is the same.
func TestObserve_deviceJoinedAnew_isTheSame(t *testing.T) {
	w := newWorld(t)
	w.list(0, fleet("s", 3))
	again := fleet("s", 3)
	for i := range again {
		again[i].ID = fmt.Sprintf("n%d", i+1)
		again[i].Addresses = []string{"fd7a:115c:a1e0::1", "::ffff:" + again[i].Addresses[0]}
	}
	again[2].Tags = []string{"tag:service-s_"}
	again[1].Online = false
	w.list(time.Second, again)
	w.want("s", "n1 n2 n3")
	if len(w.last.Held) != 0 {
		t.Errorf("held: %+v", w.last.Held)
	}
	w.list(grace, again)
	w.want("s", "n1 n3") // its grace began when it went, under its new ID
}

// Another provider's device 1 is not the one that was remembered as 1, also if
// that one is known by its address no more.
func TestObserve_sameIDsOfAnotherProvider_areOtherDevices(t *testing.T) {
	w := newWorld(t)
	w.list(0, fleet("s", 2))
	w.provider = "netmap"
	other := device(1, "tag:weight-x")
	other.Addresses = []string{"100.64.9.9"}
	for range 2 {
		w.list(time.Second, []topology.Device{other})
		w.want("s", "file/1 file/2")
		w.wantReason("s", "the last 2 that serve are missing")
	}
	// And back: they are who they were.
	w.provider = "file"
	w.list(time.Second, fleet("s", 2))
	w.want("s", "1 2")
	w.wantReason("s", "")
}

func TestObserve_newIDs_lossGoesOn(t *testing.T) {
	w := newWorld(t)
	w.list(0, fleet("s", 5))
	w.list(time.Second, off(fleet("s", 5), 1, 2)) // within the grace
	w.list(grace, off(fleet("s", 5), 1, 2))
	w.want("s", "3 4 5")
	w.provider = "netmap"
	renamed := fleet("s", 5)
	for i := range renamed {
		renamed[i].ID = fmt.Sprintf("n%d", i+1)
		renamed[i].Online = i > 1
	}
	w.list(time.Second, renamed[:4])
	w.want("s", "file/5 n3 n4") // 3 of 5, and not 1 of 3
	w.wantReason("s", "s: 3 of 5 serving devices are missing")
}

func TestDecide_severalHolds_nextListIsForTheFirstToEnd(t *testing.T) {
	w := newWorld(t)
	all := append(fleet("s", 3), device(11, "tag:service-t"), device(12, "tag:service-t"), device(13, "tag:service-t"))
	w.list(0, all)
	w.list(10*time.Second, append(all[:1:1], all[3:]...)) // s is held
	w.list(10*time.Second, append(all[:1:1], all[3]))     // and t
	if want := noon.Add(70 * time.Second); !w.last.NextListAt.Equal(want) || !w.last.Held[0].Until.Equal(want) {
		t.Errorf("look at %v, %s until %v, want %v", w.last.NextListAt, w.last.Held[0].Service, w.last.Held[0].Until, want)
	}
	if want := noon.Add(80 * time.Second); !w.last.Held[1].Until.Equal(want) || !w.last.Held[1].Since.Equal(noon.Add(20*time.Second)) {
		t.Errorf("t is held since %v until %v", w.last.Held[1].Since, w.last.Held[1].Until)
	}
	w.list(40*time.Second, append(all[:1:1], all[3])) // the clock counts from list to list
	if want := noon.Add(70 * time.Second); !w.last.NextListAt.Equal(want) {
		t.Errorf("look at %v, want %v", w.last.NextListAt, want)
	}
	w.list(10*time.Second, append(all[:1:1], all[3]))
	w.want("s", "1")
	w.want("t", "11 12 13")
	if w.last.Topology.Next != w.built.Next {
		t.Errorf("next %v, want %v", w.last.Topology.Next, w.built.Next)
	}
}

func TestDecide_heldEndpoints_tellTheirListState(t *testing.T) {
	soon, past := noon.Add(time.Minute), noon.Add(-time.Minute)
	w := newWorld(t)
	all := fleet("s", 6)
	w.list(0, all)
	now := off(all[:5], 1)
	now[1].Tags = nil
	now[2].Tags = []string{"tag:service-s", "tag:weight-0"}
	now[3].Expires, now[4].Expires = &soon, &past
	w.list(time.Second, off(all, 1))
	w.list(grace, now)
	var got []string
	for _, e := range w.last.Held[0].Endpoints {
		got = append(got, e.Name+" "+e.Address+" "+e.Listed)
	}
	slices.Sort(got)
	want := "d1 100.64.0.1:8080 offline, d2 100.64.0.2:8080 withdrawn, d3 100.64.0.3:8080 drained, d4 100.64.0.4:8080 expiring, " +
		"d5 100.64.0.5:8080 expired, d6 100.64.0.6:8080 missing"
	if strings.Join(got, ", ") != want {
		t.Errorf("held:\n%s, want\n%s", strings.Join(got, ", "), want)
	}
	w.wantReason("s", "the last 6 that serve are missing or offline or withdrawn or drained or expiring or expired at once")
	for _, s := range w.last.Topology.Services {
		if s.Name == "s" && len(s.Idle) != 0 {
			t.Errorf("idle and held at once: %+v", s.Idle)
		}
	}
	if w.last.Degraded[0].Known != 6 {
		t.Errorf("degraded %+v", w.last.Degraded)
	}
}

// Who left for another service, or lost its address to another, is not
// published twice.
func TestDecide_addressMovesToAnotherDevice_isPublishedOnce(t *testing.T) {
	w := newWorld(t)
	w.list(0, fleet("s", 2))
	thief := device(1, "tag:service-s")
	moved := device(2, "tag:service-s")
	thief.Addresses, moved.Addresses = []string{"100.64.0.2"}, []string{"100.64.0.3"}
	moved.Online = false
	w.list(time.Second, []topology.Device{thief, moved})
	w.list(grace, []topology.Device{thief, moved})
	addresses := make(map[netip.AddrPort]bool)
	for _, s := range w.last.Topology.Services {
		for _, e := range s.Serving() {
			if addresses[e.Address] {
				t.Errorf("%s is published twice", e.Address)
			}
			addresses[e.Address] = true
		}
	}
	w.stream[netip.MustParseAddr("100.64.0.2")] = true
	w.list(time.Second, []topology.Device{thief})
	w.want("s", "1")
}

func TestEqualExceptTimes_changes_areTold(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 3)
	w.list(0, all)
	before := w.m
	if before.LossPending() {
		t.Error("a clock runs, and nothing is lost")
	}
	w.list(time.Second, all)
	if !w.m.EqualExceptTimes(before) {
		t.Error("only time has passed")
	}
	w.list(time.Second, all[:1])
	if w.m.EqualExceptTimes(before) || !w.m.LossPending() {
		t.Error("a loss is no passing of time")
	}
	held := w.m
	w.list(time.Second, all[:1])
	if !w.m.EqualExceptTimes(held) {
		t.Error("only the clock ran on")
	}
	differs := map[string]func(){
		"a provider": func() { w.provider = "netmap"; w.list(time.Second, all) },
		"an offline": func() { w.list(time.Second, off(all, 1)) },
		"a weight":   func() { w.list(time.Second, retag(all, []string{"tag:service-s", "tag:weight-9"}, 1)) },
		"an address": func() {
			other := slices.Clone(all)
			other[0].Addresses = []string{"100.64.7.7"}
			w.list(time.Second, other)
		},
		"a new service": func() { w.list(time.Second, append(all[:3:3], device(9, "tag:service-new"))) },
		"a drain":       func() { w.list(time.Second, retag(all, []string{"tag:service-s", "tag:weight-0"}, 2)) },
	}
	for name, change := range differs {
		w.provider = "file"
		w.list(time.Second, all)
		was := w.m
		if change(); w.m.EqualExceptTimes(was) {
			t.Errorf("%s is no passing of time", name)
		}
	}
}

// Devices may be taken into a list that others hold: it must not change.
func TestObserve_sharedList_isNotChanged(t *testing.T) {
	all := off(fleet("s", 2), 1)
	var m Memory
	m, stamped := m.Observe(List{Provider: "file", Devices: all, At: noon})
	if all[0].OfflineSince != nil || stamped[0].OfflineSince == nil || !stamped[0].OfflineSince.Equal(noon) || stamped[1].OfflineSince != nil {
		t.Errorf("the list: %+v, stamped: %+v", all, stamped)
	}
	// What is kept from before is looked at by what was seen of it then.
	if _, kept := m.Observe(List{Provider: "file", Devices: all}); !kept[0].OfflineSince.Equal(noon) {
		t.Errorf("kept: %+v", kept)
	}
}

func TestCheck_invalidMemory_isRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no address":  `{"services":{"s":{"published":[{"device":"1","weight":1,"state":"serving"}]}}}`,
		"no device":   `{"services":{"s":{"said":[{"address":"100.64.0.1:80","weight":1}]}}}`,
		"no port":     `{"services":{"s":{"gone":[{"device":"1","address":"100.64.0.1:0","weight":1}]}}}`,
		"no weight":   `{"services":{"s":{"published":[{"device":"1","address":"100.64.0.1:80","weight":0,"state":"serving"}]}}}`,
		"drained":     `{"services":{"s":{"published":[{"device":"1","address":"100.64.0.1:80","weight":1,"state":"drained"}]}}}`,
		"a bad name":  `{"services":{"S S":{}}}`,
		"not serving": `{"services":{"s":{"published":[{"device":"1","address":"100.64.0.1:80","weight":0,"state":"drained"}]}}}`,
	} {
		var m Memory
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		if m.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestDecide_restart_holdGoesOn(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 4)
	w.list(0, all)
	w.every(45*time.Second, all[:1])
	w.restart()
	w.now = w.now.Add(time.Hour) // nobody looked: that proves nothing
	w.healthy = w.now
	w.list(0, all[:1])
	w.want("s", "1 2 3 4")
	w.every(15*time.Second, all[:1])
	w.want("s", "1 2 3 4")
	w.list(5*time.Second, all[:1])
	w.want("s", "1")
}

func TestObserve_anotherProvider_matchesByAddress(t *testing.T) {
	w := newWorld(t)
	w.list(0, fleet("s", 4))
	w.provider = "netmap"
	other := fleet("s", 4)
	for i := range other {
		other[i].ID = fmt.Sprintf("%d", 4-i) // the same IDs, of others
	}
	slices.Reverse(other) // in the same order, too
	other[3].Tags = []string{"tag:service-s", "tag:weight-one"}
	w.list(time.Second, other)
	w.want("s", "1 2 3 4")
	if len(w.last.Held) != 0 {
		t.Errorf("held: %+v", w.last.Held)
	}
	w.provider = "tailscale"
	w.every(time.Hour, nil)
	if got := len(strings.Fields(w.published("s"))); got != 4 {
		t.Errorf("another tailnet's empty list left %d of 4", got)
	}
}

// A device with two endpoints of which one is drained, and that goes offline, is
// lost like others: it does not leave on purpose.
func TestDecide_onePortDrained_deviceCountsAsLost(t *testing.T) {
	grants := func(n, weight int) topology.Device {
		d := device(n)
		for port, w := range map[int]int{81: 1, 82: weight} {
			d.Grants = append(d.Grants, json.RawMessage(fmt.Sprintf(`{"service":"s","port":%d,"weight":%d}`, port, w)))
		}
		return d
	}
	for _, drained := range []int{0, 1} { // whichever comes first
		w := newWorld(t)
		all := []topology.Device{grants(1, 1), grants(2, 1), device(3, "tag:service-s")}
		w.list(0, all)
		all = []topology.Device{grants(1, drained), grants(2, 0), device(3, "tag:service-s")}
		w.list(time.Second, all)
		w.list(time.Second, off(all, 1, 2))
		w.list(grace, off(all, 1, 2))
		w.want("s", "1 2 3")
		w.wantReason("s", "s: 2 of 3 serving devices are offline at once")
	}
}

// A clock that was ahead does not keep a device for as long as it was.
func TestObserve_offlineSinceTheFuture_countsFromNow(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 4)
	w.list(0, all)
	w.list(time.Hour, off(all, 1))
	w.restart()
	w.now = noon
	w.list(time.Second, off(all, 1))
	w.want("s", "1 2 3 4")
	w.list(grace, off(all, 1))
	w.want("s", "2 3 4")
}

// A newcomer that is offline has no grace, whatever its list says of since when.
func TestObserve_listSaysSinceWhen_isIgnored(t *testing.T) {
	w := newWorld(t)
	w.list(0, nil)
	newcomer := off(fleet("s", 1), 1)
	newcomer[0].OfflineSince = new(noon)
	w.list(time.Second, newcomer)
	w.want("s", "")
}

func TestObserve_restart_graceGoesOn(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 4)
	w.list(0, all)
	w.list(time.Second, off(all, 1))
	w.want("s", "1 2 3 4")
	w.restart()
	w.list(grace-time.Second, off(all, 1))
	w.want("s", "1 2 3 4")
	w.list(time.Second, off(all, 1))
	w.want("s", "2 3 4")
	w.list(time.Second, all)
	w.list(time.Second, off(all, 1))
	w.want("s", "1 2 3 4") // a new grace
}

// A device can't come back while its coordination server is away: the time that
// it has begins anew when that is well again, and is as long as it may need.
func TestDecide_sourceRecovers_graceBeginsAnew(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 4)
	w.list(0, all)
	w.list(time.Second, off(all, 1))
	w.list(grace, off(all, 1))
	w.want("s", "2 3 4") // it is gone, and no outage brings it back
	for range 3 {        // the server restarts again and again
		w.list(5*time.Second, off(all, 1, 2))
		w.want("s", "2 3 4")
		w.healthy, w.unwell = time.Time{}, "it fails"
		w.list(5*time.Second, off(all, 1, 2))
		w.want("s", "2 3 4")
		w.now = w.now.Add(5 * time.Second)
		w.healthy = w.now
	}
	w.list(0, off(all, 1, 2))
	w.list(grace, off(all, 1, 2))
	w.want("s", "2 3 4")
	if want := w.healthy.Add(returnGrace); !w.last.Topology.Next.Equal(want) {
		t.Errorf("judged again at %v, want %v", w.last.Topology.Next, want)
	}
	w.list(returnGrace-grace-time.Second, off(all, 1, 2))
	w.want("s", "2 3 4")
	w.list(time.Second, off(all, 1, 2))
	w.want("s", "3 4")
}

// Who goes offline after the source is well again has the grace that all have,
// and so has who was back.
func TestDecide_offlineAfterAnOutage_hasTheUsualGrace(t *testing.T) {
	w := newWorld(t)
	all := append(fleet("s", 6), device(7, "tag:service-s"))
	w.list(0, all)
	w.healthy, w.unwell = time.Time{}, "it fails"
	w.list(time.Hour, off(all, 1, 2))
	w.now = w.now.Add(time.Second)
	w.healthy = w.now
	w.list(0, off(all, 1, 2)) // 1 is back within a second, 2 is not
	w.list(time.Second, off(all, 2))
	w.list(time.Second, off(all, 1, 2, 3)) // and 3 goes now
	w.want("s", "1 2 3 4 5 6 7")
	w.list(grace, off(all, 1, 2, 3))
	w.want("s", "2 4 5 6 7")
	w.list(returnGrace-grace-2*time.Second, off(all, 1, 2, 3))
	w.want("s", "4 5 6 7")
}

// What a device says of itself is believed, though it was on its way back.
func TestDecide_returningDeviceIsTakenOut_actsAtOnce(t *testing.T) {
	for name, now := range map[string][]string{"its tags are taken away": nil, "it is drained": {"tag:service-s", "tag:weight-0"}, "it moves": {"tag:service-t"}} {
		w := newWorld(t)
		all := append(fleet("s", 5), device(6, "tag:service-t"))
		w.list(0, all)
		w.now = w.now.Add(time.Minute)
		w.healthy = w.now
		w.list(0, off(all, 1))
		w.list(grace, off(retag(all, now, 1), 1))
		if s, elsewhere := w.published("s"), w.published("t"); s != "2 3 4 5" || elsewhere != "6" {
			t.Errorf("%s: s is served by [%s], t by [%s]", name, s, elsewhere)
		}
	}
}

// What an Envoy said while its device lacked the coordination server counts when
// the grace, which began anew, is over.
func TestDecide_graceBeganAnew_confirmationCountsAfterIt(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 4)
	w.list(0, all)
	w.stream[netip.MustParseAddr("100.64.0.1")] = true
	w.every(time.Minute, off(all, 1))
	w.want("s", "1 2 3 4")
	w.restart()
	clear(w.stream)
	w.now = w.now.Add(time.Second)
	w.streams, w.healthy = w.now, w.now
	w.list(0, off(all, 1))
	w.list(grace, off(all, 1))
	w.want("s", "1 2 3 4")
	if p := w.last.Problems; len(p) != 1 || !strings.Contains(p[0].Reason, "its own Envoy was connected") {
		t.Errorf("problems %+v", p)
	}
	w.list(returnGrace-grace, off(all, 1))
	w.want("s", "2 3 4")
}

// A device that is back needs nobody's word, and keeps none for later.
func TestDecide_deviceIsBack_confirmationIsForgotten(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 4)
	w.list(0, all)
	w.stream[netip.MustParseAddr("100.64.0.1")] = true
	w.every(time.Minute, off(all, 1))
	w.list(time.Second, all)
	if len(w.m.ConfirmedByEnvoy) > 0 {
		t.Errorf("remembered: %v", w.m.ConfirmedByEnvoy)
	}
}
