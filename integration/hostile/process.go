package hostile

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
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
// port, as the kernel says: see proc_net(5). Its clients' own ends have other addresses.
func (c *ControlPlane) Connections() int {
	c.t.Helper()
	xds, err := netip.ParseAddrPort(c.XDS)
	if err != nil {
		c.t.Fatal(err)
	}
	ip := xds.Addr().As4()
	local := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), xds.Port())
	const localField, stateField, established = 1, 3, "01"
	n := 0
	for line := range strings.Lines(c.read("net/tcp")) {
		if fields := strings.Fields(line); len(fields) > stateField && fields[localField] == local && fields[stateField] == established {
			n++
		}
	}
	return n
}

func (c *ControlPlane) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(c.Pid()), file)
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
