package k8s

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// drain watches one server's pod from outside while it ends. The load of the
// other steps can't tell whether it drains: Envoy's retries and the client's
// would hide most of what a pod that just stops breaks.
func (r *rig) drain(t *testing.T) {
	ends, stays := r.east.servers(t)[0], r.west.servers(t)[0]
	other := r.west.forward(t, stays, 10000)
	server := r.east.forward(t, ends, 8080)
	envoy := r.east.forward(t, ends, 10000)
	if resp, body := fetch(t, envoy); resp.Close || !strings.HasPrefix(body, "Hello from ") {
		t.Fatalf("before it ends, its Envoy must answer and keep connections: %s %q", resp.Status, body)
	}

	started := time.Now()
	r.east.do(t, "-n", serversNamespace, "delete", "pod", ends.name, "--wait=false")
	eventually(t, drainTime, "another Envoy stops choosing it", func() error {
		for range 50 {
			if _, body := fetch(t, other); strings.Contains(body, ends.name) {
				return fmt.Errorf("it answers: %s", body)
			}
		}
		return nil
	})
	t.Logf("no Envoy chooses it %v after it was deleted", time.Since(started).Round(100*time.Millisecond))

	if _, body := fetch(t, server); !strings.Contains(body, ends.name) {
		t.Errorf("while it drains, the server must go on serving; it says %q", body)
	}
	if resp, body := fetch(t, envoy); !resp.Close || !strings.HasPrefix(body, "Hello from ") {
		t.Errorf("while it drains, its Envoy must serve and close connections (it closes: %v); it says %q", resp.Close, body)
	}
	r.east.rolledOut(t)
	r.devicesMatchPods(t)
}

// drainTime is the chart's default of drainSeconds.
const drainTime = 10 * time.Second

func fetch(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, strings.TrimSpace(string(body))
}

var forwarding = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+) `)

// forward makes a port of a pod reachable from here, until the test ends.
func (c cluster) forward(t *testing.T, p pod, port int) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, c.kubectl, "--kubeconfig", c.kubeconfig,
		"-n", serversNamespace, "port-forward", "--address", "127.0.0.1", p.name, fmt.Sprintf(":%d", port))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("forwarding to %s: %v", p.name, err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	match := forwarding.FindStringSubmatch(line)
	if match == nil {
		t.Fatalf("forwarding to port %d of %s: %q, %v", port, p.name, line, err)
	}
	return "http://" + match[1] + "/"
}
