package harness

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Where a control plane on this machine listens. The addresses differ, so that the two
// ports can be told apart in the kernel's table.
const localXDS, localAdmin = "127.0.0.2", "127.0.0.1"

var errNotListening = errors.New("it does not listen on both addresses yet")

// listeners asks the kernel where a process listens.
func listeners(pid int) (xds, admin string, err error) {
	all, err := sockets(pid)
	if err != nil {
		return "", "", err
	}
	for _, s := range all {
		switch {
		case s.state != stateListen:
		case strings.HasPrefix(s.local, localXDS+":"):
			xds = s.local
		case strings.HasPrefix(s.local, localAdmin+":"):
			admin = s.local
		}
	}
	if xds == "" || admin == "" {
		return "", "", errNotListening
	}
	return xds, admin, nil
}

// socket is a TCP socket of IPv4, see proc_net(5).
type socket struct{ local, state string }

const stateEstablished, stateListen = "01", "0A"

func sockets(pid int) ([]socket, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var inodes []string
	for _, file := range files {
		target, err := os.Readlink(filepath.Join(dir, file.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes = append(inodes, strings.TrimSuffix(inode, "]"))
		}
	}
	slices.Sort(inodes)
	table, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "net", "tcp"))
	if err != nil {
		return nil, err
	}
	var all []socket
	for line := range strings.Lines(string(table)) {
		const address, state, inode = 1, 3, 9
		fields := strings.Fields(line)
		if len(fields) <= inode || fields[0] == "sl" {
			continue
		}
		if _, its := slices.BinarySearch(inodes, fields[inode]); !its {
			continue
		}
		local, err := parseAddress(fields[address])
		if err != nil {
			return nil, err
		}
		all = append(all, socket{local, fields[state]})
	}
	return all, nil
}

// parseAddress reads an address as the kernel writes it on little-endian
// machines, such as 0200007F:1F90.
func parseAddress(text string) (string, error) {
	ip, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(ip)
	if err != nil {
		return "", fmt.Errorf("read the address %q of a socket: %w", text, err)
	}
	slices.Reverse(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return "", fmt.Errorf("read the port of %q: %w", text, err)
	}
	return net.JoinHostPort(net.IP(raw).String(), strconv.FormatUint(n, 10)), nil
}
