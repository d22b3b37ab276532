package controlplanetest

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"tailscale.com/tstest/integration"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/logger"

	"github.com/tailxds/tailxds/internal/controlplane"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
)

// Joiner makes the configuration that of a control plane that joins the tailnet at url.
func Joiner(dir, url string) func(*controlplane.Config) {
	return func(o *controlplane.Config) {
		*o = controlplane.Config{
			Provider: provider.Auto, Tailnet: "-", Hostname: "tsnet-dynamic-eds", Port: 18000, PollInterval: 15 * time.Second, MaxResponseBytes: 64 << 20,
			Admin: "127.0.0.1:0", StateDir: filepath.Join(dir, "state"), ControlURL: url, JoinWarning: 300 * time.Millisecond,
			HoldFraction: 0.5, HoldFor: time.Minute,
			Rules: topology.Rules{DefaultService: "server", DefaultPort: 8080, OfflineGrace: 15 * time.Second, DrainWindow: 10 * time.Minute},
		}
	}
}

// StartCoordination is a coordination server in this process.
func StartCoordination(t *testing.T, change func(*testcontrol.Server)) *testcontrol.Server {
	t.Helper()
	s, _ := StartLosableCoordination(t, change)
	return s
}

// StartLosableCoordination is the same, until it is lost: it refuses all, and what it had
// is closed.
func StartLosableCoordination(t *testing.T, change func(*testcontrol.Server)) (s *testcontrol.Server, lose func()) {
	t.Helper()
	s = &testcontrol.Server{DERPMap: integration.RunDERPAndSTUN(t, logger.Discard, "127.0.0.1"), Logf: logger.Discard}
	change(s)
	s.HTTPTestServer = httptest.NewUnstartedServer(s)
	var all sync.Map // also those that nodes took over from HTTP
	s.HTTPTestServer.Config.ConnState = func(c net.Conn, _ http.ConnState) { all.Store(c, nil) }
	s.HTTPTestServer.Start()
	t.Cleanup(s.HTTPTestServer.CloseClientConnections)
	return s, func() {
		_ = s.HTTPTestServer.Listener.Close()
		all.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
	}
}

// AwaitReason waits for a reason on /readyz, in /status and in a warning.
func (c *Control) AwaitReason(pattern string) string {
	c.T.Helper()
	var found string
	c.Await("readyz to say "+pattern, func() bool {
		code, detail := c.Do(http.MethodGet, "/readyz")
		found = regexp.MustCompile("not ready: joining the tailnet: " + pattern).FindString(detail)
		return code == http.StatusServiceUnavailable && found != ""
	})
	if s := c.Status(); s.Ready || !strings.HasPrefix(s.Detail, found) {
		c.T.Errorf("/status says %q", s.Detail)
	}
	warning := regexp.MustCompile(`level=WARN msg="not on the tailnet yet" reason=.*` + pattern)
	before := len(warning.FindAllString(c.Log.String(), -1))
	c.Await("two more warnings", func() bool { return len(warning.FindAllString(c.Log.String(), -1)) >= before+2 })
	return found
}

// AwaitJoined waits until the control plane has joined its tailnet.
func (c *Control) AwaitJoined() {
	c.T.Helper()
	c.Await("the tailnet to be joined", func() bool { return strings.Contains(c.Log.String(), "joined the tailnet") })
}

// Refuse takes an IPv4 address and port, without listening there, for as long as
// the test runs. A port that is only free may be another program's a moment later.
func Refuse(t *testing.T, address netip.AddrPort) string {
	t.Helper()
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(socket) })
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(socket, &unix.SockaddrInet4{Addr: address.Addr().As4(), Port: int(address.Port())}); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(address.Addr(), uint16(bound.(*unix.SockaddrInet4).Port)).String()
}
