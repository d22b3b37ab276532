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

func TestAttributes(t *testing.T) {
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

func TestAttributesCostIsBounded(t *testing.T) {
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
		now = now.Add(attributeAge)
		n := list(200)
		if n > attributeBudget {
			t.Errorf("one list looked up %d", n)
		}
		looked += n
	}
	if looked < 200 {
		t.Errorf("only %d of 200 in four lists", looked)
	}
	if list(1); len(a.known) != 1 {
		t.Errorf("%d devices remembered of 1", len(a.known))
	}
}

// A drain with an expiry undoes itself, without being read again.
func TestAttributeExpires(t *testing.T) {
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
func TestAttributesRefused(t *testing.T) {
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
		if n := s.count("/attributes"); n != 1 {
			t.Errorf("%d: asked %d times for what is not there", status, n)
		}
		s.set(func() { delete(s.refuse, "/attributes") })
		s.attributes["n1"] = tsapi.DevicePostureAttributes{Attributes: map[string]any{"custom:tailxds_weight": "3"}}
		devices := someDevices(5)
		if err := a.add(t.Context(), devices, now.Add(attributeRetry)); err != nil || devices[1].Attributes["weight"] != "3" {
			t.Errorf("%d: the scope was given later: %v %v", status, devices[1].Attributes, err)
		}
		s.set(func() { s.refuse["/attributes"] = 403 })
		err := a.add(t.Context(), someDevices(5), now.Add(2*attributeRetry))
		if err == nil || !denied(err) || showsSecret(err.Error()) {
			t.Errorf("%d: the scope was taken away: %v", status, err)
		}
	}
}

func TestAttributesFail(t *testing.T) {
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

func TestAttributesOfUnknownShape(t *testing.T) {
	for _, body := range []string{``, `{}`, `[]`, `{"attributes":7}`, `{"attributes":{}}x`, `{"attributes":{"a":"b"}`, `{"attributes":{},"expiries":{"a":"soon"}}`} {
		r := reading{values: map[string]attribute{}}
		if err := r.decode(strings.NewReader(body)); err == nil {
			t.Errorf("%q was taken for attributes", body)
		}
	}
}

// A wake storm does not become a storm of look-ups.
func TestAttributesAreNotReadAtEachWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &attributes{known: map[string]reading{"n0": {at: time.Now()}}}
		for range 14 {
			time.Sleep(time.Second)
			if due := a.due(someDevices(1), []int{0}, time.Now()); len(due) != 0 {
				t.Errorf("due again after %v", time.Since(a.known["n0"].at))
			}
		}
		time.Sleep(time.Second)
		if due := a.due(someDevices(1), []int{0}, time.Now()); len(due) != 1 {
			t.Error("never due again")
		}
	})
}

// Several look-ups that are refused at once mint one new token, not several.
func TestRefusedTogetherMintedOnce(t *testing.T) {
	s := newStandIn(t)
	a, now := s.open(t, oauthClient()).(*tailscale).attributes, time.Now()
	if err := a.add(t.Context(), someDevices(20), now); err != nil {
		t.Fatal(err)
	}
	s.set(func() { s.revoked[testAccess+"-1"] = true })
	if err := a.add(t.Context(), someDevices(20), now.Add(attributeAge)); err != nil || s.minted != 2 {
		t.Errorf("%d tokens, %v", s.minted, err)
	}
}
