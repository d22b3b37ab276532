package harness

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is a machine of the rig: a network namespace without a name, which vanishes with the
// last process that holds it, however the tests end. [Here] makes this machine one instead.
type Host struct {
	Name string
	// V4 and V6 are its addresses, in the ranges of a tailnet unless asked
	// otherwise.
	V4, V6 netip.Addr
	// TLS configures requests to https URLs; nil is the default.
	TLS *tls.Config

	rig *Rig
	ns  netns.NsHandle // netns.None() of this machine
}

// newNamespace makes a namespace with loopback up.
func newNamespace() (netns.NsHandle, error) {
	var ns netns.NsHandle
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		var err error
		ns, err = netns.Get()
		return err
	})
	if err != nil {
		return ns, err
	}
	links, err := netlink.NewHandleAt(ns)
	if err != nil {
		return ns, err
	}
	defer links.Close()
	lo, err := links.LinkByName("lo")
	if err != nil {
		return ns, err
	}
	return ns, links.LinkSetUp(lo)
}

// onThread runs f on a thread that ends afterwards, so that what f does to its thread
// affects no other goroutine.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	return <-done
}

// Do runs f in the host's namespace. What f opens stays there, and can be used
// from everywhere; what f starts as a goroutine does not run there.
func (h *Host) Do(f func() error) error {
	if !h.ns.IsOpen() {
		return f()
	}
	return onThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("enter the namespace of %s: %w", h.Name, err)
		}
		return f()
	})
}

// Listen listens on the host.
func (h *Host) Listen(address string) (net.Listener, error) {
	var l net.Listener
	err := h.Do(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(h.rig.ctx, "tcp", address)
		return err
	})
	return l, err
}

// Dial connects from the host to an address and port.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := h.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// URL is http://ADDRESS:PORT/ by IPv4.
func (h *Host) URL(port int) string {
	return "http://" + net.JoinHostPort(h.V4.String(), strconv.Itoa(port)) + "/"
}

// URL6 is http://ADDRESS:PORT/ by IPv6.
func (h *Host) URL6(port int) string {
	return "http://" + net.JoinHostPort(h.V6.String(), strconv.Itoa(port)) + "/"
}

// plug joins a host to the switch: a pair of interfaces, one end in each. Every
// other host is on the same link, whatever its addresses.
func (h *Host) plug(n int) error {
	there, err := netlink.NewHandleAt(h.rig.hub)
	if err != nil {
		return err
	}
	defer there.Close()
	bridge, err := there.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MasterIndex = "port"+strconv.Itoa(n), bridge.Attrs().Index
	pair := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns)}
	if err := there.LinkAdd(pair); err != nil {
		return fmt.Errorf("make a pair of interfaces: %w", err)
	}
	if err := there.LinkSetUp(pair); err != nil {
		return err
	}
	here, err := netlink.NewHandleAt(h.ns)
	if err != nil {
		return err
	}
	defer here.Close()
	nic, err := here.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, a := range []netip.Addr{h.V4, h.V6} {
		// No search for a twin: there is none, and IPv6 would wait for it.
		address := &netlink.Addr{IPNet: network(netip.PrefixFrom(a, a.BitLen())), Flags: unix.IFA_F_NODAD}
		if err := here.AddrAdd(nic, address); err != nil {
			return fmt.Errorf("give %s the address %s: %w", h.Name, a, err)
		}
	}
	if err := here.LinkSetUp(nic); err != nil {
		return err
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		route := &netlink.Route{LinkIndex: nic.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: network(netip.MustParsePrefix(all))}
		if err := here.RouteAdd(route); err != nil {
			return fmt.Errorf("route %s of %s: %w", all, h.Name, err)
		}
	}
	return nil
}

// CutOff drops all that the host sends from now on, so that no packet to it is answered,
// not even by a refusal; or connects it again.
func (h *Host) CutOff(off bool) error {
	links, err := netlink.NewHandleAt(h.ns)
	if err != nil {
		return err
	}
	defer links.Close()
	nic, err := links.LinkByName("eth0")
	if err != nil {
		return err
	}
	// The one route of IPv4 is replaced; that of IPv6 has one put before it.
	v4, v6 := network(netip.MustParsePrefix("0.0.0.0/0")), network(netip.MustParsePrefix("::/0"))
	route := &netlink.Route{LinkIndex: nic.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: v4}
	change := links.RouteDel
	if off {
		route = &netlink.Route{Type: unix.RTN_BLACKHOLE, Dst: v4}
		change = links.RouteAdd
	}
	if err := errors.Join(links.RouteReplace(route), change(&netlink.Route{Type: unix.RTN_BLACKHOLE, Dst: v6, Priority: 1})); err != nil {
		return fmt.Errorf("cut off %s, or put it back: %w", h.Name, err)
	}
	return nil
}

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
