package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
)

// A peer runs in a process of its own, so that what it costs is its own. It
// takes commands on standard input and answers each with a line on standard
// output.

type command struct {
	// Change, if it is not 0, is the weight to set.
	Change int `json:"change,omitempty"`
	// Burst is for how many seconds to change the weight PerSecond times, to
	// values up to Change and at last to one that is not among them.
	Burst     int `json:"burst,omitempty"`
	PerSecond int `json:"perSecond,omitempty"`
	// Usage asks for what is used, after the garbage was collected.
	Usage bool `json:"usage,omitempty"`
}

type answer struct {
	Address string        `json:"address,omitempty"`
	Error   string        `json:"error,omitempty"`
	CPU     time.Duration `json:"cpu,omitempty"`
	Memory  uint64        `json:"memory,omitempty"` // bytes that live on the heap and on stacks
	// Goroutines are those that live, of which each connection has some.
	Goroutines int `json:"goroutines,omitempty"`
}

// beChild is a peer's whole process.
func beChild(ctx context.Context, spec string, in io.Reader, out io.Writer) error {
	var s setup
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return fmt.Errorf("read the setup: %w", err)
	}
	p, err := newPeer(ctx, s)
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { cancel(p.serve(ctx, l)) }()
	say := json.NewEncoder(out)
	if err := say.Encode(answer{Address: l.Addr().String()}); err != nil {
		return fmt.Errorf("say where it listens: %w", err)
	}
	commands := json.NewDecoder(in)
	for {
		var c command
		if err := commands.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		if err := say.Encode(obey(ctx, p, c)); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func obey(ctx context.Context, p peer, c command) answer {
	var a answer
	switch w, ok := p.(*watched); {
	case ok && c.Burst != 0:
		if err := w.burst(ctx, c.PerSecond, c.Burst, c.Change); err != nil {
			a.Error = err.Error()
		}
	case c.Change != 0:
		if err := p.change(ctx, c.Change); err != nil {
			a.Error = err.Error()
		}
	}
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		a.Error = err.Error()
	}
	a.CPU = time.Duration(used.Utime.Nano() + used.Stime.Nano())
	if c.Usage {
		// What pools keep outlives one, and stacks that have grown become half as
		// large with each.
		for range 5 {
			runtime.GC()
		}
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		a.Memory, a.Goroutines = m.HeapAlloc+m.StackInuse, runtime.NumGoroutine()
	}
	return a
}

// child is a peer's process, seen from outside.
type child struct {
	setup   setup
	address string
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
	weight  int
}

func start(ctx context.Context, s setup) (*child, error) {
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write the setup: %w", err)
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	// The setup may be too long for an argument.
	file, err := os.CreateTemp("", "tailxds-bench-*.json")
	if err != nil {
		return nil, fmt.Errorf("write the setup: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }() // it was read
	if _, err := file.Write(spec); err != nil {
		return nil, errors.Join(fmt.Errorf("write the setup: %w", err), file.Close())
	}
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("write the setup: %w", err)
	}
	c := &child{setup: s, cmd: exec.CommandContext(ctx, program, "-peer", file.Name()), weight: 1}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Kind, err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Kind, err)
	}
	c.out = json.NewDecoder(bufio.NewReader(stdout))
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Kind, err)
	}
	a, err := c.hear()
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	c.address = a.Address
	return c, nil
}

func (c *child) hear() (answer, error) {
	var a answer
	if err := c.out.Decode(&a); err != nil {
		return a, fmt.Errorf("hear from %s: %w", c.setup.Kind, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s: %s", c.setup.Kind, a.Error)
	}
	return a, nil
}

func (c *child) tell(m command) (answer, error) {
	if err := json.NewEncoder(c.in).Encode(m); err != nil {
		return answer{}, fmt.Errorf("tell %s: %w", c.setup.Kind, err)
	}
	return c.hear()
}

// change changes a weight, to one that the last change did not set. All of them
// take as many bytes.
func (c *child) change() error {
	c.weight = c.weight%100 + 2
	_, err := c.tell(command{Change: c.weight})
	return err
}

func (c *child) usage() (answer, error) { return c.tell(command{Usage: true}) }

// stop ends the process, and waits until it has.
func (c *child) stop() error {
	err := c.in.Close()
	if waited := c.cmd.Wait(); waited != nil {
		err = errors.Join(err, waited)
	}
	return err
}
