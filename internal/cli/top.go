package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/traffic"
)

// topEvery is how often `top` looks again. Envoys report every five seconds, but
// weights and states are new at once.
const topEvery = time.Second

// topCommand shows where requests enter and who serves them, live.
func topCommand(env environment) *cobra.Command {
	var output string
	var once bool
	cmd := adminCommand(env, "top [SERVICE]", "Show who sends how much to whom, drawn anew every second", func(cmd *cobra.Command, args []string, c api.Client) error {
		look := func(ctx context.Context, to io.Writer) (api.Traffic, error) {
			doc, body, err := askTraffic(ctx, c, args)
			switch {
			case err != nil:
				return doc, err
			case output != "table":
				return doc, writeDocument(to, body, output)
			}
			return doc, printTop(to, doc)
		}
		if once || output != "table" {
			_, err := look(cmd.Context(), cmd.OutOrStdout())
			return err
		}
		if _, err := watchPage(cmd.Context(), cmd.OutOrStdout(), topEvery, look); cmd.Context().Err() == nil {
			return err
		}
		return nil // it was shown
	})
	cmd.Args = argument{what: "a service", optional: true, max: maxName}.Check
	cmd.Example = "  tailxds top\n  tailxds top hello --once\n  tailxds top -o json"
	choiceFlag(cmd.Flags(), &output, "output", "o", "table", "table; or json or yaml, which print it once", "table", "json", "yaml")
	cmd.Flags().BoolVar(&once, "once", false, "print it once")
	return cmd
}

// askTraffic is /traffic and its text, of all services or of the one that is
// named. An unknown one is an error.
func askTraffic(ctx context.Context, c api.Client, only []string) (doc api.Traffic, body []byte, err error) {
	body, err = c.Document(ctx, "/traffic", &doc)
	if err != nil || len(only) == 0 {
		return doc, body, err
	}
	var names []string
	for _, s := range doc.Services {
		names = append(names, s.Service)
	}
	if !slices.Contains(names, only[0]) {
		return doc, nil, input.UnknownName("service", only[0], names)
	}
	doc.Services = slices.DeleteFunc(doc.Services, func(s traffic.Table) bool { return s.Service != only[0] })
	body, err = json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return doc, nil, fmt.Errorf("write the traffic: %w", err)
	}
	return doc, append(body, '\n'), nil
}

// printTop writes a table a service.
func printTop(out io.Writer, doc api.Traffic) error {
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	t.row(reporting(doc))
	for _, s := range doc.Services {
		t.service(s)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print traffic: %w", err)
	}
	return nil
}

// reporting says how many Envoys the figures are from.
func reporting(doc api.Traffic) string {
	n := doc.Reporting()
	stale := len(doc.Envoys) - n
	switch {
	case n == 0 && stale == 0:
		return "no Envoy reports: its bootstrap must be that of `tailxds bootstrap`"
	case n == 0:
		return fmt.Sprintf("no Envoy reports any more; %d did", stale)
	case stale > 0:
		return fmt.Sprintf("%d of %d Envoys report, the others have stopped", n, n+stale)
	case n == 1:
		return "1 Envoy reports"
	default:
		return fmt.Sprintf("%d Envoys report", n)
	}
}

func (t table) service(s traffic.Table) {
	t.row()
	t.row(strings.ToUpper(s.Service) + headline(s))
	if len(s.Entries) > 0 {
		t.row()
		t.row("ENTERS IN", "ENVOYS", "SHARE", "   REQ/S", "ERRORS", "     P50", "     P99")
		for _, e := range s.Entries {
			t.row(dash(e.Region), e.Envoys, percent(e.Share), rate(e.Requests), failed(e.Errors, e.Requests), latency(e.P50), latency(e.P99))
		}
	}
	t.row()
	t.row("SERVER", "REGION", "WEIGHT", "STATE", "HEALTHY FOR", "EXPECTED", "OBSERVED", "   REQ/S", "ERRORS", "IN FLIGHT")
	for _, e := range s.Servers {
		observed := percent(e.Observed)
		if e.Deviates {
			observed += " !"
		}
		t.row(e.Name, dash(e.Region), e.Weight, e.State, health(e), percent(e.Expected), observed, rate(e.Requests), failed(e.Errors, e.Requests), e.InFlight)
	}
}

// headline is a service in one line.
func headline(s traffic.Table) string {
	line := fmt.Sprintf("  %s  %s req/s", s.Locality, strings.TrimSpace(rate(s.Requests)))
	if s.Requests == 0 {
		return line
	}
	return line + fmt.Sprintf("  %s failed  p50 %s  p99 %s  %s cross regions (%s expected)",
		strings.TrimSpace(failed(s.Errors, s.Requests)), strings.TrimSpace(latency(s.P50)), strings.TrimSpace(latency(s.P99)),
		strings.TrimSpace(percent(s.Crossing)), strings.TrimSpace(percent(s.CrossingExpected)))
}

// health is "3 of 4", or a dash where no Envoy reports.
func health(s traffic.Server) string {
	if s.Reporting == 0 {
		return "-"
	}
	return fmt.Sprintf("%d of %d", s.Healthy, s.Reporting)
}

// percent, rate, failed and latency are as wide as others of their kind, so that
// columns of them can be compared.
func percent(share float64) string { return fmt.Sprintf("%5.1f %%", 100*share) }

func rate(n float64) string { return fmt.Sprintf("%8.1f", n) }

func failed(errors, of float64) string {
	if of == 0 {
		return "     -"
	}
	return fmt.Sprintf("%4.1f %%", 100*errors/of)
}

// latency shows milliseconds.
func latency(ms float64) string {
	switch {
	case ms == 0:
		return "       -"
	case ms < 10:
		return fmt.Sprintf("%5.1f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%5.0f ms", ms)
	default:
		return fmt.Sprintf("%6.1f s", ms/1000)
	}
}
