package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/tailxds/tailxds/internal/api"
)

// away is a control plane with a service that nobody serves, and with texts
// from elsewhere that would clear a terminal, turn its letters around or make
// lines of their own.
const away = `{
  "version": "v1", "ready": true, "detail": "ready, but \u001b[2Jheld", "degraded": ["server: 0 of 2 serving"],
  "held": [{"service": "server", "endpoints": [{"device": "7", "name": "west-7", "address": "100.64.0.7:8080", "listed": "missing"}]}],
  "policy": {}, "publishedAt": "2026-01-01T00:00:00Z", "devices": [], "provider": {"provider": "netmap", "lastGood": "2026-01-01T00:00:00Z", "stale": false, "failures": 0, "devices": 3},
  "shares": [{"service": "server", "device": "7", "address": "100.64.0.7:8080", "expected": 0.3333, "envoy": false}, {"service": "server", "device": "9", "address": "100.64.0.9:8080", "expected": 0.6667, "envoy": true}],
  "services": [{"name": "server", "localities": [{"region": "west", "priority": 0, "weight": 2, "endpoints": [
    {"device": "7", "name": "west-7", "address": "100.64.0.7:8080", "weight": 2, "region": "west", "priority": 0, "state": "serving"},
    {"device": "9", "name": "west-9", "address": "100.64.0.9:8080", "weight": 4, "region": "west", "priority": 0, "state": "serving"}]}],
    "idle": [{"device": "8", "name": "we\tst\n8", "address": "100.64.0.8:8080", "weight": 1, "priority": 0, "state": "offline"}]}],
  "drains": [{"provider": "p", "device": "8", "name": "west-8", "addresses": [], "drain": true, "by": "eve\u001b[2J at the control plane", "at": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:30:00Z"},
    {"provider": "p", "device": "9", "name": "west-9", "addresses": [], "drain": true, "by": "op", "at": "2026-01-01T00:00:00Z"}],
  "problems": [{"device": "8", "name": "west-8", "subject": "tag:weight-\u202e2", "reason": "bad\u009b2J"}],
  "envoys": [{"device": "west-7", "node": "n\u0007", "address": "100.64.0.7:5", "since": "2026-01-01T00:00:00Z",
    "types": {"route": {"pending": false, "rejected": "no \u001b]0;title"}, "cluster": {"pending": true}}}]
}`

// asked runs a command against a control plane that answers thus, and returns
// what it printed and which pages it asked for.
func asked(t *testing.T, answer http.HandlerFunc, args ...string) (out string, paths []string, err error) {
	t.Helper()
	return askedBy(t, nil, answer, args...)
}

func askedBy(t *testing.T, env environment, answer http.HandlerFunc, args ...string) (out string, paths []string, err error) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.String())
		answer(w, r)
	}))
	defer s.Close()
	var b bytes.Buffer
	root := rootCommand(env)
	root.SetOut(&b)
	root.SetArgs(append(args, "--admin", strings.TrimPrefix(s.URL, "http://")))
	err = root.ExecuteContext(t.Context())
	return b.String(), paths, err
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func TestStatus_table_hasEachPart(t *testing.T) {
	out, _, err := asked(t, says(away), "status")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out, "\n")
	if lines[0] != "DEGRADED server: 0 of 2 serving" || lines[1] != "ready, but \ufffd[2Jheld" || !strings.HasPrefix(lines[2], "1 service, 2 of 3 endpoints serving, 1 Envoy; the list of netmap is ") || lines[3] != "" {
		t.Errorf("it begins with %q", lines[:4])
	}
	for _, want := range []string{
		"server   0         west    -     west-7   7   100.64.0.7:8080  2       33.3%  serving, no Envoy\n",
		"server   0         west    -     west-9   9   100.64.0.9:8080  4       66.7%  serving\n",
		"server   0         -       -     we st 8  8   100.64.0.8:8080  1       -      offline\n",
		"HELD IN  DEVICE  ADDRESS          LISTED AS\nserver   west-7  100.64.0.7:8080  missing\n",
		"DRAINED  ID  BY                            SINCE                UNTIL\n",
		"west-8   8   eve\ufffd[2J at the control plane  2026-01-01 00:00:00  2026-01-01 00:30:00 UTC\n",
		"west-9   9   op                            2026-01-01 00:00:00  `tailxds restore west-9`\n",
		"rejected route: no \ufffd]0;title\n",
		"west-8      tag:weight-\ufffd2  bad\ufffd2J\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it lacks %q:\n%s", want, out)
		}
	}
	harmless(t, out)
}

// harmless fails if a terminal might obey the text.
func harmless(t *testing.T, out string) {
	t.Helper()
	if strings.ContainsAny(out, "\x1b\x07\u009b\u202e\t") {
		t.Errorf("a terminal might obey %q", out)
	}
}

func TestStatus_json_isTheDocument(t *testing.T) {
	var want map[string]any
	if err := json.Unmarshal([]byte(away), &want); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--json"}, {"-o", "json"}, {"--output=yaml"}} {
		out, _, err := asked(t, says(away), append([]string{"status"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		harmless(t, out)
		got := map[string]any{}
		if args[len(args)-1] == "--output=yaml" {
			if err := yaml.Load([]byte(out), &got); err != nil || !strings.HasPrefix(out, "version: v1\nready: true\n") {
				t.Errorf("%v of\n%s", err, out)
			}
		} else if err := json.Unmarshal([]byte(out), &got); err != nil || got["detail"] != want["detail"] {
			t.Errorf("%v: %v, detail %q", args, err, got["detail"])
		}
		if len(got) != len(want) || got["degraded"].([]any)[0] != "server: 0 of 2 serving" {
			t.Errorf("%v: got %v", args, got)
		}
	}
	if _, _, err := asked(t, says(away), "status", "-o", "xml"); err == nil || !strings.Contains(err.Error(), `--output is "xml": it must be table, json or yaml`) {
		t.Errorf("an unknown format: %v", err)
	}
}

func TestStatus_degraded_exitsWithOne(t *testing.T) {
	for body, want := range map[string]string{
		`{"ready": true, "detail": "ready", "degraded": []}`:                                         "",
		`{"ready": false, "detail": "not ready: joining the tailnet", "degraded": []}`:               "not ready: joining the tailnet",
		`{"ready": true, "detail": "ready", "degraded": ["a: 0 of 1 serving", "b: 0 of 2 serving"]}`: "degraded: a: 0 of 1 serving; b: 0 of 2 serving",
	} {
		out, _, err := asked(t, says(body), "status", "--exit-code", "-o", "json")
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s: got %v", body, err)
		}
		if out != body {
			t.Errorf("it is not shown: %q", out)
		}
		if strings.HasPrefix(want, "degraded") {
			want = "" // it serves, and that is what counts without --exit-code
		}
		out, _, err = asked(t, says(body), "status")
		if (err == nil) != (want == "") || err != nil && err.Error() != want || !strings.Contains(out, "ready") {
			t.Errorf("without --exit-code: %v, %q", err, out)
		}
	}
}

// Watching shows each look, also one that fails, and ends with what was last.
func TestStatus_watch_printsUntilStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	var out bytes.Buffer
	look := func(_ context.Context, to io.Writer) (api.Status, error) {
		looks++
		switch looks {
		case 1:
			_, _ = io.WriteString(to, "first\n")
			return api.Status{Ready: true}, nil
		case 2:
			return api.Status{}, errors.New("control plane \x1b away")
		case 3:
			_, _ = io.WriteString(to, "third\n")
			return api.Status{Ready: true, Degraded: []string{"server"}}, nil
		default:
			cancel()
			return api.Status{}, ctx.Err()
		}
	}
	last, err := watchPage(ctx, &out, time.Millisecond, look)
	if err != nil || len(last.Degraded) != 1 {
		t.Errorf("it ends with %+v, %v", last, err)
	}
	if got := out.String(); got != "first\n\ncontrol plane \ufffd away\n\nthird\n\n" {
		t.Errorf("it shows %q", got)
	}
}

func TestNewClient_addresses_becomeURLs(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:9090": "http://127.0.0.1:9090", ":9091": "http://127.0.0.1:9091", "0.0.0.0:9090": "http://127.0.0.1:9090", "[::]:9090": "http://127.0.0.1:9090",
		"box": "http://box:9090", "box.example.com:80": "http://box.example.com:80", "::1": "http://[::1]:9090", "[::1]": "http://[::1]:9090", "[fd7a::1]:1": "http://[fd7a::1]:1",
		"http://box:8080/": "http://box:8080", "http://box": "http://box:9090", "https://box": "https://box:443", "https://box:8443": "https://box:8443", "": "http://127.0.0.1:9090",
	} {
		if got, err := api.AdminURL(address); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", address, got, err, want)
		}
	}
	for _, bad := range []string{"box:http", "ftp://box", "http://box/status", "a b", "box:99999", "http://user@box"} {
		if got, err := api.AdminURL(bad); err == nil || !strings.Contains(err.Error(), "it must be a host, host:port or URL") {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
}

func TestDrain_device_isNamed(t *testing.T) {
	for want, args := range map[string][]string{
		"POST /drain?device=west-1&user=alice":              {"drain", "west-1"},
		"POST /drain?device=west-1&for=30m0s&user=alice":    {"drain", "west-1", "--for", "30m"},
		"POST /restore?device=fd7a%3A%3A1&user=alice":       {"restore", "fd7a::1"},
		"POST /drain?device=a%26b&for=8760h0m0s&user=alice": {"drain", "a&b", "--for=8760h"},
	} {
		out, paths, err := askedBy(t, environment{"SUDO_USER=alice"}, says("done\x1b[2J\n"), args...)
		if err != nil || len(paths) != 1 || paths[0] != want || out != "done\ufffd[2J\n" {
			t.Errorf("%v: asked for %q, printed %q, %v", args, paths, out, err)
		}
	}
	for want, args := range map[string][]string{
		"--for is 0s: it must be from 1s to 8760h (a year); without it a drain has no end":                                       {"drain", "west-1", "--for=0s"},
		"--for is 8760h0m1s: it must be from 1s to 8760h (a year); without it a drain has no end":                                {"drain", "west-1", "--for=8760h1s"},
		"there is no flag --wait: what runs beside a server is `tailxds drain-at-stop` now, so upgrade the chart with the image": {"drain", "--wait=10s"},
	} {
		if _, paths, err := asked(t, says("done"), args...); err == nil || err.Error() != want || len(paths) > 0 {
			t.Errorf("%v: asked for %q, %v", args, paths, err)
		}
	}
	if localUser(nil) == "" {
		t.Error("nobody runs this")
	}
}

func TestAccept_service_isNamed(t *testing.T) {
	for want, args := range map[string][]string{
		"POST /accept":                    {"accept"},
		"POST /accept?service=hello":      {"accept", "hello"},
		"POST /accept?service=a%26b%3D+c": {"accept", "a&b= c"},
	} {
		out, paths, err := asked(t, says("accepted\x1b[2J\n"), args...)
		if err != nil || len(paths) != 1 || paths[0] != want || out != "accepted\ufffd[2J\n" {
			t.Errorf("%v: asked for %q, printed %q, %v", args, paths, out, err)
		}
	}
	refuse := func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "nothing is held\x07", http.StatusConflict)
	}
	if _, _, err := asked(t, refuse, "accept"); err == nil || err.Error() != "nothing is held\ufffd" {
		t.Errorf("refused: %v", err)
	}
	if _, paths, err := asked(t, refuse, "accept", "a", "b"); err == nil || len(paths) > 0 {
		t.Errorf("two services: %v", err)
	}
}
