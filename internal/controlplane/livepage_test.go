package controlplane_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"tailscale.com/tsnet"
	"tailscale.com/types/logger"

	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
)

// On a real tailnet the page is for whom the policy grants it, and for as long:
// by the node's names, and with a role that may be taken away.
func TestLivePage_onATailnet_admitsByGrant(t *testing.T) {
	t.Parallel()
	p := newPair(t, "nothing", controlplanetest.Machines(2, "tag:weight-1"))
	one := p.start(t, "plane-1")
	one.AwaitWeights("d01=1 d02=1")
	laptop := &tsnet.Server{
		Dir: t.TempDir(), Hostname: "laptop", ControlURL: p.tailnet.HTTPTestServer.URL, Ephemeral: true,
		Logf: logger.Discard, UserLogf: logger.Discard,
	}
	t.Cleanup(func() { _ = laptop.Close() })
	if _, err := laptop.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := laptop.HTTPClient()
	ask := func(method, path, host, body string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://plane-1"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if host != "" {
			r.Host = host
		}
		answer, err := client.Do(r)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = answer.Body.Close() }()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	drain := func() int { code, _ := ask(http.MethodPost, "/act/drain", "", `{"device": "d01"}`); return code }
	await := func(what string, code int) {
		t.Helper()
		one.Await(what, func() bool { got, _ := ask(http.MethodGet, "/", "", ""); return got == code })
	}

	await("a stranger is told nothing", http.StatusForbidden)
	if code, text := ask(http.MethodGet, "/live", "", ""); code != 403 || strings.Contains(text, "d01") {
		t.Errorf("a stranger's stream: %d %s", code, text)
	}
	p.grant("view")
	await("who may view sees the page", http.StatusOK)
	if code := drain(); code != 403 {
		t.Errorf("a viewer drains: %d", code)
	}
	if code, _ := ask(http.MethodGet, "/", "evil.example", ""); code != http.StatusMisdirectedRequest {
		t.Errorf("under another name: %d", code)
	}
	p.grant("operate")
	one.Await("who may operate drains", func() bool { return drain() == http.StatusNoContent })
	one.AwaitWeights("d02=1")

	// A stream ends soon after the role does.
	ended := make(chan struct{})
	go func() { defer close(ended); ask(http.MethodGet, "/live", "", "") }()
	p.grant("nothing")
	await("the role is taken away", http.StatusForbidden)
	one.Await("the stream ends", func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	})
}
