package engine

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Probe runs the probe program from its own image, in the network of whichever
// container is asked about.
type Probe struct {
	run   *Run
	image string
}

// BuildProbe compiles the probe and makes its image, which Clean removes.
func (r *Run) BuildProbe(ctx context.Context) (*Probe, error) {
	binary, err := compile(ctx)
	if err != nil {
		return nil, fmt.Errorf("compiling the probe: %w", err)
	}
	archive, err := pack("probe", binary)
	if err != nil {
		return nil, fmt.Errorf("packing the probe: %w", err)
	}
	image := r.ID + "-probe"
	command := exec.CommandContext(ctx, "docker", "import", "--change", `ENTRYPOINT ["/probe"]`, "-", image)
	command.Stdin = archive
	if output, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("importing the probe: %w: %s", err, output)
	}
	return &Probe{run: r, image: image}, nil
}

// pack makes a tar archive of one program.
func pack(name string, binary []byte) (io.Reader, error) {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	if err := writer.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(binary))}); err != nil {
		return nil, err
	}
	if _, err := writer.Write(binary); err != nil {
		return nil, err
	}
	return &archive, writer.Close()
}

// compile builds the probe for the engine's machine.
func compile(ctx context.Context) ([]byte, error) {
	arch, err := Docker(ctx, "version", "--format", "{{.Server.Arch}}")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "probe")
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "github.com/tailxds/tailxds/integration/cmd/probe")
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if output, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, output)
	}
	return os.ReadFile(path)
}

// args start the probe in the container's network, which has the container's
// loopback and its names.
func (p *Probe) args(container string, command []string) []string {
	return append([]string{
		"run", "--rm", "--interactive", "--network", "container:" + container,
		"--cap-drop", "ALL", "--cap-add", "NET_RAW", "--cap-add", "NET_ADMIN",
		"--label", Label + "=" + p.run.ID, p.image,
	}, command...)
}

// Get asks a URL from inside the container's network.
func (p *Probe) Get(ctx context.Context, container, url string) (string, error) {
	return Docker(ctx, p.args(container, []string{"get", url})...)
}

// Dial connects to a TCP address from inside the container's network.
func (p *Probe) Dial(ctx context.Context, container, address string) error {
	_, err := Docker(ctx, p.args(container, []string{"dial", address})...)
	return err
}

// Read reads a file that tells of the container's network, as /proc/sys/net/ does.
func (p *Probe) Read(ctx context.Context, container, file string) (string, error) {
	return Docker(ctx, p.args(container, []string{"read", file})...)
}

// Watch asks a URL from inside the container's network, many times a second,
// until the answer matches the pattern. It returns once the watch has begun;
// the answer must not match before. The function it returns waits for the match
// and says when it was.
func (p *Probe) Watch(ctx context.Context, container, url, pattern string) (func() (time.Time, error), error) {
	watch, err := p.start(ctx, container, "watching", "watch", url, pattern)
	if err != nil {
		return nil, err
	}
	return func() (time.Time, error) {
		output, err := watch.end()
		if err != nil {
			return time.Time{}, err
		}
		return time.Parse(time.RFC3339Nano, strings.TrimSpace(output))
	}, nil
}

// Sniff counts the packets that pass the container's interface, from when it
// returns until the function it returns is called. Each line is SOURCE
// DESTINATION PACKETS.
func (p *Probe) Sniff(ctx context.Context, container, nic string) (func() (string, error), error) {
	sniff, err := p.start(ctx, container, "sniffing", "sniff", nic)
	if err != nil {
		return nil, err
	}
	return func() (string, error) {
		if err := sniff.stdin.Close(); err != nil {
			return "", fmt.Errorf("ending the probe's input: %w", err)
		}
		return sniff.end()
	}, nil
}

// Forge sends packets from the container's interface that claim a source and a
// destination, through the neighbour with the MAC address.
func (p *Probe) Forge(ctx context.Context, container, nic, mac, source, destination string, n int) error {
	_, err := Docker(ctx, p.args(container, []string{"forge", nic, mac, source, destination, strconv.Itoa(n)})...)
	return err
}

// Cut makes one IPv4 address unreachable from the container's network, and no
// other, until the function it returns is called.
func (p *Probe) Cut(ctx context.Context, container, address string) (mend func() error, err error) {
	return p.during(ctx, container, "cut", "cut", address)
}

// Silence loses all that arrives at the container's network and leaves it, until
// the function it returns is called. No connection is closed.
func (p *Probe) Silence(ctx context.Context, container string) (mend func() error, err error) {
	return p.during(ctx, container, "silent", "silence")
}

// during starts a command that undoes what it did at the end of its input.
func (p *Probe) during(ctx context.Context, container, ready string, command ...string) (mend func() error, err error) {
	fault, err := p.start(ctx, container, ready, command...)
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := fault.stdin.Close(); err != nil {
			return fmt.Errorf("ending the probe's input: %w", err)
		}
		_, err := fault.end()
		return err
	}, nil
}

// Image is the probe's image.
func (p *Probe) Image() string { return p.image }

// Relay is the probe's command that serves DERP on a port.
func Relay(port int) []string { return []string{"relay", fmt.Sprintf(":%d", port)} }

// running is a probe that has said it is at work.
type running struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	stdout  *bufio.Reader
	stderr  *bytes.Buffer
}

func (p *Probe) start(ctx context.Context, container, ready string, command ...string) (*running, error) {
	r := &running{command: exec.CommandContext(ctx, "docker", p.args(container, command)...), stderr: &bytes.Buffer{}}
	r.command.Stderr = r.stderr
	stdin, inErr := r.command.StdinPipe()
	stdout, outErr := r.command.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return nil, fmt.Errorf("connecting to the probe: %w", err)
	}
	r.stdin, r.stdout = stdin, bufio.NewReader(stdout)
	if err := r.command.Start(); err != nil {
		return nil, fmt.Errorf("starting the probe: %w", err)
	}
	line, err := r.stdout.ReadString('\n')
	if strings.TrimSpace(line) == ready {
		return r, nil
	}
	_, endErr := r.end()
	return nil, fmt.Errorf("probe %v said %q, not %q: %w", command, line, ready, errors.Join(err, endErr))
}

// end waits for the probe to end and returns the rest of its output.
func (r *running) end() (string, error) {
	output, readErr := io.ReadAll(r.stdout)
	waitErr := r.command.Wait()
	if err := errors.Join(readErr, waitErr); err != nil {
		return "", fmt.Errorf("probe: %w: %s", err, strings.TrimSpace(r.stderr.String()))
	}
	return string(output), nil
}
