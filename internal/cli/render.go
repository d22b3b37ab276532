package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
)

// fileOptions are the files that render reads, and what devices in them mean.
type fileOptions struct {
	devices, policyFile string
	rules               topology.Rules
}

func renderCommand(env environment) *cobra.Command {
	var o fileOptions
	var only string
	cmd := &cobra.Command{
		Use:     "render --devices FILE [--config FILE]",
		Short:   "Print the xDS resources that a device file makes, as JSON",
		Example: "  tailxds render --devices devices.yaml --config policy.yaml\n  tailxds render --devices - --only endpoints < devices.json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, s := range env.unknownVariables(cmd.Root()) {
				fmt.Fprintln(cmd.ErrOrStderr(), "tailxds: warning:", s)
			}
			if err := checkRules(o.rules); err != nil {
				return err
			}
			out, passedOver, err := render(cmd.Context(), o, only)
			if err != nil {
				return err
			}
			if _, err := cmd.OutOrStdout().Write(append(out, '\n')); err != nil {
				return fmt.Errorf("print the resources: %w", err)
			}
			for _, w := range passedOver.why {
				fmt.Fprintln(cmd.ErrOrStderr(), "tailxds: warning:", input.Printable(w))
			}
			return passedOver.err()
		},
	}
	topologyFlags(newBinder(cmd, env), &o.rules, &o.devices, &o.policyFile)
	choiceFlag(cmd.Flags(), &only, "only", "", "", "print the resources of one type: "+input.OneOf(envoy.TypeNames()), envoy.TypeNames()...)
	underHeadings(cmd, append(topologyHeadings(), heading{"Output", []string{"only"}})...)
	return cmd
}

// skipped says which devices, tags, grants and attributes made no resource,
// and why.
type skipped struct {
	why                []string
	devices, endpoints int
}

// err is why there is nothing to balance over; nil if there is.
func (p skipped) err() error {
	switch {
	case p.endpoints > 0:
		return nil
	case p.devices == 0:
		return errors.New("no endpoint to render: the device file lists no devices")
	default:
		return fmt.Errorf("no endpoint to render: no device of %d is one", p.devices)
	}
}

// render is the document: resources by type, and the problems; or the resources
// of only one type.
func render(ctx context.Context, o fileOptions, only string) (text []byte, over skipped, err error) {
	if o.devices == "" {
		return nil, over, errors.New("render needs a device file: tailxds render --devices FILE (or - for standard input)")
	}
	src, _, err := provider.Open(provider.Config{Provider: provider.File, Devices: stdinPath(o.devices)})
	if err != nil {
		return nil, over, err
	}
	devices, err := src.List(ctx)
	if err != nil {
		return nil, over, err
	}
	policy, err := readPolicyFile(o.policyFile)
	if err != nil {
		return nil, over, err
	}
	rules := o.rules
	rules.Now = time.Now()
	t, problems := topology.Build(devices, rules)
	resources, err := envoy.Render(t, policy, rules.DefaultService)
	if err != nil {
		return nil, over, err
	}
	problems = append(append([]topology.Problem{}, problems...), policy.Problems(t)...)
	document := map[string]any{"problems": problems}
	for _, name := range envoy.TypeNames() {
		document[name] = []json.RawMessage{}
	}
	for _, r := range resources {
		raw, err := protojson.Marshal(r.Message)
		if err != nil {
			return nil, over, fmt.Errorf("render %s %s: %w", r.Type, r.Name, err)
		}
		document[r.Type] = append(document[r.Type].([]json.RawMessage), raw)
	}
	shown := any(document)
	if only != "" {
		shown = document[only]
	}
	text, err = json.MarshalIndent(shown, "", "  ")
	return text, reasons(devices, t, problems, rules), err
}

// reasons are those for which devices and what they say made no resource.
func reasons(devices []topology.Device, t topology.Topology, problems []topology.Problem, rules topology.Rules) skipped {
	over := skipped{devices: len(devices)}
	for _, s := range t.Services {
		over.endpoints += len(s.Serving()) + len(s.Idle)
		for _, e := range s.Idle {
			over.why = append(over.why, fmt.Sprintf("%s does not serve %s: it is %s", e.Name, s.Name, e.State))
		}
	}
	for _, d := range devices {
		reported := slices.ContainsFunc(problems, func(p topology.Problem) bool { return p.Device == d.ID })
		if missing := topology.Explain(d, rules).Missing; missing != "" && !reported {
			over.why = append(over.why, fmt.Sprintf("%s is no endpoint: %s", cmp.Or(d.Name, d.ID), missing))
		}
	}
	for _, p := range problems {
		over.why = append(over.why, p.String())
	}
	return over
}

// stdinPath is the path of a file; - is standard input.
func stdinPath(path string) string {
	if path == "-" {
		return os.Stdin.Name()
	}
	return path
}
