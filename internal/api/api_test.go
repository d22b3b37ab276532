package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// pages serves fixed answers.
func pages(ready bool, accept error) http.Handler {
	return Handler(Sources{
		Ready:   func() (bool, string) { return ready, "the detail" },
		Status:  func() any { return map[string]int{"devices": 3} },
		History: func(service string) (any, error) { return map[string]string{"history of": service}, nil },
		Explain: func(of, from string) (any, error) {
			if of == "nobody" {
				return nil, errors.New("there is no nobody")
			}
			return map[string]string{"of": of, "from": from}, nil
		},
		Traffic: func() any { return map[string]int{"requests": 4} },
		Doctor:  func(context.Context) any { return map[string]int{"port": 18000} },
		Accept: func(_ context.Context, service string) error {
			if service != "" && accept == nil {
				return errors.New("asked for " + service)
			}
			return accept
		},
		Drain: func(_ context.Context, device string, long time.Duration, user string) (string, error) {
			return fmt.Sprintf("drained %s for %v by %s", device, long, user), nil
		},
		Restore: func(_ context.Context, device, user string) (string, error) {
			return "restored " + device + " by " + user, nil
		},
		Diff: DiffHandler(func(_ context.Context, body io.Reader) (any, error) {
			text, err := io.ReadAll(body)
			return map[string]int{"read": len(text)}, err
		}),
		Hosts:   []string{"Pool.example.com."},
		Page:    http.NotFoundHandler(),
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("tailxds_problems 0\n")) }),
	})
}

func TestHandler_pages_answer(t *testing.T) {
	const here, elsewhere = "127.0.0.1:5", "100.64.0.9:5"
	tests := map[string]struct {
		method, path, from string
		headers            map[string]string
		ready              bool
		accept             error
		code               int
		body               string
	}{
		"alive":                        {method: "GET", path: "/healthz", from: elsewhere, code: 200, body: "ok"},
		"ready":                        {method: "GET", path: "/readyz", from: elsewhere, ready: true, code: 200, body: "the detail"},
		"not ready":                    {method: "GET", path: "/readyz", from: elsewhere, code: 503, body: "the detail"},
		"status":                       {method: "GET", path: "/status", from: elsewhere, code: 200, body: `"devices": 3`},
		"traffic":                      {method: "GET", path: "/traffic", from: elsewhere, code: 200, body: `"requests": 4`},
		"explain":                      {method: "GET", path: "/explain?of=a&from=b", from: elsewhere, code: 200, body: `"from": "b",`},
		"history":                      {method: "GET", path: "/history?service=a", from: elsewhere, code: 200, body: `"history of": "a"`},
		"explain nobody":               {method: "GET", path: "/explain?of=nobody", from: elsewhere, code: 404, body: "there is no nobody"},
		"doctor":                       {method: "GET", path: "/doctor", from: elsewhere, code: 200, body: `"port": 18000`},
		"metrics":                      {method: "GET", path: "/metrics", from: elsewhere, code: 200, body: "tailxds_problems 0"},
		"accept from here":             {method: "POST", path: "/accept", from: here, code: 200, body: "is applied"},
		"accept from here by IPv6":     {method: "POST", path: "/accept", from: "[::1]:5", code: 200, body: "is applied"},
		"accept from elsewhere":        {method: "POST", path: "/accept", from: elsewhere, code: 403, body: "tailxds accept"},
		"accept for one service":       {method: "POST", path: "/accept?service=hello", from: here, code: 409, body: "asked for hello"},
		"accept with nothing held":     {method: "POST", path: "/accept", from: here, accept: errors.New("nothing is held"), code: 409, body: "nothing is held"},
		"accept is no GET":             {method: "GET", path: "/accept", from: here, code: 405},
		"accept from somebody's page":  {method: "POST", path: "/accept", from: here, headers: map[string]string{"Sec-Fetch-Site": "cross-site"}, code: 403},
		"accept from an older browser": {method: "POST", path: "/accept", from: here, headers: map[string]string{"Origin": "https://evil.example"}, code: 403},
		"drain from here":              {method: "POST", path: "/drain?device=west-1&for=30m&user=alice", from: here, code: 200, body: "drained west-1 for 30m0s by alice"},
		"drain without an end":         {method: "POST", path: "/drain?device=west-1", from: here, code: 200, body: "drained west-1 for 0s by \n"},
		"drain for nonsense":           {method: "POST", path: "/drain?device=west-1&for=soon", from: here, code: 409, body: `for is "soon": it must be a duration`},
		"drain for no time":            {method: "POST", path: "/drain?device=west-1&for=0s", from: here, code: 409, body: `for is "0s"`},
		"drain nobody":                 {method: "POST", path: "/drain", from: here, code: 409, body: "drain needs a device: tailxds drain DEVICE"},
		"drain a nameless device":      {method: "POST", path: "/drain?device=&user=alice", from: here, code: 409, body: "drain needs a device"},
		"restore a nameless device":    {method: "POST", path: "/restore?device=+", from: here, code: 409, body: "restore needs a device: tailxds restore DEVICE"},
		"drain from elsewhere":         {method: "POST", path: "/drain?device=west-1", from: elsewhere, code: 403, body: "tailxds drain"},
		"drain from somebody's page":   {method: "POST", path: "/drain?device=west-1", from: here, headers: map[string]string{"Sec-Fetch-Site": "cross-site"}, code: 403},
		"restore from here":            {method: "POST", path: "/restore?device=west-1&user=bob", from: here, code: 200, body: "restored west-1 by bob"},
		"restore from elsewhere":       {method: "POST", path: "/restore?device=west-1", from: elsewhere, code: 403, body: "tailxds restore"},
		"diff from here":               {method: "POST", path: "/diff", from: here, code: 200, body: `"read": 0`},
		"diff from elsewhere":          {method: "POST", path: "/diff", from: elsewhere, code: 403, body: "tailxds diff"},
		"diff from somebody's page":    {method: "POST", path: "/diff", from: here, headers: map[string]string{"Sec-Fetch-Site": "cross-site"}, code: 403},
		"diff is no GET":               {method: "GET", path: "/diff", from: here, code: 405},
		"restore is no GET":            {method: "GET", path: "/restore?device=west-1", from: here, code: 405},
		"nothing else":                 {method: "GET", path: "/debug/pprof/", from: here, code: 404},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			request := httptest.NewRequest(test.method, test.path, nil)
			request.RemoteAddr, request.Host = test.from, "127.0.0.1:9090"
			for k, v := range test.headers {
				request.Header.Set(k, v)
			}
			answer := httptest.NewRecorder()
			pages(test.ready, test.accept).ServeHTTP(answer, request)
			if answer.Code != test.code || !strings.Contains(answer.Body.String(), test.body) {
				t.Errorf("got %d %q, want %d and %q", answer.Code, answer.Body, test.code, test.body)
			}
		})
	}
}

// A page of another site that points its name at this address reads nothing.
func TestHandler_foreignHost_isRefused(t *testing.T) {
	for host, want := range map[string]int{
		"127.0.0.1:9090": 200, "127.0.0.1": 200, "[::1]:9090": 200, "[fd7a:115c:a1e0::1]": 200, "10.1.2.3:80": 200,
		"localhost": 200, "LOCALHOST:9090": 200, "localhost.:9090": 200, "pool.example.com": 200, "POOL.example.com.:9090": 200,
		"evil.example": 421, "evil.example:9090": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example:9090": 421,
		"example.com": 421, "": 421, "2130706433": 421, "127.1": 421, "[::1": 200, "fe80::1%eth0": 200,
	} {
		request := httptest.NewRequest(http.MethodGet, "/status", nil)
		request.RemoteAddr, request.Host = "127.0.0.1:5", host
		answer := httptest.NewRecorder()
		pages(true, nil).ServeHTTP(answer, request)
		if answer.Code != want || (want == 421) != strings.Contains(answer.Body.String(), "--admin-host") {
			t.Errorf("%q: %d %s", host, answer.Code, answer.Body)
		}
	}
}
