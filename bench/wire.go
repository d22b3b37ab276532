package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// What an Envoy is measured with must be cheaper than Envoy, or it waits for its
// client: these read and write HTTP/1.1 as text that is always the same.

var (
	wireRequest  = []byte("GET / HTTP/1.1\r\nhost: bench\r\n\r\n")
	wireResponse = []byte("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nok\n")
	headersEnd   = []byte("\r\n\r\n")
	responseEnd  = []byte("\r\n\r\nok\n")
	responseGood = []byte("HTTP/1.1 200 ")
)

// answerAll answers what a listener's connections ask, until it is closed. What
// is asked has no body.
func answerAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }() // it is broken, or nobody is there any more
			for buffer, n := make([]byte, 4096), 0; n < len(buffer); {
				got, err := c.Read(buffer[n:])
				if err != nil {
					return
				}
				if n += got; !bytes.HasSuffix(buffer[:n], headersEnd) {
					continue
				}
				if _, err := c.Write(wireResponse); err != nil {
					return
				}
				n = 0
			}
		}()
	}
}

// callers are connections that each ask one request after the other.
type callers []net.Conn

func dialCallers(ctx context.Context, address string, n int) (all callers, err error) {
	for range n {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("connect to Envoy: %w", err), all.Close())
		}
		all = append(all, c)
	}
	return all, nil
}

// Close ends all connections.
func (all callers) Close() (err error) {
	for _, c := range all {
		err = errors.Join(err, c.Close())
	}
	return err
}

// ask sends so many requests in all, of which each connection has one at a time.
func (all callers) ask(n int) error {
	var group errgroup.Group
	for _, c := range all {
		group.Go(func() error {
			buffer := make([]byte, 4096)
			for range n / len(all) {
				if err := askOnce(c, buffer); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func askOnce(c net.Conn, buffer []byte) error {
	if _, err := c.Write(wireRequest); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	n := 0
	for !bytes.HasSuffix(buffer[:n], responseEnd) {
		got, err := c.Read(buffer[n:])
		if err != nil {
			return fmt.Errorf("read an answer, after %q: %w", buffer[:n], err)
		}
		n += got
	}
	if !bytes.HasPrefix(buffer, responseGood) {
		return fmt.Errorf("the answer is %q", buffer[:n])
	}
	return nil
}

// bind keeps all threads of a process, and those that they start from now on, on
// some of the machine's CPUs, and returns on which its first thread was.
func bind(process int, cpus unix.CPUSet) (before unix.CPUSet, err error) {
	if err := unix.SchedGetaffinity(process, &before); err != nil {
		return before, fmt.Errorf("ask on which CPUs a process may be: %w", err)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", process))
	if err != nil {
		return before, fmt.Errorf("list a process's threads: %w", err)
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return before, fmt.Errorf("read a thread's number: %w", err)
		}
		if err := unix.SchedSetaffinity(id, &cpus); err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return before, fmt.Errorf("keep a thread on some CPUs: %w", err)
		}
	}
	return before, nil
}

// apart splits the CPUs that this process may use: one for Envoy, and the others
// for all else.
func apart() (envoys, others unix.CPUSet, err error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return envoys, others, fmt.Errorf("ask which CPUs there are: %w", err)
	}
	if all.Count() < 2 {
		return envoys, others, errors.New("two CPUs are needed: one for Envoy, and one for those who ask and who answer")
	}
	others = all
	for cpu := 0; envoys.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			envoys.Set(cpu)
			others.Clear(cpu)
		}
	}
	return envoys, others, nil
}
