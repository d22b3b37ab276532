package cli

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// Ctrl-C by somebody who only wants to see what the sidecar does takes no server
// out; SIGTERM does.
func TestDrainAtStop_interrupt_isIgnored(t *testing.T) {
	var told atomic.Int32
	beside := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthcheck/fail" || r.URL.Path == "/unhealthy" {
			told.Add(1)
		}
	}))
	defer beside.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tailxds := filepath.Join(t.TempDir(), "tailxds") // see TestMain
	if err := os.Symlink(self, tailxds); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tailxds, "drain-at-stop", "--wait=1ms", "--envoy-admin", beside.URL, "--unhealthy-url", beside.URL+"/unhealthy")
	says, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	if line, err := bufio.NewReader(says).ReadString('\n'); err != nil || !strings.Contains(line, "Ctrl-C does nothing") {
		t.Fatalf("it says %q, %v", line, err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	// The kernel knows that it is ignored, so it is not even pending.
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil || !regexp.MustCompile(`SigIgn:\s[0-9a-f]{15}[2367abef]\n`).Match(status) {
		t.Errorf("Ctrl-C is not ignored: %v\n%s", err, status)
	}
	if told.Load() != 0 {
		t.Error("Ctrl-C drained")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if told.Load() != 2 {
		t.Errorf("told %d of Envoy and the server", told.Load())
	}
}
