package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/topology"
)

// defaultAdmin is on loopback: the pages have no authentication.
const defaultAdmin = "127.0.0.1:9090"

// adminCommand makes a command that talks to a running control plane.
func adminCommand(env environment, use, short string, run func(context.Context, io.Writer, adminClient) error) *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), cmd.OutOrStdout(), adminClient{address: address})
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
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return body, nil
}

func healthcheckCommand(env environment) *cobra.Command {
	return adminCommand(env, "healthcheck", "Exit 0 if the control plane here serves resources", func(ctx context.Context, out io.Writer, c adminClient) error {
		body, err := c.do(ctx, http.MethodGet, "/readyz")
		if err != nil {
			return err
		}
		_, err = out.Write(body)
		return err
	})
}

func acceptCommand(env environment) *cobra.Command {
	return adminCommand(env, "accept", "Let a held device list through at once", func(ctx context.Context, out io.Writer, c adminClient) error {
		body, err := c.do(ctx, http.MethodPost, "/accept")
		if err != nil {
			return err
		}
		_, err = out.Write(body)
		return err
	})
}

func statusCommand(env environment) *cobra.Command {
	var raw bool
	cmd := adminCommand(env, "status", "Show services, endpoints, Envoys and problems", func(ctx context.Context, out io.Writer, c adminClient) error {
		body, err := c.do(ctx, http.MethodGet, "/status")
		if err != nil {
			return err
		}
		if raw {
			_, err = out.Write(body)
			return err
		}
		var doc statusDocument
		if err := json.Unmarshal(body, &doc); err != nil {
			return fmt.Errorf("read /status: %w", err)
		}
		return printStatus(out, doc)
	})
	cmd.Flags().BoolVar(&raw, "json", false, "print the whole document as JSON")
	return cmd
}

// printStatus writes a status for people.
func printStatus(out io.Writer, doc statusDocument) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, doc.Detail)
	if doc.Error != "" {
		fmt.Fprintln(w, "publish error:", doc.Error)
	}
	if doc.Policy.Error != "" {
		fmt.Fprintln(w, "policy error:", doc.Policy.Error)
	}
	fmt.Fprintln(w, "\nSERVICE\tPRIORITY\tREGION\tZONE\tDEVICE\tID\tADDRESS\tWEIGHT\tSTATE")
	for _, s := range doc.Services {
		for _, l := range s.Localities {
			for _, e := range l.Endpoints {
				printEndpoint(w, s.Name, l.Priority, e)
			}
		}
		for _, e := range s.Idle {
			printEndpoint(w, s.Name, e.Priority, e)
		}
	}
	fmt.Fprintln(w, "\nENVOY\tNODE\tADDRESS\tSINCE\tSTATE")
	for _, e := range doc.Envoys {
		state := "in sync"
		for name, t := range e.Types {
			switch {
			case t.Rejected != "":
				state = "rejected " + name + ": " + t.Rejected
			case t.Pending && state == "in sync":
				state = "updating"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.Device, e.Node, e.Address.Addr(), time.Since(e.Since).Round(time.Second), state)
	}
	if len(doc.Problems) > 0 {
		fmt.Fprintln(w, "\nPROBLEM ON\tSUBJECT\tREASON")
		for _, p := range doc.Problems {
			fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, p.Subject, p.Reason)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	return nil
}

func printEndpoint(w io.Writer, service string, priority uint32, e topology.Endpoint) {
	fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", service, priority, dash(e.Region), dash(e.Zone), e.Name, e.Device, e.Address, e.Weight, e.State)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
