package main

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// cut makes one address unreachable from this network, and no other, until
// stdin ends. It needs CAP_NET_ADMIN.
func cut(address string, stdin io.Reader, stdout io.Writer) error {
	ip := net.ParseIP(address).To4()
	if ip == nil {
		return fmt.Errorf("%q is no IPv4 address", address)
	}
	// A route to one address goes before the one to its whole network.
	nowhere := &netlink.Route{Dst: &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)}, Type: unix.RTN_UNREACHABLE}
	if err := netlink.RouteAdd(nowhere); err != nil {
		return fmt.Errorf("adding a route that leads nowhere: %w", err)
	}
	_, sayErr := fmt.Fprintln(stdout, "cut")
	_, waitErr := io.Copy(io.Discard, stdin)
	err := netlink.RouteDel(nowhere)
	if err != nil {
		err = fmt.Errorf("removing the route that leads nowhere: %w", err)
	}
	return errors.Join(sayErr, waitErr, err)
}
