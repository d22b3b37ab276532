package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

const (
	grace   = 15 * time.Second
	holdFor = time.Minute
)

// tester is what of a [testing.T] or a rapid.T is used.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// world is a tailnet, a clock and a guard that remembers.
type world struct {
	t        tester
	m        Memory
	now      time.Time
	healthy  time.Time
	unwell   string
	provider string
	stream   map[netip.Addr]bool
	drains   map[string]topology.Drain // operators' words
	streams  time.Time                 // since when there can be any
	fraction float64                   // that may be lost at once
	last     Decision
	built    topology.Topology
}

func newWorld(t tester) *world {
	return &world{t: t, now: noon, healthy: noon, provider: "file", stream: make(map[netip.Addr]bool), drains: make(map[string]topology.Drain), fraction: 0.5}
}

// device is an online device with an address made of its number.
func device(n int, tags ...string) topology.Device {
	return topology.Device{ID: fmt.Sprint(n), Name: fmt.Sprintf("d%d", n), Addresses: []string{fmt.Sprintf("100.64.0.%d", n)}, Tags: tags, Online: true}
}

// fleet are n devices of the service s, with weight 1.
func fleet(s string, n int) []topology.Device {
	var all []topology.Device
	for i := range n {
		all = append(all, device(i+1, "tag:weight-1", "tag:service-"+s))
	}
	return all
}

// off takes devices offline, by number.
func off(all []topology.Device, numbers ...int) []topology.Device {
	all = slices.Clone(all)
	for i := range all {
		if slices.ContainsFunc(numbers, func(n int) bool { return all[i].ID == fmt.Sprint(n) }) {
			all[i].Online = false
		}
	}
	return all
}

// retag gives devices other tags, by number.
func retag(all []topology.Device, tags []string, numbers ...int) []topology.Device {
	all = slices.Clone(all)
	for i := range all {
		if slices.ContainsFunc(numbers, func(n int) bool { return all[i].ID == fmt.Sprint(n) }) {
			all[i].Tags = tags
		}
	}
	return all
}

func upTo(n int) []int {
	var all []int
	for i := range n {
		all = append(all, i+1)
	}
	return all
}

// list lets some time pass and judges a list that is taken then.
func (w *world) list(after time.Duration, devices []topology.Device) {
	w.now = w.now.Add(after)
	w.judge(List{Provider: w.provider, Devices: devices, At: w.now, HealthySince: w.healthy, UnhealthyReason: w.unwell})
}

// every gives the same list each five seconds, for a while.
func (w *world) every(long time.Duration, devices []topology.Device) {
	for range int(long / (5 * time.Second)) {
		w.list(5*time.Second, devices)
	}
}

func (w *world) judge(l List) {
	m, stamped := w.m.Observe(l)
	l.Devices = stamped
	c := w.at(w.now, m, l)
	w.built = c.Built
	w.last = Decide(m, c)
	w.m = w.last.Memory
}

// at is what there is to judge of a list at a time.
func (w *world) at(now time.Time, m Memory, l List) Input {
	built, _ := topology.Build(l.Devices, topology.Rules{
		DefaultService: "server", DefaultPort: 8080, Now: now, OfflineGrace: grace, DrainWindow: 10 * time.Minute, LastGood: m.LastGood(),
		Drains: w.drains,
	})
	return Input{Now: now, List: l, Built: built, Connected: w.stream, StreamsSince: w.streams, Grace: grace, HoldFraction: w.fraction, HoldFor: holdFor}
}

// restart forgets all but what is written down.
func (w *world) restart() {
	text, err := json.Marshal(w.m)
	if err != nil {
		w.t.Fatal(err)
	}
	var m Memory
	if err := json.Unmarshal(text, &m); err != nil {
		w.t.Fatal(err)
	}
	if err := m.Check(); err != nil {
		w.t.Fatalf("what was written can't be read back: %v", err)
	}
	w.m = m
}

// published are the devices of a service that get requests, "1 2 3".
func (w *world) published(service string) string {
	for _, s := range w.last.Topology.Services {
		if s.Name == service {
			return strings.Join(deviceIDs(s.Serving()), " ")
		}
	}
	return ""
}

func (w *world) want(service, published string) {
	w.t.Helper()
	if got := w.published(service); got != published {
		w.t.Errorf("after %v, %s is served by [%s], want [%s]; held: %+v", w.now.Sub(noon), service, got, published, w.last.Held)
	}
}

// reason is why something of a service is held; empty if nothing is.
func (w *world) reason(service string) string {
	for _, h := range w.last.Held {
		if h.Service == service {
			return h.Reason
		}
	}
	return ""
}

func (w *world) wantReason(service, part string) {
	w.t.Helper()
	if got := w.reason(service); !strings.Contains(got, part) || (part == "" && got != "") {
		w.t.Errorf("after %v, %s is held because of %q, want %q in it", w.now.Sub(noon), service, got, part)
	}
}

func TestDecide_loss_actsAtOnceIfSmallAndWaitsIfLarge(t *testing.T) {
	w := newWorld(t)
	w.list(0, fleet("s", 4))
	w.list(5*time.Second, fleet("s", 2))
	w.want("s", "1 2") // half is not more than half
	w.list(5*time.Second, fleet("s", 1))
	w.want("s", "1 2")
	w.wantReason("s", "s: 3 of 4 serving devices are missing at once; applied at 12:01:10 if that stands, or at once by `tailxds accept s`")
	w.every(55*time.Second, fleet("s", 1))
	w.want("s", "1 2")
	w.list(5*time.Second, fleet("s", 1))
	w.want("s", "1")
	w.wantReason("s", "")
}

// An Envoy that connects is no fact about devices, so it ends no hold; nor does a
// device that joined meanwhile.
func TestDecide_deviceJoinsWhileALossIsHeld_theHoldStays(t *testing.T) {
	w := newWorld(t)
	w.list(0, fleet("s", 3))
	joined := append(fleet("s", 1), device(4, "tag:weight-1", "tag:service-s"))
	w.list(5*time.Second, joined)
	w.want("s", "1 2 3 4")
	w.wantReason("s", "s: 2 of 3 serving devices are missing at once")
	w.stream[netip.MustParseAddr("100.64.0.4")] = true
	w.judge(List{Provider: w.provider, Devices: joined, At: w.now, HealthySince: w.healthy})
	w.want("s", "1 2 3 4")
	w.wantReason("s", "s: 2 of 3 serving devices are missing at once")
	w.restart()
	w.every(55*time.Second, append(joined, device(5, "tag:weight-1", "tag:service-s")))
	w.want("s", "1 2 3 4 5")
	w.wantReason("s", "2 of 3")
	w.every(10*time.Second, joined) // the fifth is lost, too: that is another loss, of four
	w.want("s", "1 2 3 4 5")
	w.wantReason("s", "3 of 4")
	w.every(65*time.Second, joined)
	w.want("s", "1 4")
}

// A rolling upgrade replaces every device within a minute: each new one serves before
// an old one goes, so nothing is held.
func TestDecide_rollingReplacement_isNotHeld(t *testing.T) {
	w := newWorld(t)
	devices := fleet("s", 4)
	w.list(0, devices)
	for i := range 4 {
		devices = append(slices.Clone(devices), device(5+i, "tag:weight-1", "tag:service-s"))
		w.list(5*time.Second, devices)
		devices = devices[1:]
		w.list(5*time.Second, devices)
		w.wantReason("s", "")
	}
	w.want("s", "5 6 7 8")
}

// Of a service that is new, too, all that there is serves until its keys expire.
func TestDecide_allKeysOfANewServiceExpireSoon_theyServe(t *testing.T) {
	w := newWorld(t)
	expires := noon.Add(time.Minute)
	soon := fleet("s", 4)
	for i := range soon {
		soon[i].Expires = &expires
	}
	soon[3].Tags = append(soon[3].Tags, "tag:weight-0") // drained on purpose
	w.list(0, soon)
	w.want("s", "1 2 3")
	w.wantReason("s", "s: the last 3 that serve are expiring at once; they stay until another serves, or until `tailxds accept s`")
	w.restart()
	w.list(time.Second, soon)
	w.want("s", "1 2 3")
	w.list(time.Second, append(slices.Clone(soon), device(5, "tag:weight-1", "tag:service-s")))
	w.want("s", "5") // they drain as others do
	w.wantReason("s", "")
}

// What an operator accepted does not come back by itself, as long as nothing else
// is said of it.
func TestAccept_expiringDevicesOfANewService_staysUntilTheirKeysAreRenewed(t *testing.T) {
	w := newWorld(t)
	expires := noon.Add(5 * time.Minute)
	soon := fleet("s", 2)
	soon[0].Expires, soon[1].Expires = &expires, &expires
	w.list(0, soon)
	w.want("s", "1 2")
	m, _, err := w.m.Accept("s")
	if err != nil {
		t.Fatal(err)
	}
	w.m = m
	w.list(time.Second, soon)
	w.want("s", "")
	w.restart()
	w.list(time.Second, soon)
	w.want("s", "")
	w.list(time.Second, fleet("s", 2))
	w.want("s", "1 2")
	w.list(time.Second, soon) // another time
	w.want("s", "1 2")
}

// A device that no other can connect to is lost as one that is missing.
func TestDecide_devicesBecomeUnreachable_areLostAsOthers(t *testing.T) {
	w := newWorld(t)
	locked := func(numbers ...int) []topology.Device {
		all := fleet("s", 4)
		for _, n := range numbers {
			all[n-1].Unreachable = "it is locked out"
		}
		return all
	}
	w.list(0, locked(1)) // a newcomer
	w.want("s", "2 3 4")
	w.list(5*time.Second, locked(1, 2))
	w.want("s", "3 4")
	w.list(5*time.Second, locked(1, 2, 3, 4))
	w.want("s", "3 4")
	w.wantReason("s", "s: the last 2 that serve are withdrawn at once")
	w.list(5*time.Second, locked())
	w.want("s", "1 2 3 4")
}

func TestDecide_confirmedLoss_doesNotCountForTheNext(t *testing.T) {
	w := newWorld(t)
	w.list(0, fleet("s", 10))
	w.every(65*time.Second, fleet("s", 6))
	w.list(5*time.Second, fleet("s", 4)) // 2 of the 6 that are left, not 6 of 10
	w.want("s", "1 2 3 4")
}

// What is held, or serves by its own Envoy's word, stands where it stood.
func TestDecide_heldEndpoints_keepTheirOrder(t *testing.T) {
	w := newWorld(t)
	w.list(0, fleet("s", 11))
	before := w.last.Topology.Services
	w.stream[netip.MustParseAddr("100.64.0.1")] = true
	w.list(time.Second, fleet("s", 11)[8:])
	if w.reason("s") == "" || len(w.last.Problems) != 1 {
		t.Fatalf("held %+v, problems %+v", w.last.Held, w.last.Problems)
	}
	for i, s := range w.last.Topology.Services {
		if !s.SameServing(before[i]) {
			t.Errorf("it was\n%+v, and is\n%+v", before[i], s)
		}
	}
}

func TestDecide_lossInOneService_othersDoNotWait(t *testing.T) {
	all := append(fleet("big", 30), device(31, "tag:service-small"), device(32, "tag:service-small"), device(33, "tag:service-small"))
	w := newWorld(t)
	w.list(0, all)
	newcomer := device(40, "tag:service-big")
	w.list(5*time.Second, append(retag(slices.Clone(all[:31]), []string{"tag:service-big", "tag:weight-7"}, 1), newcomer))
	w.want("small", "31 32 33")
	if got := w.published("big"); !strings.Contains(got, " 40") {
		t.Errorf("a newcomer waits for another service's loss: %s", got)
	}
	for _, s := range w.last.Topology.Services {
		if s.Name == "big" && s.Localities[0].Endpoints[0].Weight != 7 {
			t.Errorf("a new weight waits for another service's loss: %+v", s.Localities[0].Endpoints[0])
		}
	}
}

func TestDecide_flappingDevices_areNeverRemoved(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 10)
	w.list(0, all)
	w.every(30*time.Second, off(all, 1, 2, 3, 4, 5))
	w.want("s", "10 6 7 8 9")
	for range 40 {
		for _, n := range []int{6, 5, 6, 7} {
			w.every(20*time.Second, off(all, upTo(n)...))
			w.want("s", "10 6 7 8 9")
		}
	}
	w.every(2*time.Minute, off(all, upTo(7)...))
	w.want("s", "10 8 9") // now it stood
}

func TestDecide_sourceFails_clockStartsAnew(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 4)
	w.list(0, all)
	w.every(40*time.Second, all[:1])
	w.now = w.now.Add(90 * time.Second) // it fails
	w.healthy = w.now.Add(5 * time.Second)
	w.list(5*time.Second, all[:1])
	w.want("s", "1 2 3 4")
	w.every(55*time.Second, all[:1])
	w.want("s", "1 2 3 4")
	w.list(5*time.Second, all[:1])
	w.want("s", "1")
}

func TestDecide_linkIsDown_removesNothing(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 4)
	w.list(0, all)
	w.healthy, w.unwell = time.Time{}, "the link is down"
	w.every(10*time.Minute, all[:3])
	w.want("s", "1 2 3 4")
	w.wantReason("s", "1 of 4 serving devices are missing while the link is down; judged again when that is mended")
	if h := w.last.Held[0]; h.Until != nil || !w.last.NextListAt.IsZero() {
		t.Errorf("it is said to end at %v, by a list at %v", h.Until, w.last.NextListAt)
	}
	w.list(time.Second, retag(all, []string{"tag:service-s", "tag:weight-0"}, 2))
	w.want("s", "1 3 4") // a drain is the operator's word
	w.healthy = w.now
	w.list(time.Second, all[:3])
	w.want("s", "1 2 3")
}

func TestDecide_allEndpointsLeave_staysUntilAccepted(t *testing.T) {
	soon := noon.Add(5 * time.Minute)
	expiring := fleet("s", 3)
	for i := range expiring {
		expiring[i].Expires = &soon
	}
	cases := map[string][]topology.Device{
		"an empty list":       {},
		"all offline":         off(fleet("s", 3), 1, 2, 3),
		"all untagged":        retag(fleet("s", 3), nil, 1, 2, 3),
		"all drained":         retag(fleet("s", 3), []string{"tag:service-s", "tag:weight-0"}, 1, 2, 3),
		"all keys expire":     expiring,
		"all moved elsewhere": retag(fleet("s", 3), []string{"tag:service-t"}, 1, 2, 3),
	}
	for name, devices := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.list(0, fleet("s", 3))
			w.every(time.Hour, devices)
			w.restart()
			w.every(time.Hour, devices)
			w.want("s", "1 2 3")
			w.wantReason("s", "until another serves, or until `tailxds accept s`")
			if h := w.last.Held[0]; h.Until != nil || !w.last.NextListAt.IsZero() {
				t.Errorf("it is said to end at %v, by a list at %v", h.Until, w.last.NextListAt)
			}
			if len(w.last.Degraded) != 1 || w.last.Degraded[0].String() != "s: 0 of 3 serving" {
				t.Errorf("degraded: %+v", w.last.Degraded)
			}
			// Another that serves lets go what left on purpose, and what stood.
			w.list(5*time.Second, append(slices.Clone(devices), device(9, "tag:service-s")))
			w.want("s", "9")

			w.list(5*time.Second, fleet("s", 3))
			w.every(2*time.Minute, fleet("s", 3))
			w.every(time.Minute, devices)
			m, names, err := w.m.Accept("s")
			if err != nil || !slices.Equal(names, []string{"s"}) {
				t.Fatalf("accept: %v %v", names, err)
			}
			w.m = m
			w.list(5*time.Second, devices)
			w.want("s", "")
			if len(w.last.Held) != 0 {
				t.Errorf("still held: %+v", w.last.Held)
			}
		})
	}
}

// However many of a service were let go, the last one keeps its name.
func TestDecide_manySmallLosses_addUp(t *testing.T) {
	for of := 2; of <= 10; of++ {
		for stays := 1; stays < of; stays++ {
			w := newWorld(t)
			w.fraction = float64(of-stays) / float64(of)
			w.list(0, fleet("s", of))
			w.list(time.Second, fleet("s", stays))
			w.list(time.Second, nil)
			if got := len(strings.Fields(w.published("s"))); got != stays {
				t.Errorf("of %d devices %d were let go, then the others are missing: %d are kept, want %d", of, of-stays, got, stays)
			}
		}
	}
}

func TestDecide_partIsDrained_actsAtOnce(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 10)
	w.list(0, all)
	nine := retag(all, []string{"tag:service-s", "tag:weight-0"}, upTo(9)...)
	w.list(time.Second, nine)
	w.want("s", "10")
	// Who was drained is not lost: one of one is alone, not one of ten.
	w.list(time.Second, nine[:9])
	w.want("s", "10")
	w.wantReason("s", "the last 1 that serve are missing at once")
}

// An operator's drain shows once, whatever else the list says of the device.
func TestDecide_operatorsDrain_isShown(t *testing.T) {
	all := fleet("s", 3)
	for name, list := range map[string][]topology.Device{
		"listed": all, "missing": all[1:], "offline": off(all, 1), "drained twice": retag(all, []string{"tag:service-s", "tag:weight-0"}, 1),
	} {
		w := newWorld(t)
		w.list(0, all)
		w.drains = map[string]topology.Drain{"1": {By: "ann"}}
		w.stream[netip.MustParseAddr("100.64.0.1")] = true
		w.list(time.Second, list)
		w.want("s", "2 3")
		for _, s := range w.last.Topology.Services {
			if s.Name == "s" && (len(s.Idle) != 1 || s.Idle[0].Device != "1" || !strings.Contains(s.Idle[0].DrainedBy, "ann")) {
				t.Errorf("%s: idle %+v", name, s.Idle)
			}
		}
	}
}

func TestDecide_othersAreHeld_drainWaits(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 3)
	w.list(0, all)
	w.list(time.Second, retag(all[:1], []string{"tag:service-s", "tag:weight-0"}, 1))
	w.want("s", "1 2 3")
}

func TestDecide_firstListSaysAllOffline_servesWithinTheGrace(t *testing.T) {
	w := newWorld(t)
	all := off(fleet("s", 3), 1, 2, 3)
	w.list(0, all)
	w.want("s", "1 2 3")
	w.every(time.Hour, all)
	w.want("s", "1 2 3")
	// A newcomer to a list that is not the first is offline as it says.
	w.list(time.Second, append(fleet("s", 3), off([]topology.Device{device(4, "tag:service-s")}, 4)...))
	w.want("s", "1 2 3")
}

func TestAccept_heldService_acceptsOnlyThat(t *testing.T) {
	w := newWorld(t)
	w.list(0, append(fleet("s", 3), device(7, "tag:service-t")))
	if _, _, err := w.m.Accept(""); !errors.Is(err, ErrNothingHeld) || strings.Contains(err.Error(), "service") {
		t.Errorf("accept of nothing: %v", err)
	}
	w.list(time.Second, fleet("s", 1))
	if _, _, err := w.m.Accept("u"); !errors.Is(err, ErrNothingHeld) || !strings.Contains(err.Error(), `service "u"`) {
		t.Errorf("accept of another service: %v", err)
	}
	m, names, err := w.m.Accept("")
	if err != nil || !slices.Equal(names, []string{"s", "t"}) {
		t.Fatalf("accept of all: %v %v", names, err)
	}
	// What is gone by then was accepted; what goes later was not.
	w.m = m
	w.list(time.Second, nil)
	w.want("s", "1")
	w.want("t", "")
	w.list(time.Second, fleet("s", 3))
	w.every(time.Hour, nil)
	if got := w.published("s"); got != "1 2 3" {
		t.Errorf("an old accept still works: [%s]", got)
	}
}

func TestDecide_noNewList_confirmsNoLoss(t *testing.T) {
	w := newWorld(t)
	all := fleet("s", 4)
	w.list(0, all)
	w.list(time.Second, all[:1])
	at := w.now
	for range 100 { // judged for other reasons, by the same list
		w.now = w.now.Add(time.Minute)
		w.judge(List{Provider: "file", Devices: all[:1], At: at, HealthySince: w.healthy})
	}
	w.want("s", "1 2 3 4")
}

// Devices that were held because all their keys expire, and then go offline, are a
// loss of their own: it is measured against all that served, not against those that
// served when an earlier loss began.
func TestDecide_heldExpiringDevicesGoOffline_lossIsMeasuredAnew(t *testing.T) {
	w := newWorld(t)
	soon := noon.Add(5 * time.Minute)
	all := fleet("s", 6)
	w.list(0, all)
	w.list(time.Second, off(all, 1))
	w.list(grace, off(all, 1)) // lost, and removed
	w.want("s", "2 3 4 5 6")
	expiring := off(all, 1, 2, 3)
	for i := range expiring[1:] {
		expiring[i+1].Expires = &soon
	}
	w.list(time.Second, expiring)
	w.list(grace, expiring)
	w.want("s", "2 3 4 5 6")
	w.list(time.Second, off(all, 1, 2, 3)) // half, which is not more than half
	w.want("s", "4 5 6")
	w.wantReason("s", "")
}
