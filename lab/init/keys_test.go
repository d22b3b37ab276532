package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeHeadscale mints keys in the shape of headscale 0.29, and lists their
// public parts.
type fakeHeadscale struct {
	minted []string // the commands
	public []string
	fail   string // the command that fails
}

func (f *fakeHeadscale) cli(_ context.Context, args ...string) ([]byte, error) {
	if args[1] == f.fail {
		return nil, errors.New("headscale is away")
	}
	if args[1] == "list" {
		return []byte(`[{"key":"hskey-auth-` + strings.Join(f.public, `-***"},{"key":"hskey-auth-`) + `-***"}]`), nil
	}
	f.minted = append(f.minted, strings.Join(args, " "))
	public := fmt.Sprintf("Pub%d_x", len(f.minted))
	f.public = append(f.public, public)
	if args[0] == "apikeys" {
		return []byte(`"hskey-api-` + public + `-sec-ret"`), nil
	}
	return []byte(`{"id":1,"key":"hskey-auth-` + public + `-sec-ret"}`), nil
}

func mintAll(t *testing.T, f *fakeHeadscale, keys []labKey) {
	t.Helper()
	for _, k := range keys {
		if _, err := mint(t.Context(), f.cli, k); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMint_sameDatabase_mintsOnce(t *testing.T) {
	servers, control := t.TempDir(), t.TempDir()
	keys := labKeys(servers, control)
	f := &fakeHeadscale{}
	mintAll(t, f, keys)
	if len(f.minted) != 5 {
		t.Fatalf("minted %d keys: %q", len(f.minted), f.minted)
	}
	if !slices.ContainsFunc(f.minted, func(c string) bool { return strings.Contains(c, "--tags tag:region-east,tag:weight-2") }) {
		t.Errorf("no key for east: %q", f.minted)
	}
	east, token := filepath.Join(servers, "east"), filepath.Join(control, "api-token")
	if got := readAll(t, east, token); got[0] != "hskey-auth-Pub2_x-sec-ret" || got[1] != "hskey-api-Pub5_x-sec-ret" {
		t.Errorf("keys = %q", got)
	}

	mintAll(t, f, keys)
	if len(f.minted) != 5 {
		t.Errorf("keys that headscale knows were minted again: %q", f.minted[5:])
	}

	emptied := &fakeHeadscale{}
	mintAll(t, emptied, keys)
	if len(emptied.minted) != 5 {
		t.Errorf("a new database got %d keys, want 5", len(emptied.minted))
	}
}

func TestMint_headscaleFails_reportsItsError(t *testing.T) {
	k := labKeys(t.TempDir(), t.TempDir())[0]
	if _, err := mint(t.Context(), (&fakeHeadscale{fail: "create"}).cli, k); err == nil {
		t.Error("a failing create went unnoticed")
	}
	if err := os.WriteFile(k.path, []byte("hskey-auth-old-x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := mint(t.Context(), (&fakeHeadscale{fail: "list"}).cli, k); err == nil {
		t.Error("a failing list went unnoticed")
	}
	odd := func(context.Context, ...string) ([]byte, error) { return []byte(`{"keys":[]}`), nil }
	if _, err := mint(t.Context(), odd, labKeys(t.TempDir(), t.TempDir())[0]); err == nil {
		t.Error("an answer without a key went unnoticed")
	}
}

// envoyAdmin answers as the admin pages of an Envoy do.
func envoyAdmin(t *testing.T, pages map[string]string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, ok := pages[r.URL.Path]
		if !ok {
			http.Error(w, "INITIALIZING", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, page)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestReady_envoy_onceItServes(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	const (
		all  = "cluster.control_plane.membership_healthy: 1\ncluster.control_plane.membership_total: 1\ncluster.server.membership_healthy: 2\ncluster.server.membership_total: 2\n"
		some = "cluster.control_plane.membership_healthy: 1\ncluster.control_plane.membership_total: 1\ncluster.server.membership_healthy: 1\ncluster.server.membership_total: 2\n"
	)
	up := func(stats, uptime string) map[string]string {
		return map[string]string{"/ready": "LIVE", "/stats": stats, "/server_info": `{"uptime_current_epoch": "` + uptime + `"}`}
	}
	for _, test := range []struct {
		name  string
		admin map[string]string
		at    net.Listener
		want  string // in the error; empty if it is ready
	}{
		{"all servers answered", up(all, "1s"), listener, ""},
		{"one has not answered yet", up(some, "14s"), listener, "1 of 3 endpoints have not answered"},
		{"one has had its time", up(some, "15s"), listener, ""},
		{"Envoy is initializing", nil, listener, "503"},
		{"no listener", up(all, "1s"), gone, "no listener yet"},
		{"statistics that are none", up("cluster.server.membership_total: many\n", "1s"), listener, "statistics"},
		{"no uptime", up(some, ""), listener, "server_info"},
		{"no statistics", map[string]string{"/ready": "LIVE"}, listener, "503"},
		{"no server_info", map[string]string{"/ready": "LIVE", "/stats": some}, listener, "503"},
		{"server_info that is none", map[string]string{"/ready": "LIVE", "/stats": some, "/server_info": "no"}, listener, "server_info"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := ready(t.Context(), envoyAdmin(t, test.admin), test.at.Addr().String())
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error = %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestRun_arguments_areCheckedFirst(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "clusters") }))
	defer srv.Close()
	var out strings.Builder
	if err := run(t.Context(), []string{"get", srv.URL}, env(nil), &out); err != nil || out.String() != "clusters" {
		t.Errorf("get = %q, %v", out.String(), err)
	}
	if err := run(t.Context(), []string{"get"}, env(nil), &out); err == nil || !strings.Contains(err.Error(), "usage:") {
		t.Errorf("error = %v", err)
	}
}
