package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseImpairment_arguments_areReadOrRefused(t *testing.T) {
	four, six := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd7a:115c:a1e0::1")
	for args, want := range map[string]impairment{
		"cut 100.64.0.1 fd7a:115c:a1e0::1": {from: []netip.Addr{four, six}},
		"slow 40ms ::ffff:100.64.0.1":      {from: []netip.Addr{four}, delay: 40 * time.Millisecond},
	} {
		if got, err := parseImpairment(strings.Fields(args)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", args, got, err)
		}
	}
	for args, says := range map[string]string{
		"": "usage", "cut": "usage", "slow 40ms": "usage", "lose 100.64.0.1": "usage",
		"cut west-1": "IP address", "slow soon 100.64.0.1": "delay", "slow 0s 100.64.0.1": "delay", "slow 1m 100.64.0.1": "delay",
	} {
		if _, err := parseImpairment(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want a word on %q", args, err, says)
		}
	}
}

// aside runs the test in a network namespace of its own, whose loopback is up.
func aside(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a network namespace")
	}
	runtime.LockOSThread() // never unlocked, so the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); errors.Is(err, unix.EPERM) {
		t.Skip("needs CAP_SYS_ADMIN, for a network namespace")
	} else if err != nil {
		t.Fatal(err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	up, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	up.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, up); err != nil {
		t.Fatal(err)
	}
}

// ear hears who sends to it, in the order in which that arrives.
type ear struct{ *net.UDPConn }

func newEar(t *testing.T) ear {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return ear{conn}
}

// from sends a packet from an address.
func (e ear) from(t *testing.T, address string) {
	t.Helper()
	to, _ := e.LocalAddr().(*net.UDPAddr)
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(address)}, to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hear me")); err != nil {
		t.Fatal(err)
	}
}

// next is who is heard next.
func (e ear) next(t *testing.T) string {
	t.Helper()
	if err := e.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, from, err := e.ReadFromUDPAddrPort(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	return from.Addr().String()
}

// hindered keeps a hindrance in force until the function it returns is called.
func hindered(t *testing.T, h impairment) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	undo, err := h.install(ctx) // on this thread, which has the namespace
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	return func() {
		cancel()
		if err := undo(); err != nil {
			t.Error(err)
		}
	}
}

func TestImpair_cut_losesPacketsOfOneAddress(t *testing.T) {
	aside(t)
	ear := newEar(t)
	mend := hindered(t, impairment{from: []netip.Addr{netip.MustParseAddr("127.0.0.2")}})
	ear.from(t, "127.0.0.2")
	ear.from(t, "127.0.0.3")
	if heard := ear.next(t); heard != "127.0.0.3" {
		t.Errorf("%s was heard through the cut", heard)
	}
	mend()
	ear.from(t, "127.0.0.2")
	if heard := ear.next(t); heard != "127.0.0.2" {
		t.Errorf("%s was heard after the cut was mended", heard)
	}
}

// The order tells that one waited, whatever the machine's speed.
func TestImpair_slow_delaysPacketsOfOneAddress(t *testing.T) {
	aside(t)
	ear := newEar(t)
	mend := hindered(t, impairment{from: []netip.Addr{netip.MustParseAddr("127.0.0.2")}, delay: 300 * time.Millisecond})
	for range 3 {
		ear.from(t, "127.0.0.2")
		ear.from(t, "127.0.0.3")
		if first, second := ear.next(t), ear.next(t); first != "127.0.0.3" || second != "127.0.0.2" {
			t.Errorf("heard %s, then %s; the first to send should have been delayed", first, second)
		}
	}
	mend()
	ear.from(t, "127.0.0.2")
	ear.from(t, "127.0.0.3")
	if first := ear.next(t); first != "127.0.0.2" {
		t.Errorf("%s was heard first after the path was mended", first)
	}
}
