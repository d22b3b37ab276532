package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/topology"
)

// redraw is how often `status --watch` looks again.
const redraw = 2 * time.Second

func statusCommand(env environment) *cobra.Command {
	var output string
	var asJSON, watch, exitCode bool
	cmd := adminCommand(env, "status [SERVICE]", "Show services, endpoints, Envoys and problems", func(cmd *cobra.Command, args []string, c api.Client) error {
		if asJSON {
			output = "json"
		}
		look := func(ctx context.Context, to io.Writer) (api.Status, error) {
			doc, body, err := askStatus(ctx, c, args)
			if err != nil {
				return doc, err
			}
			return doc, printers()[output](to, body, doc)
		}
		if !watch {
			doc, err := look(cmd.Context(), cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return statusError(doc, exitCode)
		}
		doc, err := watchPage(cmd.Context(), cmd.OutOrStdout(), redraw, look)
		switch {
		case cmd.Context().Err() == nil:
			return err // there is nothing to wait for
		case !exitCode:
			return nil // it was shown
		case err != nil:
			return err
		default:
			return statusError(doc, exitCode)
		}
	})
	cmd.Args = argument{what: "a service", optional: true, max: maxName}.Check
	cmd.Long = `Show services, endpoints, Envoys and problems, of all services or of one.

Exit status: 1 if the control plane is not ready or can't be reached, and with --exit-code also if a service has
no serving endpoint; else 0. With --watch it is 0 once interrupted, unless --exit-code is given.`
	cmd.Example = "  tailxds status\n  tailxds status hello --watch\n  tailxds status --exit-code --admin 10.0.0.7:9090\n  tailxds status -o yaml"
	flags := cmd.Flags()
	outputFlag(flags, &output, "table", "json", "yaml")
	flags.BoolVar(&asJSON, "json", false, "the same as --output json")
	flags.BoolVar(&watch, "watch", false, "draw it anew every 2 s until interrupted")
	flags.BoolVar(&exitCode, "exit-code", false, "exit with 1 also if a service has no serving endpoint")
	return cmd
}

// askStatus is /status and its text, of all services or of the one that is named.
func askStatus(ctx context.Context, c api.Client, only []string) (doc api.Status, body []byte, err error) {
	body, err = c.Document(ctx, "/status", &doc)
	if err != nil || len(only) == 0 || doc.At == nil { // before there are services, it says why
		return doc, body, err
	}
	if !slices.Contains(serviceNames(doc), only[0]) {
		return doc, nil, input.UnknownName("service", only[0], serviceNames(doc))
	}
	doc = onlyService(doc, only[0])
	body, err = json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return doc, nil, fmt.Errorf("write the status: %w", err)
	}
	return doc, append(body, '\n'), nil
}

// onlyService leaves in a status what is of one service, or of none: Envoys, and
// problems of the whole pool.
func onlyService(s api.Status, service string) api.Status {
	s.Services = slices.DeleteFunc(s.Services, func(of topology.Service) bool { return of.Name != service })
	s.Held = slices.DeleteFunc(s.Held, func(h guard.Held) bool { return h.Service != service })
	s.Shares = slices.DeleteFunc(s.Shares, func(of api.EndpointShare) bool { return of.Service != service })
	s.Degraded = slices.DeleteFunc(s.Degraded, func(of string) bool { return !strings.HasPrefix(of, service+": ") })
	s.Changes = slices.DeleteFunc(slices.Clone(s.Changes), func(c events.Event) bool { return c.Service != "" && c.Service != service })
	its := func(device string) bool {
		return slices.ContainsFunc(s.Services, func(of topology.Service) bool {
			return slices.ContainsFunc(slices.Concat(of.Serving(), of.Idle), func(e topology.Endpoint) bool { return e.Device == device })
		})
	}
	s.Devices = slices.DeleteFunc(s.Devices, func(d topology.Device) bool { return !its(d.ID) })
	s.Drains = slices.DeleteFunc(s.Drains, func(w drain.Record) bool { return !its(w.Device) })
	s.Problems = slices.DeleteFunc(s.Problems, func(p topology.Problem) bool { return p.Device != "" && !its(p.Device) })
	return s
}

// statusError is an error if nothing is served yet, and where degraded counts, if a
// service has no endpoint that serves.
func statusError(s api.Status, degraded bool) error {
	switch {
	case degraded && len(s.Degraded) > 0:
		return errors.New("degraded: " + input.Printable(strings.Join(s.Degraded, "; ")))
	case !s.Ready:
		return errors.New(input.Printable(s.Detail))
	default:
		return nil
	}
}

// watchPage looks every so often until ctx ends, and returns what it saw last. A
// control plane that does not answer for a while is shown as that. What no
// waiting helps, such as a name that is wrong, ends it, if it is so from the start.
func watchPage[T any](
	ctx context.Context, out io.Writer, every time.Duration, look func(context.Context, io.Writer) (T, error),
) (last T, lastErr error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var clear []byte
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		clear = []byte("\x1b[H\x1b[J")
	}
	for seen := false; ; {
		var page bytes.Buffer
		doc, err := look(ctx, &page)
		if ctx.Err() != nil {
			return last, lastErr
		}
		seen = seen || err == nil
		switch {
		case err != nil && !seen && !errors.As(err, new(api.UnreachableError)):
			return doc, err
		case err != nil:
			fmt.Fprintln(&page, input.Printable(err.Error()))
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
func printers() map[string]func(io.Writer, []byte, api.Status) error {
	return map[string]func(io.Writer, []byte, api.Status) error{
		"table": func(out io.Writer, _ []byte, doc api.Status) error { return printStatus(out, doc) },
		"json":  func(out io.Writer, body []byte, _ api.Status) error { return write(out, escaped(body)) },
		"yaml":  func(out io.Writer, body []byte, _ api.Status) error { return writeYAML(out, body) },
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
		fmt.Fprint(t, input.Printable(fmt.Sprint(c)))
	}
	fmt.Fprintln(t)
}
