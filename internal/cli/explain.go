package cli

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// explainCommand says why an endpoint is what it is.
func explainCommand(env environment) *cobra.Command {
	var output, from string
	cmd := adminCommand(env, "explain [SERVICE|DEVICE]", "Say where each value of an endpoint comes from, and what comes of it", func(cmd *cobra.Command, args []string, c api.Client) error {
		query := url.Values{"of": args, "from": {from}}
		var doc api.Explanation
		body, err := c.Document(cmd.Context(), "/explain?"+query.Encode(), &doc)
		if err != nil {
			return err
		}
		if output != "text" {
			return writeDocument(cmd.OutOrStdout(), body, output)
		}
		return printExplained(cmd.OutOrStdout(), doc)
	})
	cmd.Args = argument{what: "a service or device", optional: true, max: maxName}.Check
	cmd.Example = "  tailxds explain west-2\n  tailxds explain hello --from east-1"
	cmd.Long = "Say of each endpoint of a service, of a device, or of all: which tag, grant or attribute gives each value, which\n" +
		"Envoys find it healthy, and the share of the requests that it was to get beside the one that it got. Of a device\n" +
		"that is no endpoint it says what is missing, and of one that is held, why."
	outputFlag(cmd.Flags(), &output, "text", "json", "yaml")
	cmd.Flags().StringVar(&from, "from", "", "the device whose Envoy's view is shown, instead of all Envoys'")
	return cmd
}

// printExplained writes two lines an endpoint.
func printExplained(out io.Writer, doc api.Explanation) error {
	var b strings.Builder
	line := func(indent, format string, args ...any) {
		b.WriteString(indent + input.Printable(fmt.Sprintf(format, args...)) + "\n")
	}
	if len(doc.Devices) == 0 {
		line("", "there are no endpoints")
	}
	if doc.From != "" {
		line("", "as the Envoy of %s sees it:", doc.From)
	}
	for _, d := range doc.Devices {
		for _, e := range d.Endpoints {
			line("", "%s in %s: %s", d.Name, e.Service, statusOf(d, e))
			line("  ", "%s", servingState(e))
			if e.Held != "" {
				line("  ", "held: %s", e.Held)
			}
		}
		if d.Missing != "" && len(d.Endpoints) == 0 {
			line("", "%s (%s) is no endpoint: %s", d.Name, d.Address, d.Missing)
		}
		for _, p := range d.Problems {
			line("  ", "problem: %s: %s", p.Subject, p.Reason)
		}
	}
	return write(out, []byte(b.String()))
}

// statusOf is what a device says, each value with its source.
func statusOf(d api.ExplainedDevice, e api.ExplainedEndpoint) string {
	if len(e.Values) == 0 {
		if !d.Listed {
			return "the device list lacks it"
		}
		return "its tags, grants and attributes do not name the service"
	}
	var all []string
	for _, v := range e.Values {
		switch {
		case v.From.Kind == topology.FromOperator:
			all = append(all, fmt.Sprintf("drained %s (operator)", v.Value))
		case v.From.Kind != topology.FromDefault:
			all = append(all, fmt.Sprintf("%s %s (%s)", v.Key, v.Value, v.From.Text))
		case v.Key == "weight" || v.Key == "port":
			all = append(all, fmt.Sprintf("%s %s (default)", v.Key, v.Value))
		}
	}
	return strings.Join(all, ", ")
}

// servingState is what came of it: its state, its health, its shares.
func servingState(e api.ExplainedEndpoint) string {
	s := e.Server
	if s == nil {
		return "NOT published: see its problems"
	}
	line := fmt.Sprintf("%s %s", s.Address, s.State)
	if s.State == topology.Serving {
		line += "; " + healthSummary(*s)
	}
	line += fmt.Sprintf("; expected %s, observed %s, %s req/s",
		strings.TrimSpace(percent(s.Expected)), strings.TrimSpace(percent(s.Observed)), strings.TrimSpace(rate(s.Requests)))
	if s.Errors > 0 {
		line += fmt.Sprintf(", %s failed", strings.TrimSpace(failed(s.Errors, s.Requests)))
	}
	if !s.Envoy {
		line += "; no Envoy of its own is connected"
	}
	return line
}

// healthSummary is who finds a server healthy, "4 of 4 Envoys say unhealthy: a, b".
func healthSummary(s traffic.Server) string {
	switch sick := s.Reporting - s.Healthy; {
	case s.Reporting == 0:
		return "no Envoy tells of its health"
	case sick == 0:
		return fmt.Sprintf("%d of %d Envoys say healthy", s.Reporting, s.Reporting)
	case sick == s.Reporting:
		return fmt.Sprintf("%d of %d Envoys say UNHEALTHY", sick, s.Reporting)
	default:
		const most = 3
		names := s.UnhealthyFor[:min(most, len(s.UnhealthyFor))]
		text := fmt.Sprintf("%d of %d Envoys say UNHEALTHY: %s", sick, s.Reporting, strings.Join(names, ", "))
		if sick > most {
			text += fmt.Sprintf(" and %d more", sick-most)
		}
		return text
	}
}
