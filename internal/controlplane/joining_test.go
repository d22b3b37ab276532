package controlplane_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"

	"github.com/tailxds/tailxds/internal/controlplane"
	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
	"github.com/tailxds/tailxds/internal/provider"
)

// A coordination server that can't be reached is told as that, with the node's
// own reason, for as long as it lasts.
func TestJoin_deadCoordinationServer_isReported(t *testing.T) {
	address := controlplanetest.Refuse(t, netip.MustParseAddrPort("127.0.0.1:0"))
	dir := t.TempDir()
	c := controlplanetest.Start(t, dir, controlplanetest.Joiner(dir, "http://"+address))
	c.AwaitReason("cannot reach the coordination server http://" + address + ": .*connection refused")
	if err := c.Stop(); err != nil {
		t.Errorf("told to stop while joining: %v", err)
	}
}

// Where no auth key was given, the login URL is told, and login lets it go on.
func TestJoin_noKey_reportsLoginURL(t *testing.T) {
	s, lose := controlplanetest.StartLosableCoordination(t, func(s *testcontrol.Server) { s.RequireAuth = true })
	dir := t.TempDir()
	c := controlplanetest.Start(t, dir, controlplanetest.Joiner(dir, s.HTTPTestServer.URL))
	url := regexp.MustCompile(`http://\S+/auth/\w+`).FindString(c.AwaitReason("waiting for login: open " + s.HTTPTestServer.URL + `/auth/\w+, or give an auth key`))
	if !s.CompleteAuth(url) {
		t.Fatalf("nobody waits for %s", url)
	}
	c.AwaitJoined()
	if line := regexp.MustCompile(".*joined the tailnet.*").FindString(c.Log.String()); !regexp.MustCompile(`addresses="\[100\.64\.0\.1 fd7a:[0-9a-f:]+\]" tags=\[\]$`).MatchString(line) {
		t.Errorf("the log says %s", line)
	}
	if n := len(regexp.MustCompile("level=INFO msg=tsnet").FindAllString(c.Log.String(), -1)); n > 0 {
		t.Errorf("the node's own lines flood the log: %s", c.Log.String())
	}

	t.Run("and after a restart, that the server is gone", func(t *testing.T) {
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		// A node of Tailscale 1.102 keeps a netmap without peers when its relay changes,
		// though it was not allowed to keep any; by that it would be on the tailnet.
		if err := os.RemoveAll(filepath.Join(dir, "state", "tsnet", "profile-data")); err != nil {
			t.Fatal(err)
		}
		lose()
		controlplanetest.Refuse(t, netip.MustParseAddrPort(s.HTTPTestServer.Listener.Addr().String()))
		c := controlplanetest.Start(t, dir, controlplanetest.Joiner(dir, s.HTTPTestServer.URL))
		c.AwaitReason("cannot reach the coordination server " + s.HTTPTestServer.URL + ": .*connection refused")
	})
}

// A node that may keep its netmap is on the tailnet at once after a restart, be
// the coordination server there or not. What it keeps is no news, and is not
// taken for any.
func TestJoin_restart_usesSavedNetmap(t *testing.T) {
	s, lose := controlplanetest.StartLosableCoordination(t, func(s *testcontrol.Server) {
		s.DefaultNodeCapabilities = &tailcfg.NodeCapMap{tailcfg.NodeAttrCacheNetworkMaps: nil}
	})
	c := controlplanetest.New(t)
	c.List(controlplanetest.Machines(1, "tag:weight-1"))
	fromFile := func(o *controlplane.Config) { o.Provider, o.Devices = provider.File, c.Dir+"/devices.json" }
	c = controlplanetest.Start(t, c.Dir, controlplanetest.Joiner(c.Dir, s.HTTPTestServer.URL), fromFile)
	c.AwaitWeights("d01=1")
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	lose()
	controlplanetest.Refuse(t, netip.MustParseAddrPort(s.HTTPTestServer.Listener.Addr().String()))
	c = controlplanetest.Start(t, c.Dir, controlplanetest.Joiner(c.Dir, s.HTTPTestServer.URL), fromFile)
	c.AwaitWeights("d01=1")
	c.Await("readyz to say that the link is down", func() bool {
		code, detail := c.Do(http.MethodGet, "/readyz")
		return code == http.StatusOK && strings.HasPrefix(detail, "ready, but the control plane's own link to the coordination server is down")
	})
}

func TestJoin_unapprovedDevice_isReported(t *testing.T) {
	s := controlplanetest.StartCoordination(t, func(s *testcontrol.Server) { s.RequireMachineAuth = true })
	dir := t.TempDir()
	c := controlplanetest.Start(t, dir, controlplanetest.Joiner(dir, s.HTTPTestServer.URL))
	c.AwaitReason("waiting for an admin to approve the device on the tailnet")
}

// A key that the coordination server refuses ends the program, and the error
// does not show it.
func TestJoin_refusedKey_endsWithoutShowingIt(t *testing.T) {
	s := controlplanetest.StartCoordination(t, func(s *testcontrol.Server) { s.RequireAuthKey = "the-right-key" })
	var o controlplane.Config
	controlplanetest.Joiner(t.TempDir(), s.HTTPTestServer.URL)(&o)
	o.AuthKey = "the-wrong-key"
	log := &controlplanetest.LockedBuffer{}
	err := controlplane.Run(t.Context(), o, slog.New(slog.NewTextHandler(log, nil)))
	if err == nil || !strings.Contains(err.Error(), "join the tailnet: ") || !strings.Contains(err.Error(), "invalid authkey") {
		t.Errorf("got %v", err)
	}
	if all := log.String() + err.Error(); strings.Contains(all, "the-wrong-key") {
		t.Errorf("the key shows: %s", all)
	}
}

// In JSON too, addresses and tags are lists of texts.
func TestJoin_jsonLog_hasLists(t *testing.T) {
	s := controlplanetest.StartCoordination(t, func(s *testcontrol.Server) { s.TagOwners = map[string][]string{"tag:control-plane": {}} })
	var o controlplane.Config
	controlplanetest.Joiner(t.TempDir(), s.HTTPTestServer.URL)(&o)
	o.AdvertiseTags = []string{"tag:control-plane"}
	log := &controlplanetest.LockedBuffer{}
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- controlplane.Run(ctx, o, slog.New(slog.NewJSONHandler(log, nil))) }()
	(&controlplanetest.Control{T: t, Log: log}).AwaitJoined()
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
