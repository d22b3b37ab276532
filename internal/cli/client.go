package cli

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
	"unicode"

	"github.com/spf13/cobra"
)

// defaultAdmin is on loopback: the pages have no authentication.
const (
	defaultAdmin     = "127.0.0.1:" + defaultAdminPort
	defaultAdminPort = "9090"
)

// adminCommand makes a command that talks to a running control plane.
func adminCommand(env environment, use, short string, run func(*cobra.Command, []string, adminClient) error) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: noArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd, args, adminClient{address: address})
		},
	}
	newBinder(cmd, env).str(&address, "admin", defaultAdmin, "address of the control plane's admin pages")
	return cmd
}

// adminClient asks a control plane's admin pages.
type adminClient struct{ address string }

// maxAnswer is how much of an answer is read, in bytes: the status of a hundred
// thousand devices.
const maxAnswer = 256 << 20

// unreachableError says that no control plane answered. Waiting may help.
type unreachableError struct {
	address string
	cause   string
}

func (e unreachableError) Error() string {
	return fmt.Sprintf("cannot reach the control plane at %s: %s: start it, or give the address of its admin pages with --admin", e.address, e.cause)
}

func (c adminClient) do(ctx context.Context, method, path string) ([]byte, error) {
	return c.send(ctx, method, path, http.NoBody)
}

func (c adminClient) send(ctx context.Context, method, path string, what io.Reader) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	base, err := adminURL(c.address)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, base+path, what)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", setting("admin"), quoted(c.address), err)
	}
	response, err := adminHTTP().Do(request)
	if err != nil {
		return nil, noAnswer(base, err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, noAnswer(base, err)
	}
	return body, answered(base, path, response, body)
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

// noAnswer says why a request had no answer, and what to do.
func noAnswer(base string, err error) error {
	address := strings.TrimPrefix(base, "http://")
	var number syscall.Errno
	var name *net.DNSError
	var of *url.Error
	switch text := err.Error(); {
	case errors.Is(err, errHTTP2):
		return fmt.Errorf("%s is an xDS port and not the admin port: give the address of the admin pages, by default %s", address, defaultAdmin)
	case strings.Contains(text, "malformed HTTP response"):
		return fmt.Errorf("%s does not speak HTTP: give the address of the admin pages, by default %s", address, defaultAdmin)
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%s speaks HTTP without TLS: give http:// in place of https://", address)
	case errors.Is(err, context.DeadlineExceeded):
		return unreachableError{address, "no answer in time"}
	case errors.As(err, &number):
		return unreachableError{address, number.Error()}
	case errors.As(err, &name):
		return unreachableError{address, name.Err}
	case errors.As(err, &of):
		return unreachableError{address, of.Err.Error()} // its URL repeats what is said
	default:
		return unreachableError{address, text}
	}
}

// How long a reason of ours may be, in bytes and lines. Other servers answer an
// unknown page with a list of theirs.
const (
	maxRefusal = 8 << 10
	maxLines   = 10
)

// answered is nil for an answer of the admin pages, and else says what they
// refuse, or that these are not the admin pages.
func answered(base, path string, response *http.Response, body []byte) error {
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
			strings.TrimPrefix(base, "http://"), printable(response.Status), page, defaultAdmin)
	default:
		return errors.New(printable(said))
	}
}

// document asks for a page, and reads its JSON.
func (c adminClient) document(ctx context.Context, path string, into any) ([]byte, error) {
	body, err := c.do(ctx, http.MethodGet, path)
	if err != nil {
		return nil, err
	}
	return body, c.read(path, body, into)
}

// read reads the JSON of a page.
func (c adminClient) read(path string, body []byte, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		page, _, _ := strings.Cut(path, "?")
		return fmt.Errorf("%s answers %s with what is not its document: is it the admin port of a control plane? %w", c.address, page, err)
	}
	return nil
}

// adminURL is the base URL of the admin pages, by what people call them: a host,
// host:port, the address that they listen on, or a URL.
func adminURL(address string) (string, error) {
	scheme, rest := "http", address
	if s, after, ok := strings.Cut(address, "://"); ok {
		scheme, rest = s, strings.TrimSuffix(after, "/")
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = strings.Trim(rest, "[]"), defaultAdminPort
		if scheme == "https" {
			port = "443"
		}
	}
	switch host {
	case "", "0.0.0.0", "::":
		host = "127.0.0.1" // what it listens on is no address to ask
	}
	if !validPort(port) || !validHost(host) || (scheme != "http" && scheme != "https") {
		return "", wrong(setting("admin"), address, "a host, host:port or URL, such as 127.0.0.1:9090")
	}
	return scheme + "://" + net.JoinHostPort(host, port), nil
}

// tell prints a page of one line.
func (c adminClient) tell(cmd *cobra.Command, method, path string) error {
	body, err := c.do(cmd.Context(), method, path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), printable(strings.TrimSpace(string(body))))
	return err
}

func healthcheckCommand(env environment) *cobra.Command {
	cmd := adminCommand(env, "healthcheck", "Exit 0 if the control plane here serves resources",
		func(cmd *cobra.Command, _ []string, c adminClient) error {
			return c.tell(cmd, http.MethodGet, "/readyz")
		})
	cmd.Example = "  tailxds healthcheck"
	return cmd
}

func acceptCommand(env environment) *cobra.Command {
	cmd := adminCommand(env, "accept [SERVICE]", "Let what is held through at once, of one service or of all",
		func(cmd *cobra.Command, args []string, c adminClient) error {
			path := "/accept"
			if len(args) > 0 {
				path += "?" + url.Values{"service": args}.Encode()
			}
			return c.tell(cmd, http.MethodPost, path)
		})
	cmd.Args = argument{what: "a service", optional: true, max: maxName}.check
	cmd.Example = "  tailxds accept\n  tailxds accept hello"
	return cmd
}

// printable is text from elsewhere as a terminal may show it: on one line, and
// without the characters that move its cursor or turn its letters around.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsPrint(r):
			return r
		case unicode.IsSpace(r):
			return ' '
		default:
			return unicode.ReplacementChar
		}
	}, s)
}
