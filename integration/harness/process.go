package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// process is a program that runs on a host, with its output in a file.
type process struct {
	name string
	log  string // the file
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended

	stopped atomic.Bool // on purpose
}

// start runs a program on the host until the test ends. It dies with this
// process, too. Its thread must live as long as it does: to the kernel, the parent of a
// process is the thread that started it (PR_SET_PDEATHSIG).
func (h *Host) start(withoutIPv6 bool, name, program string, args ...string) (*process, error) {
	return h.startApart(0, withoutIPv6, name, program, args...)
}

// startApart is start in further namespaces of the program's own.
func (h *Host) startApart(namespaces uintptr, withoutIPv6 bool, name, program string, args ...string) (*process, error) {
	path := filepath.Join(h.rig.dir, fmt.Sprintf("%s-%d.log", name, h.rig.number()))
	log, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...) //nolint:noctx // it ends with the rig, by stop
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = h.rig.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: namespaces}
	p := &process{name: name, log: path, cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.done)
		defer func() { _ = log.Close() }()
		runtime.LockOSThread()
		var err error
		if h.ns.IsOpen() {
			err = netns.Set(h.ns)
		}
		if err == nil && withoutIPv6 {
			err = refuseIPv6()
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", name, h.Name, err)
	}
	h.rig.add(p)
	return p, nil
}

// stop kills the program and waits until it is gone.
func (p *process) stop() error {
	p.stopped.Store(true)
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// crashed reports whether the program has ended by itself.
func (p *process) crashed() bool {
	select {
	case <-p.done:
		return !p.stopped.Load()
	default:
		return false
	}
}

// logTail is the end of the program's output.
func (p *process) logTail() string {
	const most = 8 << 10
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(text) > most {
		text = text[len(text)-most:]
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return string(text)
}

// refuseIPv6 makes the kernel answer this thread, and what it starts, that there is no
// IPv6: socket(AF_INET6, …) fails as it does there.
func refuseIPv6() error {
	const number, firstArgument = 0, 16 // where seccomp_data has them
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unlessEqual := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip}
	}
	answer := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: value}
	}
	filter := []unix.SockFilter{
		load(number), unlessEqual(unix.SYS_SOCKET, 3),
		load(firstArgument), unlessEqual(unix.AF_INET6, 1),
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT)),
		answer(unix.SECCOMP_RET_ALLOW),
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prepare a filter of system calls: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	return nil
}
