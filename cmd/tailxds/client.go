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
const defaultAdmin = "127.0.0.1:9090"

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
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	host, port, err := net.SplitHostPort(c.address)
	if err != nil {
		return nil, fmt.Errorf("--admin %q: %w", c.address, err)
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1" // what it listens on is no address to ask
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+net.JoinHostPort(host, port)+path, nil)
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
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(printable(strings.TrimSpace(string(body))))
	}
	return body, nil
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
	return adminCommand(env, "healthcheck", "Exit 0 if the control plane here serves resources",
		func(cmd *cobra.Command, _ []string, c adminClient) error {
			return c.tell(cmd, http.MethodGet, "/readyz")
		})
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
