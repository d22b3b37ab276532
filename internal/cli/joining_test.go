package cli

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/logger"

	"github.com/tailxds/tailxds/internal/provider"
)

// joiner makes the options those of a control plane that joins the tailnet at url.
func joiner(dir, url string) func(*options) {
	return func(o *options) {
		*o = defaults()
		o.Admin, o.StateDir, o.ControlURL, o.JoinWarning = "127.0.0.1:0", filepath.Join(dir, "state"), url, 300*time.Millisecond
	}
}

// coordination is a coordination server in this process.
func coordination(t *testing.T, change func(*testcontrol.Server)) *testcontrol.Server {
	t.Helper()
	s, _ := coordinationToLose(t, change)
	return s
}

// coordinationToLose is the same, until it is lost: it refuses all, and what it had
// is closed.
func coordinationToLose(t *testing.T, change func(*testcontrol.Server)) (s *testcontrol.Server, lose func()) {
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

// awaitReason waits for a reason on /readyz, in /status and in a warning.
func (c *control) awaitReason(pattern string) string {
	c.t.Helper()
	var found string
	c.await("readyz to say "+pattern, func() bool {
		code, detail := c.do(http.MethodGet, "/readyz")
		found = regexp.MustCompile("not ready: joining the tailnet: " + pattern).FindString(detail)
		return code == http.StatusServiceUnavailable && found != ""
	})
	if s := c.status(); s.Ready || !strings.HasPrefix(s.Detail, found) {
		c.t.Errorf("/status says %q", s.Detail)
	}
	warning := regexp.MustCompile(`level=WARN msg="not on the tailnet yet" reason=.*` + pattern)
	before := len(warning.FindAllString(c.log.String(), -1))
	c.await("two more warnings", func() bool { return len(warning.FindAllString(c.log.String(), -1)) >= before+2 })
	return found
}

func (c *control) awaitJoined() {
	c.t.Helper()
	c.await("the tailnet to be joined", func() bool { return strings.Contains(c.log.String(), "joined the tailnet") })
}

// refuse takes an IPv4 address and port, without listening there, for as long as
// the test runs. A port that is only free may be another program's a moment later.
func refuse(t *testing.T, address netip.AddrPort) string {
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

// A coordination server that can't be reached is told as that, with the node's
// own reason, for as long as it lasts.
func TestJoiningTellsADeadCoordinationServer(t *testing.T) {
	address := refuse(t, netip.MustParseAddrPort("127.0.0.1:0"))
	dir := t.TempDir()
	c := startControl(t, dir, joiner(dir, "http://"+address))
	c.awaitReason("cannot reach the coordination server http://" + address + ": .*connection refused")
	if err := c.stop(); err != nil {
		t.Errorf("told to stop while joining: %v", err)
	}
}

// Where no auth key was given, the login URL is told, and login lets it go on.
func TestJoiningTellsTheLoginURL(t *testing.T) {
	s, lose := coordinationToLose(t, func(s *testcontrol.Server) { s.RequireAuth = true })
	dir := t.TempDir()
	c := startControl(t, dir, joiner(dir, s.HTTPTestServer.URL))
	url := regexp.MustCompile(`http://\S+/auth/\w+`).FindString(c.awaitReason("waiting for login: open " + s.HTTPTestServer.URL + `/auth/\w+, or give an auth key`))
	if !s.CompleteAuth(url) {
		t.Fatalf("nobody waits for %s", url)
	}
	c.awaitJoined()
	if line := regexp.MustCompile(".*joined the tailnet.*").FindString(c.log.String()); !regexp.MustCompile(`addresses="\[100\.64\.0\.1 fd7a:[0-9a-f:]+\]" tags=\[\]$`).MatchString(line) {
		t.Errorf("the log says %s", line)
	}
	if n := len(regexp.MustCompile("level=INFO msg=tsnet").FindAllString(c.log.String(), -1)); n > 0 {
		t.Errorf("the node's own lines flood the log: %s", c.log.String())
	}

	t.Run("and after a restart, that the server is gone", func(t *testing.T) {
		if err := c.stop(); err != nil {
			t.Fatal(err)
		}
		// A node of Tailscale 1.102 keeps a netmap without peers when its relay changes,
		// though it was not allowed to keep any; by that it would be on the tailnet.
		if err := os.RemoveAll(filepath.Join(dir, "state", "tsnet", "profile-data")); err != nil {
			t.Fatal(err)
		}
		lose()
		refuse(t, netip.MustParseAddrPort(s.HTTPTestServer.Listener.Addr().String()))
		c := startControl(t, dir, joiner(dir, s.HTTPTestServer.URL))
		c.awaitReason("cannot reach the coordination server " + s.HTTPTestServer.URL + ": .*connection refused")
	})
}

// A node that may keep its netmap is on the tailnet at once after a restart, be
// the coordination server there or not. What it keeps is no news, and is not
// taken for any.
func TestARestartByTheNetmapThatWasKept(t *testing.T) {
	s, lose := coordinationToLose(t, func(s *testcontrol.Server) {
		s.DefaultNodeCapabilities = &tailcfg.NodeCapMap{tailcfg.NodeAttrCacheNetworkMaps: nil}
	})
	c := &control{t: t, dir: t.TempDir(), log: &lockedBuffer{}}
	c.list(machines(1, "tag:weight-1"))
	fromFile := func(o *options) { o.Provider, o.Devices = provider.FromFile, c.dir+"/devices.json" }
	c = startControl(t, c.dir, joiner(c.dir, s.HTTPTestServer.URL), fromFile)
	c.awaitWeights("d01=1")
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	lose()
	refuse(t, netip.MustParseAddrPort(s.HTTPTestServer.Listener.Addr().String()))
	c = startControl(t, c.dir, joiner(c.dir, s.HTTPTestServer.URL), fromFile)
	c.awaitWeights("d01=1")
	c.await("readyz to say that the link is down", func() bool {
		code, detail := c.do(http.MethodGet, "/readyz")
		return code == http.StatusOK && strings.HasPrefix(detail, "ready, but the control plane's own link to the coordination server is down")
	})
}

func TestJoiningTellsThatAnAdminMustApprove(t *testing.T) {
	s := coordination(t, func(s *testcontrol.Server) { s.RequireMachineAuth = true })
	dir := t.TempDir()
	c := startControl(t, dir, joiner(dir, s.HTTPTestServer.URL))
	c.awaitReason("waiting for an admin to approve the device on the tailnet")
}

// A key that the coordination server refuses ends the program, and the error
// does not show it.
func TestJoiningWithARefusedKey(t *testing.T) {
	s := coordination(t, func(s *testcontrol.Server) { s.RequireAuthKey = "the-right-key" })
	var o options
	joiner(t.TempDir(), s.HTTPTestServer.URL)(&o)
	o.AuthKey = "the-wrong-key"
	log := &lockedBuffer{}
	err := serve(t.Context(), o, log)
	if err == nil || !strings.Contains(err.Error(), "join the tailnet: ") || !strings.Contains(err.Error(), "invalid authkey") {
		t.Errorf("got %v", err)
	}
	if all := log.String() + err.Error(); strings.Contains(all, "the-wrong-key") {
		t.Errorf("the key shows: %s", all)
	}
}

// In JSON too, addresses and tags are lists of texts.
func TestJoinedInJSON(t *testing.T) {
	s := coordination(t, func(s *testcontrol.Server) { s.TagOwners = map[string][]string{"tag:control-plane": {}} })
	var o options
	joiner(t.TempDir(), s.HTTPTestServer.URL)(&o)
	o.AdvertiseTags, o.LogFormat = []string{"tag:control-plane"}, "json"
	log := &lockedBuffer{}
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- serve(ctx, o, log) }()
	(&control{t: t, log: log}).awaitJoined()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	var line struct{ Addresses, Tags []string }
	if err := json.Unmarshal([]byte(regexp.MustCompile(".*joined the tailnet.*").FindString(log.String())), &line); err != nil {
		t.Fatal(err)
	}
	if len(line.Addresses) != 2 || line.Addresses[0] != "100.64.0.1" || !strings.HasPrefix(line.Addresses[1], "fd7a:") || strings.Join(line.Tags, " ") != "tag:control-plane" {
		t.Errorf("%+v", line)
	}
}
