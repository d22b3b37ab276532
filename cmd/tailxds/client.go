package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
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
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd, args, adminClient{address: address})
		},
	}
	newBinder(cmd, env).str(&address, "admin", defaultAdmin, "address of the control plane's admin pages")
	return cmd
}

// adminClient asks a control plane's admin pages.
type adminClient struct{ address string }

func (c adminClient) do(ctx context.Context, method, path string) ([]byte, error) {
	return c.send(ctx, method, path, http.NoBody)
}

func (c adminClient) send(ctx context.Context, method, path string, what io.Reader) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	base, err := adminURL(c.address)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, base+path, what)
	if err != nil {
		return nil, fmt.Errorf("--admin %q: %w", c.address, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("reach the control plane: %w (is it running here? --admin names its address)", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	said := printable(strings.TrimSpace(string(body)))
	switch {
	case response.StatusCode == http.StatusOK:
		return body, nil
	case response.StatusCode == http.StatusMethodNotAllowed, said == "404 page not found":
		return nil, fmt.Errorf("the control plane knows no %s: is it older than this command? See `tailxds status -o json` for its version", path)
	default:
		return nil, errors.New(said)
	}
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
		return "", wrong("--admin", address, "a host, host:port or URL, such as 127.0.0.1:9090")
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
	cmd.Args = cobra.MaximumNArgs(1)
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
