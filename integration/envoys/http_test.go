package envoys_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/harness"
)

// answering is an application that does what its URL says.
func answering(w http.ResponseWriter, r *http.Request) {
	n := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("n"), &n)
	switch r.URL.Path {
	case "/many": // header fields
		w.Header().Set("Server", "app/1.0")
		for i := range n {
			w.Header().Set(fmt.Sprintf("X-Field-%d", i), "v")
		}
	case "/long": // header
		w.Header().Set("X-Long", strings.Repeat("v", n))
	case "/streamed":
		_, _ = io.WriteString(w, "one")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "two")
	case "/trailers":
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%s, then %s", body, r.Trailer.Get("X-After"))
		_ = http.NewResponseController(w).Flush() // or HTTP/2 would have a length, with which HTTP/1 has no trailers
		w.Header().Set("X-Sum", "6")
	default:
		fmt.Fprintf(w, "%s %s %d", r.Method, r.Host, len(r.Header))
	}
}

// do sends a request from a host to a service, and returns the whole answer.
func do(t *testing.T, h *harness.Host, method, url, service string, body io.Reader, edit func(*http.Request)) (*http.Response, string) {
	t.Helper()
	return doBy(t, h.Client(), method, url, service, body, edit)
}

// http2Client speaks HTTP/2 without TLS from a host.
func http2Client(h *harness.Host) *http.Client {
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: &http.Transport{DialContext: h.Dial, Protocols: &only}}
}

// doBy is [do] by a client of the test's.
func doBy(t *testing.T, client *http.Client, method, url, service string, body io.Reader, edit func(*http.Request)) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = service
	if edit != nil {
		edit(r)
	}
	defer client.CloseIdleConnections()
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

// say sends text on a connection of its own, and returns the answer's head and
// what follows until Envoy closes it.
func say(t *testing.T, h *harness.Host, to *harness.Envoy, text string) (head, rest string) {
	t.Helper()
	c, err := h.Dial(context.WithoutCancel(t.Context()), "tcp", net.JoinHostPort(to.V4.String(), "10000"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(bufio.NewReader(c))
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ = strings.Cut(string(all), "\r\n\r\n")
	return head, rest
}

// What servers and clients send by the standard goes through, up to stated bounds,
// to and from servers of HTTP/1 and HTTP/2.
func TestIngressHTTP_headersAndTrailers_passThrough(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	plain, two := r.Server("plain"), r.ServerSpeaking("two", func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) })
	plain.Handle(answering)
	two.Handle(answering)
	entry := r.ControlPlane("services: {two: {protocol: http2}}", plain.Device("tag:service-plain"), two.Device("tag:service-two")).Envoy("entry")
	laptop, url := r.Host("laptop"), entry.URL(10000)
	// Too much is an error of the connection, or of one stream of several.
	refused := map[string]int{"plain": http.StatusBadGateway, "two": http.StatusServiceUnavailable}
	for _, service := range []string{"plain", "two"} {
		entry.AwaitHealthy(service, 1)
		fields := func(n int) func(*http.Request) {
			return func(r *http.Request) {
				for i := range n {
					r.Header.Set(fmt.Sprintf("X-Field-%d", i), "v")
				}
			}
		}
		for _, test := range []struct {
			path string
			edit func(*http.Request)
			want int
		}{
			{"many?n=900", nil, http.StatusOK},
			{"many?n=1001", nil, refused[service]},
			{"long?n=100000", nil, http.StatusOK},
			{"long?n=140000", nil, refused[service]},
			{"", fields(900), http.StatusOK},
			{"", fields(1001), http.StatusRequestHeaderFieldsTooLarge},
			{"", func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("v", 100_000)) }, http.StatusOK},
			{"", func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("v", 140_000)) }, http.StatusRequestHeaderFieldsTooLarge},
		} {
			if answer, body := do(t, laptop, http.MethodGet, url+test.path, service, nil, test.edit); answer.StatusCode != test.want {
				t.Errorf("%s of %s: status %d, want %d: %.100s", test.path, service, answer.StatusCode, test.want, body)
			}
		}
		answer, _ := do(t, laptop, http.MethodGet, url+"many?n=900", service, nil, nil)
		if n := len(answer.Header); n < 900 || answer.Header.Get("Server") != "app/1.0" {
			t.Errorf("%s: %d header fields, Server: %s", service, n, answer.Header["Server"])
		}
		if answer, _ = do(t, laptop, http.MethodGet, url, service, nil, nil); answer.Header["Server"] != nil {
			t.Errorf("%s: the application names no server, and Envoy adds %s", service, answer.Header["Server"])
		}
		for _, edit := range []func(*http.Request){fields(900), func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("v", 100_000)) }} {
			if answer, body := doBy(t, http2Client(laptop), http.MethodGet, url, service, nil, edit); answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 {
				t.Errorf("%s over HTTP/2: %s %d: %.100s", service, answer.Proto, answer.StatusCode, body)
			}
		}
		answer, body := do(t, laptop, http.MethodPost, url+"trailers", service, io.MultiReader(strings.NewReader("body")), func(r *http.Request) {
			r.Trailer = http.Header{"X-After": {"trailer"}}
		})
		if body != "body, then trailer" || answer.Trailer.Get("X-Sum") != "6" {
			t.Errorf("%s: %q, and the trailers %v", service, body, answer.Trailer)
		}
	}
}

// Clients of HTTP/1.0 are served as they can read it, without a host by the default
// service.
func TestIngressHTTP_clientSpeaksHTTP10_isServed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	server, shop := r.Server("server"), r.Server("shop")
	server.Handle(answering)
	shop.Handle(answering)
	entry := r.ControlPlane("", server.Device("tag:weight-1"), shop.Device("tag:service-shop")).Envoy("entry")
	entry.AwaitHealthy("server", 1)
	entry.AwaitHealthy("shop", 1)
	laptop := r.Host("laptop")
	for request, want := range map[string]string{
		"GET / HTTP/1.0\r\nHost: shop\r\n\r\n":                                                   "GET shop ",
		"GET / HTTP/1.0\r\nHost: shop\r\nConnection: close\r\n\r\n":                              "GET shop ",
		"GET / HTTP/1.0\r\n\r\n":                                                                 "GET server ",
		"POST / HTTP/1.0\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc":                          "POST shop ",
		"GET /streamed HTTP/1.0\r\nHost: shop\r\n\r\n":                                           "onetwo",
		"GET / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade, close\r\nUpgrade: TLS/1.2\r\n\r\n": "GET shop ",
	} {
		head, rest := say(t, laptop, entry, request)
		status, _, _ := strings.Cut(head, "\r\n")
		if !strings.HasSuffix(status, " 200 OK") || !strings.HasPrefix(rest, want) || strings.Contains(head, "transfer-encoding") {
			t.Errorf("%q: %q and %q, want 200 and %q", request, head, rest, want)
		}
		if strings.Contains(request, "HTTP/1.0") && !strings.HasPrefix(status, "HTTP/1.0") {
			t.Errorf("%q is answered by %q", request, status)
		}
	}
}
