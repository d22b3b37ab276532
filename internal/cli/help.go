package cli

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// heading is one of the groups that `--help` shows flags in.
type heading struct {
	title string
	flags []string
}

// headingAnnotation is where a flag keeps the heading that it stands under.
const headingAnnotation = "tailxds_heading"

// underHeadings puts flags under headings, in the order in which they are to be shown.
func underHeadings(cmd *cobra.Command, headings ...heading) {
	cmd.Flags().SortFlags = false
	for i, h := range headings {
		for j, name := range h.flags {
			f := cmd.Flags().Lookup(name)
			if f.Annotations == nil {
				f.Annotations = make(map[string][]string)
			}
			f.Annotations[headingAnnotation] = []string{fmt.Sprintf("%02d %02d", i, j), h.title}
		}
	}
}

// place is where a flag stands, and under which heading; those without one come
// last.
func place(f *pflag.Flag) (order, title string) {
	if at := f.Annotations[headingAnnotation]; len(at) == 2 {
		return at[0], at[1]
	}
	return "99 " + f.Name, "Flags"
}

// helpWidth is how wide flags are written, in columns.
const helpWidth = 130

// usage writes what follows the description of a command in its help: how it is
// called, examples, and commands and flags in groups.
func usage(cmd *cobra.Command) error {
	var b bytes.Buffer
	b.WriteString("Usage:\n")
	if cmd.Runnable() && !cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s\n", cmd.UseLine())
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s [command]\n", cmd.CommandPath())
	}
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	for _, g := range append(cmd.Groups(), &cobra.Group{Title: "Other commands"}) {
		writeCommands(&b, g, cmd.Commands())
	}
	writeFlags(&b, cmd)
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\nUse \"%s [command] --help\" for more information about a command.\n", cmd.CommandPath())
	}
	_, err := cmd.OutOrStderr().Write(b.Bytes())
	return err
}

func writeCommands(b *bytes.Buffer, g *cobra.Group, commands []*cobra.Command) {
	title := "\n" + g.Title + ":\n"
	for _, c := range commands {
		if c.GroupID == g.ID && (c.IsAvailableCommand() || c.Name() == "help") {
			fmt.Fprintf(b, "%s  %-*s  %s\n", title, c.NamePadding(), c.Name(), c.Short)
			title = ""
		}
	}
}

func writeFlags(b *bytes.Buffer, cmd *cobra.Command) {
	var all []*pflag.Flag
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { all = append(all, f) })
	slices.SortFunc(all, func(f, g *pflag.Flag) int {
		one, _ := place(f)
		other, _ := place(g)
		return strings.Compare(one, other)
	})
	for len(all) > 0 {
		_, title := place(all[0])
		group := pflag.NewFlagSet(title, pflag.ContinueOnError)
		group.SortFlags = false
		for len(all) > 0 {
			if _, its := place(all[0]); its != title {
				break
			}
			group.AddFlag(plainBool(all[0]))
			all = all[1:]
		}
		fmt.Fprintf(b, "\n%s:\n%s", title, group.FlagUsagesWrapped(helpWidth))
	}
}

// plainBool is a flag as help shows it: a boolean without "[=true|false]", which
// is rarely needed.
func plainBool(f *pflag.Flag) *pflag.Flag {
	if f.Value.Type() != "bool" {
		return f
	}
	shown := *f
	shown.Value = struct{ pflag.Value }{f.Value} // hides that it is one
	return &shown
}

// The groups that `tailxds --help` shows commands in.
const (
	groupRun     = "run"
	groupInspect = "look"
	groupOperate = "act"
	groupWrite   = "write"
)

// grouped gives commands a group.
func grouped(id string, commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		c.GroupID = id
	}
	return commands
}

// headings of the flags that decide what is rendered from devices.
func topologyHeadings() []heading {
	return []heading{
		{"Devices and policy", []string{"devices", "config"}},
		{"What a device means", []string{"tag-prefix", "default-service", "default-port", "prefer-ipv6", "offline-grace", "drain-window"}},
	}
}

func serveHeadings() []heading {
	return []heading{
		{"Where devices come from", []string{"provider", "devices", "tailnet", "api-url", "api-token", "client-id", "client-secret", "poll-interval", "max-response-bytes"}},
		{"Joining the tailnet", []string{"hostname", "authkey", "control-url", "advertise-tags", "state-dir", "state-store"}},
		{"What is served, and to whom", []string{"config", "port", "listen", "allow", "peer"}},
		topologyHeadings()[1],
		{"What is held", []string{"hold-fraction", "hold-for"}},
		{"Admin pages and log", []string{"admin", "admin-host", "log-level", "log-format"}},
	}
}

func bootstrapHeadings() []heading {
	return []heading{
		{"The control plane", []string{"control-plane", "dns"}},
		{"The Envoy", []string{"node", "cluster", "region", "zone", "envoy-admin", "envoy-metrics"}},
		{"What it reports", []string{"report-every", "otlp"}},
		{"Output", []string{"output"}},
	}
}
