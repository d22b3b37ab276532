package provider

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	tsapi "tailscale.com/client/tailscale/v2"

	"github.com/tailxds/tailxds/internal/topology"
)

func denied(err error) bool { return errors.Is(err, errDenied) }

func askedToWait(err error) time.Duration {
	var asked interface{ RetryAfter() time.Duration }
	if errors.As(err, &asked) {
		return asked.RetryAfter()
	}
	return 0
}

// tagged are n devices with one of our tags.
func tagged(n int) []tsapi.Device {
	var all []tsapi.Device
	for i := range n {
		all = append(all, tsapi.Device{NodeID: fmt.Sprintf("n%d", i), Authorized: true, Tags: []string{"tag:Weight-1"}})
	}
	return all
}

func TestAttributes_taggedDevices_areRead(t *testing.T) {
	s := newStandIn(t)
	s.devices = append(tagged(2), tsapi.Device{NodeID: "phone", Authorized: true, Tags: []string{"tag:weights", "tag:port-"}})
	past, future := time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	s.attributes["n0"] = tsapi.DevicePostureAttributes{
		Attributes: map[string]any{
			"custom:tailxds_weight": 0, "custom:tailxds_service": "hello", "custom:tailxds-zone": "z1", "Custom:TailXDS_Region": true,
			"custom:other": "x", "custom:tailxds_": 1, "custom:tailxdsweight": 9, "node:os": "linux",
		},
		Expiries: map[string]tsapi.Time{"custom:tailxds_weight": {Time: future}, "custom:tailxds-zone": {Time: past}},
	}
	got, err := s.open(t, oauthClient()).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []map[string]string{{"weight": "0", "service": "hello", "region": "true"}, nil, nil}
	if diff := cmp.Diff(want, []map[string]string{got[0].Attributes, got[1].Attributes, got[2].Attributes}); diff != "" {
		t.Error(diff)
	}
	if n := s.count("phone/attributes"); n != 0 {
		t.Error("a device without one of our tags was looked up")
	}
}

// memory is an attributes store whose clock the test turns.
func memory(t *testing.T, s *standIn) *attributes {
	return s.open(t, Config{APIToken: testKey}).(*tailscale).attributes
}

func someDevices(n int) []topology.Device {
	var all []topology.Device
	for i := range n {
		all = append(all, topology.Device{ID: fmt.Sprintf("n%d", i), Tags: []string{"tag:service-hello"}})
	}
	return all
}

func TestAttributes_manyDevices_requestsAreBounded(t *testing.T) {
	s := newStandIn(t)
	a, now := memory(t, s), time.Now()
	list := func(n int) int {
		t.Helper()
		if err := a.add(t.Context(), someDevices(n), now); err != nil {
			t.Fatal(err)
		}
		return s.count("/attributes")
	}
	if n := list(200); n != 200 {
		t.Errorf("the first list looked up %d of 200", n)
	}
	if n := list(201); n != 1 {
		t.Errorf("a list right after looked up %d for one new device", n)
	}
	looked := 0
	for range 4 {
		now = now.Add(minAttributeAge)
		n := list(200)
		if n > maxAttributeReads {
			t.Errorf("one list looked up %d", n)
		}
		looked += n
	}
	if looked < 200 {
		t.Errorf("only %d of 200 in four lists", looked)
	}
	if list(1); len(a.byDevice) != 1 {
		t.Errorf("%d devices remembered of 1", len(a.byDevice))
	}
}

// A drain with an expiry undoes itself, without being read again.
func TestAttributes_expired_countNoMore(t *testing.T) {
	s := newStandIn(t)
	a, now := memory(t, s), time.Now()
	s.attributes["n0"] = tsapi.DevicePostureAttributes{
		Attributes: map[string]any{"custom:tailxds_weight": "0"},
		Expiries:   map[string]tsapi.Time{"custom:tailxds_weight": {Time: now.Add(10 * time.Second)}},
	}
	for after, want := range map[time.Duration]string{0: "0", 9 * time.Second: "0"} {
		devices := someDevices(1)
		if err := a.add(t.Context(), devices, now.Add(after)); err != nil || devices[0].Attributes["weight"] != want {
			t.Errorf("after %v: %v %v", after, devices[0].Attributes, err)
		}
	}
	devices := someDevices(1)
	if err := a.add(t.Context(), devices, now.Add(11*time.Second)); err != nil || devices[0].Attributes != nil {
		t.Errorf("expired: %v %v", devices[0].Attributes, err)
	}
	if n := s.count("/attributes"); n != 1 {
		t.Errorf("%d look-ups", n)
	}
}

// A credential without the scope, or an API without attributes, is no error;
// one that could read them and no longer can is, or a drain would end.
func TestAttributes_credentialRefused_listGoesOn(t *testing.T) {
	for _, status := range []int{401, 403, 404} {
		s := newStandIn(t)
		s.set(func() { s.refuse["/attributes"] = status })
		a, now := memory(t, s), time.Now()
		for range 3 {
			if err := a.add(t.Context(), someDevices(5), now); err != nil {
				t.Errorf("%d: %v", status, err)
			}
			now = now.Add(time.Minute)
		}
		most := 1
		if status == 404 {
			most = 3 * maxAttributeProbes
		}
		if n := s.count("/attributes"); n != most {
			t.Errorf("%d: asked %d times for what is not there, want %d", status, n, most)
		}
		s.set(func() { delete(s.refuse, "/attributes") })
		s.attributes["n1"] = tsapi.DevicePostureAttributes{Attributes: map[string]any{"custom:tailxds_weight": "3"}}
		devices := someDevices(5)
		if err := a.add(t.Context(), devices, now.Add(deniedRetryInterval)); err != nil || devices[1].Attributes["weight"] != "3" {
			t.Errorf("%d: the scope was given later: %v %v", status, devices[1].Attributes, err)
		}
		s.set(func() { s.refuse["/attributes"] = 403 })
		err := a.add(t.Context(), someDevices(5), now.Add(2*deniedRetryInterval))
		if err == nil || !denied(err) || showsSecret(err.Error()) {
			t.Errorf("%d: the scope was taken away: %v", status, err)
		}
	}
}

// A device that was deleted since the list was made answers 404. That is about this
// device: the others keep their attributes, and are read.
func TestAttributes_firstDeviceJustDeleted_othersAreRead(t *testing.T) {
	s := newStandIn(t)
	s.set(func() { s.refuse["n0/attributes"] = 404 })
	for i := 1; i < 5; i++ {
		s.attributes[fmt.Sprintf("n%d", i)] = tsapi.DevicePostureAttributes{Attributes: map[string]any{"custom:tailxds_weight": 0}}
	}
	a, devices := memory(t, s), someDevices(5)
	if err := a.add(t.Context(), devices, time.Now()); err != nil {
		t.Fatal(err)
	}
	for i, d := range devices {
		if want := i > 0; (d.Attributes["weight"] == "0") != want {
			t.Errorf("%s has %v", d.ID, d.Attributes)
		}
	}
}

// What an earlier process read counts while it can't be read: a drained server stays
// drained after a restart, whatever the API answers, and is restored by the API only.
func TestAttributes_afterARestart_lastValuesStayUntilRead(t *testing.T) {
	for _, status := range []int{401, 403, 404} {
		s := newStandIn(t)
		s.set(func() { s.refuse["/attributes"] = status })
		last := someDevices(3)
		last[0].Attributes = map[string]string{"weight": "0"}
		a, now := s.open(t, Config{APIToken: testKey, Last: last}).(*tailscale).attributes, time.Now()
		for range 5 {
			devices := someDevices(4)
			if err := a.add(t.Context(), devices, now); err != nil {
				t.Fatal(err)
			}
			if devices[0].Attributes["weight"] != "0" || devices[1].Attributes != nil || devices[3].Attributes != nil {
				t.Errorf("%d: attributes are %v, %v", status, devices[0].Attributes, devices[1].Attributes)
			}
			now = now.Add(minAttributeAge)
		}
		s.set(func() { delete(s.refuse, "/attributes") })
		devices := someDevices(4)
		if err := a.add(t.Context(), devices, now.Add(deniedRetryInterval)); err != nil || devices[0].Attributes != nil {
			t.Errorf("%d: it has no attribute any more: %v, %v", status, devices[0].Attributes, err)
		}
	}
}

// While one device answers 404, what it had stays.
func TestAttributes_deviceAnswers404_keepsItsLastValues(t *testing.T) {
	s := newStandIn(t)
	s.attributes["n0"] = tsapi.DevicePostureAttributes{Attributes: map[string]any{"custom:tailxds_weight": 0}}
	a, now := memory(t, s), time.Now()
	for _, refuse := range []bool{false, true, true} {
		s.set(func() {
			if refuse {
				s.refuse["n0/attributes"] = 404
			}
		})
		devices := someDevices(2)
		if err := a.add(t.Context(), devices, now); err != nil || devices[0].Attributes["weight"] != "0" {
			t.Errorf("refused %t: %v, %v", refuse, devices[0].Attributes, err)
		}
		now = now.Add(time.Minute)
	}
}

// With a prefix, only the devices with a tag that begins with it are looked up.
func TestAttributes_tagPrefix_onlyItsDevicesAreRead(t *testing.T) {
	s := newStandIn(t)
	s.devices = []tsapi.Device{
		{NodeID: "n0", Authorized: true, Addresses: []string{"100.64.0.1"}, Tags: []string{"tag:Pool-service-a"}},
		{NodeID: "n1", Authorized: true, Addresses: []string{"100.64.0.2"}, Tags: []string{"tag:service-providers"}},
	}
	if _, err := s.open(t, Config{APIToken: testKey, TagPrefix: "pool-"}).List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ours, theirs := s.count("n0/attributes"), s.count("n1/attributes"); ours != 1 || theirs != 0 {
		t.Errorf("looked up %d and %d times", ours, theirs)
	}
}

func TestAttributes_requestFails_listFails(t *testing.T) {
	for _, status := range []int{429, 500} {
		s := newStandIn(t)
		s.set(func() { s.devices = tagged(3); s.refuse["/attributes"] = status })
		if devices, err := s.open(t, oauthClient()).List(t.Context()); err == nil || devices != nil {
			t.Errorf("%d: a part of a list: %v", status, devices)
		}
	}
	// A device that was removed between the list and the look-up.
	s := newStandIn(t)
	s.set(func() { s.devices = tagged(3); s.refuse["n2/attributes"] = 404 })
	if devices, err := s.open(t, oauthClient()).List(t.Context()); err != nil || len(devices) != 3 {
		t.Errorf("removed meanwhile: %v %v", devices, err)
	}
}

func TestAttributes_unknownShape_isAnError(t *testing.T) {
	for _, body := range []string{``, `{}`, `[]`, `{"attributes":7}`, `{"attributes":{}}x`, `{"attributes":{"a":"b"}`, `{"attributes":{},"expiries":{"a":"soon"}}`} {
		r := deviceAttributes{values: map[string]attribute{}}
		if err := r.decode(strings.NewReader(body)); err == nil {
			t.Errorf("%q was taken for attributes", body)
		}
	}
}

// A wake storm does not become a storm of look-ups.
func TestAttributes_manyWakes_areReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &attributes{byDevice: map[string]deviceAttributes{"n0": {at: time.Now()}}}
		for range 14 {
			time.Sleep(time.Second)
			if due := a.due(someDevices(1), []int{0}, time.Now()); len(due) != 0 {
				t.Errorf("due again after %v", time.Since(a.byDevice["n0"].at))
			}
		}
		time.Sleep(time.Second)
		if due := a.due(someDevices(1), []int{0}, time.Now()); len(due) != 1 {
			t.Error("never due again")
		}
	})
}

// Several look-ups that are refused at once mint one new token, not several.
func TestOAuth_refusedTogether_mintsOnce(t *testing.T) {
	s := newStandIn(t)
	a, now := s.open(t, oauthClient()).(*tailscale).attributes, time.Now()
	if err := a.add(t.Context(), someDevices(20), now); err != nil {
		t.Fatal(err)
	}
	s.set(func() { s.revoked[testAccess+"-1"] = true })
	if err := a.add(t.Context(), someDevices(20), now.Add(minAttributeAge)); err != nil || s.minted != 2 {
		t.Errorf("%d tokens, %v", s.minted, err)
	}
}
