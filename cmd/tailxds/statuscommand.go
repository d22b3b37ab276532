package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
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
