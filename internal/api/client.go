package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/tailxds/tailxds/internal/input"
)

// DefaultAddress is where the admin API listens by default. It is on
// loopback: the API has no authentication.
const (
	DefaultAddress = "127.0.0.1:" + DefaultPort
	DefaultPort    = "9090"
)

// Client asks a control plane's admin API. Make one with [NewClient].
type Client struct{ address, base string }

// NewClient makes a client of the admin API at an address: a host, host:port, the
// address that a control plane listens on, or a URL.
func NewClient(address string) (Client, error) {
	base, err := AdminURL(address)
	return Client{address, base}, err
}

// maxAnswer is how much of an answer is read, in bytes: the status of a hundred
// thousand devices.
const maxAnswer = 256 << 20

// UnreachableError says that no control plane answered. Waiting may help.
type UnreachableError struct {
	address string
	cause   string
}

func (e UnreachableError) Error() string {
	return fmt.Sprintf("cannot reach the control plane at %s: %s: start it, or give the address of its admin pages with --admin", e.address, e.cause)
}

// Do asks for a page, and returns what it answers. It waits for ten seconds. The
// error says what the control plane refuses, or why it can't be asked: an
// [UnreachableError] if none answered.
func (c Client) Do(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", input.Quoted(c.address), err)
	}
	response, err := adminHTTP().Do(request)
	if err != nil {
		return nil, dialError(c.base, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, dialError(c.base, err)
	}
	return answer, checkAnswer(c.base, path, response, answer)
}

// answerWithin bounds how long a command waits for the control plane.
const answerWithin = 10 * time.Second

// errHTTP2 is for a port that begins with a frame of HTTP/2, as gRPC servers do.
var errHTTP2 = errors.New("the port speaks HTTP/2")

// firstByteConn is a connection to a server that may be none of HTTP/1. The
// library has several errors for that, and logs some.
type firstByteConn struct {
	net.Conn
	begun bool
}

func (c *firstByteConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.begun {
		c.begun = true
		if p[0] == 0 { // the length of a first frame; HTTP/1 and TLS begin otherwise
			return 0, errHTTP2
		}
	}
	return n, err //nolint:wrapcheck // as net.Conn says
}

// adminHTTP makes a client for one question.
func adminHTTP() *http.Client {
	dialer := &net.Dialer{}
	return &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err //nolint:wrapcheck // noAnswer reads it
			}
			return &firstByteConn{Conn: c}, nil
		},
		DisableKeepAlives: true,
	}}
}

// dialError says why a request had no answer, and what to do.
func dialError(base string, err error) error {
	address := strings.TrimPrefix(base, "http://")
	var number syscall.Errno
	var name *net.DNSError
	var of *url.Error
	switch text := err.Error(); {
	case errors.Is(err, errHTTP2):
		return fmt.Errorf("%s is an xDS port and not the admin port: give the address of the admin pages, by default %s", address, DefaultAddress)
	case strings.Contains(text, "malformed HTTP response"):
		return fmt.Errorf("%s does not speak HTTP: give the address of the admin pages, by default %s", address, DefaultAddress)
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%s speaks HTTP without TLS: give http:// in place of https://", address)
	case errors.Is(err, context.DeadlineExceeded):
		return UnreachableError{address, "no answer in time"}
	case errors.As(err, &number):
		return UnreachableError{address, number.Error()}
	case errors.As(err, &name):
		return UnreachableError{address, name.Err}
	case errors.As(err, &of):
		return UnreachableError{address, of.Err.Error()} // its URL repeats what is said
	default:
		return UnreachableError{address, text}
	}
}

// How long a reason of ours may be, in bytes and lines. Other servers answer an
// unknown page with a list of theirs.
const (
	maxRefusal = 8 << 10
	maxLines   = 10
)

// checkAnswer is nil for an answer of the admin pages, and else says what they
// refuse, or that these are not the admin pages.
func checkAnswer(base, path string, response *http.Response, body []byte) error {
	said := strings.TrimSpace(string(body))
	kind := response.Header.Get("Content-Type")
	page, _, _ := strings.Cut(path, "?")
	switch {
	case response.StatusCode == http.StatusOK && !strings.HasPrefix(kind, "text/html"):
		return nil
	case response.StatusCode == http.StatusMethodNotAllowed, said == "404 page not found":
		return fmt.Errorf("the control plane knows no %s: is it older than this command? See `tailxds status -o json` for its version", page)
	case said == "", strings.Count(said, "\n") >= maxLines, len(said) > maxRefusal, !strings.HasPrefix(kind, "text/plain"):
		return fmt.Errorf("%s is not the admin port of a control plane, it answers %s to %s: give the address of the admin pages, by default %s",
			strings.TrimPrefix(base, "http://"), input.Printable(response.Status), page, DefaultAddress)
	default:
		return errors.New(input.Printable(said))
	}
}

// Document asks for a page, decodes its JSON, and returns that too.
func (c Client) Document(ctx context.Context, path string, into any) ([]byte, error) {
	body, err := c.Do(ctx, http.MethodGet, path, http.NoBody)
	if err != nil {
		return nil, err
	}
	return body, c.Decode(path, body, into)
}

// Decode decodes the JSON that a page answered.
func (c Client) Decode(path string, body []byte, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		page, _, _ := strings.Cut(path, "?")
		return fmt.Errorf("%s answers %s with what is not its document: is it the admin port of a control plane? %w", c.address, page, err)
	}
	return nil
}

// AdminURL is the base URL of the admin pages, by what people call them: a host,
// host:port, the address that they listen on, or a URL.
func AdminURL(address string) (string, error) {
	scheme, rest := "http", address
	if s, after, ok := strings.Cut(address, "://"); ok {
		scheme, rest = s, strings.TrimSuffix(after, "/")
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = strings.Trim(rest, "[]"), DefaultPort
		if scheme == "https" {
			port = "443"
		}
	}
	switch host {
	case "", "0.0.0.0", "::":
		host = "127.0.0.1" // what it listens on is no address to ask
	}
	if !input.ValidPort(port) || !input.ValidHost(host) || (scheme != "http" && scheme != "https") {
		return "", fmt.Errorf("%s: it must be a host, host:port or URL, such as 127.0.0.1:9090", input.Quoted(address))
	}
	return scheme + "://" + net.JoinHostPort(host, port), nil
}
