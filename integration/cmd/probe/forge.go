package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// forge sends UDP packets that claim a source and a destination, through
// whichever neighbour has the MAC address: what a host does that takes its
// neighbour for a router. It needs CAP_NET_RAW.
func forge(nic, mac, source, destination, count string) error {
	neighbour, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	packet, err := datagram(source, destination)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	socket, err := open(nic)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	device, err := net.InterfaceByName(nic)
	if err != nil {
		return err
	}
	to := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: device.Index, Halen: uint8(len(neighbour))}
	copy(to.Addr[:], neighbour)
	for range n {
		if err := unix.Sendto(socket, packet, 0, to); err != nil {
			return fmt.Errorf("sending through %s: %w", neighbour, err)
		}
	}
	return nil
}

// datagram is an IPv4 packet with an empty UDP datagram for port 9, discard.
func datagram(source, destination string) ([]byte, error) {
	from, fromErr := netip.ParseAddr(source)
	to, toErr := netip.ParseAddr(destination)
	if fromErr != nil || toErr != nil || !from.Is4() || !to.Is4() {
		return nil, fmt.Errorf("%s and %s must be IPv4 addresses", source, destination)
	}
	packet := make([]byte, 28)
	packet[0] = 0x45 // version 4, five words of header
	binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	packet[8], packet[9] = 64, unix.IPPROTO_UDP
	copy(packet[12:], from.AsSlice())
	copy(packet[16:], to.AsSlice())
	binary.BigEndian.PutUint16(packet[10:], checksum(packet[:20]))
	binary.BigEndian.PutUint16(packet[20:], 9)
	binary.BigEndian.PutUint16(packet[22:], 9)
	binary.BigEndian.PutUint16(packet[24:], 8) // no checksum: 0 in IPv4
	return packet, nil
}

// checksum is the Internet checksum, RFC 1071.
func checksum(header []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func networkOrder(n uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, n))
}
