package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// pair is who sent a packet and for whom.
type pair struct{ source, destination netip.Addr }

// sniff counts the IPv4 packets that pass an interface until standard input
// ends. It needs CAP_NET_RAW.
func sniff(ctx context.Context, name string, stdin io.Reader, stdout io.Writer) error {
	socket, err := open(name)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	ctx, done := context.WithCancel(ctx)
	defer done()
	go func() {
		_, _ = io.Copy(io.Discard, stdin) // an error is an end too
		done()
	}()

	fmt.Fprintln(stdout, "sniffing")
	seen, err := count(ctx, socket)
	if err != nil {
		return err
	}
	for _, p := range slices.SortedFunc(maps.Keys(seen), func(a, b pair) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	}) {
		fmt.Fprintln(stdout, p.source, p.destination, seen[p])
	}
	return nil
}

// open returns a socket that sees all of the interface's IPv4 packets, without
// their link headers.
func open(name string) (int, error) {
	nic, err := net.InterfaceByName(name)
	if err != nil {
		return 0, err
	}
	protocol := int(networkOrder(unix.ETH_P_ALL))
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return 0, fmt.Errorf("opening a packet socket: %w", err)
	}
	// A short receive timeout lets the reader notice the end.
	timeout := unix.Timeval{Usec: 100_000}
	err = errors.Join(
		unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(socket, &unix.SockaddrLinklayer{Protocol: uint16(protocol), Ifindex: nic.Index}),
	)
	if err != nil {
		return 0, errors.Join(fmt.Errorf("listening on %s: %w", name, err), unix.Close(socket))
	}
	return socket, nil
}

func count(ctx context.Context, socket int) (map[pair]int, error) {
	seen := map[pair]int{}
	packet := make([]byte, 64)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(socket, packet, 0)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading packets: %w", err)
		}
		if n >= 20 && packet[0]>>4 == 4 {
			source, _ := netip.AddrFromSlice(packet[12:16])
			destination, _ := netip.AddrFromSlice(packet[16:20])
			seen[pair{source, destination}]++
		}
	}
	return seen, nil
}
