package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tailxds/tailxds/internal/journal"
	"github.com/tailxds/tailxds/internal/operator"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/xds"
)

// redraw is how often `status --watch` looks again.
const redraw = 2 * time.Second

func statusCommand(env environment) *cobra.Command {
	var output string
	var asJSON, watch, exitCode bool
	cmd := adminCommand(env, "status", "Show services, endpoints, Envoys and problems", func(cmd *cobra.Command, _ []string, c adminClient) error {
		if asJSON {
			output = "json"
		}
		print, known := printers()[output]
		if !known {
			return wrong("--output", output, "table, json or yaml")
		}
		look := func(ctx context.Context, to io.Writer) (statusDocument, error) {
			var doc statusDocument
			body, err := c.do(ctx, http.MethodGet, "/status")
			if err != nil {
				return doc, err
			}
			if err := json.Unmarshal(body, &doc); err != nil {
				return doc, fmt.Errorf("read /status: %w", err)
			}
			return doc, print(to, body, doc)
		}
		var doc statusDocument
		var err error
		if watch {
			doc, err = watchPage(cmd.Context(), cmd.OutOrStdout(), redraw, look)
		} else {
			doc, err = look(cmd.Context(), cmd.OutOrStdout())
		}
		switch {
		case err == nil && exitCode:
			return doc.verdict()
		case watch && !exitCode:
			return nil // it was shown
		default:
			return err
		}
	})
	cmd.Example = "  tailxds status\n  tailxds status --watch\n  tailxds status --exit-code --admin 10.0.0.7:9090\n  tailxds status -o yaml"
	flags := cmd.Flags()
	flags.StringVarP(&output, "output", "o", "table", "table, json or yaml")
	flags.BoolVar(&asJSON, "json", false, "the same as --output json")
	flags.BoolVar(&watch, "watch", false, "draw it anew every 2 s until interrupted")
	flags.BoolVar(&exitCode, "exit-code", false, "exit with 1 if a service is degraded or the control plane is not ready")
	return cmd
}

// verdict is an error unless all is served.
func (s statusDocument) verdict() error {
	switch {
	case len(s.Degraded) > 0:
		return errors.New("degraded: " + printable(strings.Join(s.Degraded, "; ")))
	case !s.Ready:
		return errors.New(printable(s.Detail))
	default:
		return nil
	}
}

// watchPage looks every so often until ctx ends, and returns what it saw last.
// A control plane that is away for a while is shown as that.
func watchPage[T any](
	ctx context.Context, out io.Writer, every time.Duration, look func(context.Context, io.Writer) (T, error),
) (last T, lastErr error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var clear []byte
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		clear = []byte("\x1b[H\x1b[J")
	}
	for {
		var page bytes.Buffer
		doc, err := look(ctx, &page)
		if err != nil {
			fmt.Fprintln(&page, printable(err.Error()))
		}
		if ctx.Err() != nil {
			return last, lastErr
		}
		last, lastErr = doc, err
		if err := write(out, slices.Concat(clear, page.Bytes(), []byte("\n"))); err != nil {
			return last, err
		}
		select {
		case <-ctx.Done():
			return last, lastErr
		case <-tick.C:
		}
	}
}

// printers are the formats of `status --output`.
func printers() map[string]func(io.Writer, []byte, statusDocument) error {
	return map[string]func(io.Writer, []byte, statusDocument) error{
		"table": func(out io.Writer, _ []byte, doc statusDocument) error { return printStatus(out, doc) },
		"json":  func(out io.Writer, body []byte, _ statusDocument) error { return write(out, escaped(body)) },
		"yaml":  func(out io.Writer, body []byte, _ statusDocument) error { return writeYAML(out, body) },
	}
}

func write(out io.Writer, text []byte) error {
	if _, err := out.Write(text); err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	return nil
}

// escaped writes as escapes what of a JSON document a terminal might obey.
func escaped(document []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(document) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			b.WriteRune(unicode.ReplacementChar)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

func replaced(text []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// table writes rows whose cells are text from elsewhere.
type table struct{ *tabwriter.Writer }

func (t table) row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(t, "\t")
		}
		fmt.Fprint(t, printable(fmt.Sprint(c)))
	}
	fmt.Fprintln(t)
}

// printStatus writes a status for people.
func printStatus(out io.Writer, doc statusDocument) error {
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	for _, d := range doc.Degraded {
		t.row("DEGRADED " + d)
	}
	t.row(doc.Detail)
	if doc.Error != "" {
		t.row("publish error: " + doc.Error)
	}
	if doc.Policy.Error != "" {
		t.row("policy error: " + doc.Policy.Error)
	}
	t.row()
	t.row("SERVICE", "PRIORITY", "REGION", "ZONE", "DEVICE", "ID", "ADDRESS", "WEIGHT", "STATE")
	for _, s := range doc.Services {
		for _, l := range s.Localities {
			for _, e := range l.Endpoints {
				t.endpoint(s.Name, l.Priority, e)
			}
		}
		for _, e := range s.Idle {
			t.endpoint(s.Name, e.Priority, e)
		}
	}
	if len(doc.Held) > 0 {
		t.row()
		t.row("HELD IN", "DEVICE", "ADDRESS", "LISTED AS")
		for _, h := range doc.Held {
			for _, e := range h.Endpoints {
				t.row(h.Service, e.Name, e.Address, e.Listed)
			}
		}
	}
	if len(doc.Drains) > 0 {
		t.row()
		t.row("DRAINED", "ID", "BY", "SINCE", "UNTIL")
		for _, w := range doc.Drains {
			t.row(w.Name, w.Device, w.By, w.At.UTC().Format(time.DateTime), drainEnd(w))
		}
	}
	t.row()
	t.row("ENVOY", "NODE", "ADDRESS", "SINCE", "STATE")
	for _, e := range doc.Envoys {
		t.row(e.Device, e.Node, e.Address.Addr(), time.Since(e.Since).Round(time.Second), envoyState(e))
	}
	if c := doc.HealthChecks; c != nil && c.Interval != "1s" {
		t.row()
		t.row(fmt.Sprintf("health checks: each Envoy checks every %s, for %d Envoys", c.Interval, c.Envoys))
	}
	if len(doc.Problems) > 0 {
		t.row()
		t.row("PROBLEM ON", "SUBJECT", "REASON")
		for _, p := range doc.Problems {
			t.row(p.Name, p.Subject, p.Reason)
		}
	}
	t.changed(doc.Changes)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	return nil
}

// lastChanges is how many changes a status shows; -o json has all.
const lastChanges = 8

// changed shows the last changes, the newest first.
func (t table) changed(changes []journal.Change) {
	if len(changes) == 0 {
		return
	}
	t.row()
	t.row("CHANGED", "WHAT", "BY", "REACHED")
	for _, c := range changes[:min(lastChanges, len(changes))] {
		reached := "-"
		if c.Reach != nil {
			reached = c.Reach.String()
		}
		t.row(c.At.UTC().Format(time.TimeOnly), c.Text, dash(c.By), reached)
	}
}

func (t table) endpoint(service string, priority uint32, e topology.Endpoint) {
	t.row(service, priority, dash(e.Region), dash(e.Zone), e.Name, e.Device, e.Address, e.Weight, e.State)
}

// drainEnd is when a drain ends by itself.
func drainEnd(w operator.Word) string {
	if w.Until.IsZero() {
		return "`tailxds restore " + w.Name + "`"
	}
	return w.Until.UTC().Format(time.DateTime + " MST")
}

// envoyState is what an Envoy rejected last, or how far it is.
func envoyState(e xds.Stream) string {
	state := "in sync"
	for _, name := range slices.Sorted(maps.Keys(e.Types)) {
		switch of := e.Types[name]; {
		case of.Rejected != "":
			return "rejected " + name + ": " + of.Rejected
		case of.Pending:
			state = "updating"
		}
	}
	return state
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
