package hostile

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Cost is what an attack cost the control plane.
type Cost struct {
	// Memory is by how many bytes the peak of its resident memory exceeds what
	// was resident before.
	Memory int64
	// CPU is its user and system time.
	CPU time.Duration
	// Took is how long the attack lasted, and Logged how many bytes it logged.
	Took   time.Duration
	Logged int
}

// Bound is what an attack may cost. A zero field is not checked.
type Bound struct {
	Memory int64
	CPU    time.Duration
	Logged int
}

// Check fails the test if an attack cost more than it may.
func (c Cost) Check(t testing.TB, most Bound) {
	t.Helper()
	t.Logf("cost: %.1f MB, %v of CPU in %v, %d bytes of log", float64(c.Memory)/1e6, c.CPU, c.Took.Round(time.Millisecond), c.Logged)
	if most.Memory > 0 && c.Memory > most.Memory {
		t.Errorf("the attack took %d bytes of memory, more than %d", c.Memory, most.Memory)
	}
	if most.CPU > 0 && c.CPU > most.CPU {
		t.Errorf("the attack took %v of CPU, more than %v", c.CPU, most.CPU)
	}
	if most.Logged > 0 && c.Logged > most.Logged {
		t.Errorf("the attack made %d bytes of log, more than %d", c.Logged, most.Logged)
	}
}

// Measure returns what an attack costs the control plane.
func (c *ControlPlane) Measure(attack func()) Cost {
	c.t.Helper()
	// 5 sets the peak back to what is resident now, see proc_pid_clear_refs(5).
	if err := os.WriteFile(c.proc("clear_refs"), []byte("5"), 0o200); err != nil {
		c.t.Fatal(err)
	}
	resident, cpu, logged, began := c.memory("VmRSS"), c.cpu(), len(c.Log()), time.Now()
	attack()
	return Cost{
		Memory: c.memory("VmHWM") - resident, CPU: c.cpu() - cpu,
		Took: time.Since(began), Logged: len(c.Log()) - logged,
	}
}

// Connections is how many TCP connections the control plane has open on its xDS
// port.
func (c *ControlPlane) Connections() int {
	c.t.Helper()
	all, err := sockets(c.process.Pid)
	if err != nil {
		c.t.Fatal(err)
	}
	n := 0
	for _, s := range all {
		if s.local == c.XDS && s.state == stateEstablished {
			n++
		}
	}
	return n
}

func (c *ControlPlane) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(c.process.Pid), file)
}

// memory is a field of /proc/PID/status in bytes.
func (c *ControlPlane) memory(field string) int64 {
	c.t.Helper()
	for line := range strings.Lines(c.read("status")) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				c.t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	c.t.Fatalf("/proc has no %s of the control plane", field)
	return 0
}

// cpu is the user and system time of the process, in the kernel's ticks of 10 ms.
func (c *ControlPlane) cpu() time.Duration {
	c.t.Helper()
	text := c.read("stat")
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:]) // its name may have spaces
	const user, system = 11, 12                                     // fields 14 and 15 of proc_pid_stat(5), after the name
	ticks := time.Duration(0)
	for _, field := range []int{user, system} {
		n, err := strconv.ParseInt(fields[field], 10, 64)
		if err != nil {
			c.t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}

func (c *ControlPlane) read(file string) string {
	c.t.Helper()
	text, err := os.ReadFile(c.proc(file))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// listeners asks the kernel where a process listens.
func listeners(pid int) (xds, admin string, err error) {
	all, err := sockets(pid)
	if err != nil {
		return "", "", err
	}
	for _, s := range all {
		switch {
		case s.state != stateListen:
		case strings.HasPrefix(s.local, xdsAddress+":"):
			xds = s.local
		case strings.HasPrefix(s.local, adminAddress+":"):
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
