package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/xds"
)

func renderCommand(env environment) *cobra.Command {
	var o options
	var only string
	cmd := &cobra.Command{
		Use:     "render --devices FILE [--config FILE]",
		Short:   "Print the xDS resources that a device file makes, as JSON",
		Example: "  tailxds render --devices devices.yaml --config policy.yaml\n  tailxds render --devices - --only endpoints < devices.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, s := range env.strays(cmd.Root()) {
				fmt.Fprintln(cmd.ErrOrStderr(), "tailxds: warning:", s)
			}
			if err := o.checkTopology(); err != nil {
				return err
			}
			if only != "" && !slices.Contains(xds.TypeNames(), only) {
				return wrong("--only", only, strings.Join(xds.TypeNames(), ", "))
			}
			out, err := render(cmd, o, only)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(append(out, '\n'))
			return err
		},
	}
	topologyFlags(newBinder(cmd, env), &o)
	cmd.Flags().StringVar(&only, "only", "", "print the resources of one type: "+strings.Join(xds.TypeNames(), ", "))
	under(cmd, append(topologyHeadings(), heading{"Output", []string{"only"}})...)
	return cmd
}

// render is the document: resources by type, and the problems; or the resources
// of only one type.
func render(cmd *cobra.Command, o options, only string) ([]byte, error) {
	if o.Devices == "" {
		return nil, errors.New("render needs --devices FILE (or - for standard input)")
	}
	src, _, err := provider.Open(provider.Config{Provider: provider.FromFile, Devices: stdinPath(o.Devices)})
	if err != nil {
		return nil, err
	}
	devices, err := src.List(cmd.Context())
	if err != nil {
		return nil, err
	}
	policy, err := readPolicy(o.Config)
	if err != nil {
		return nil, err
	}
	rules, err := o.rules(time.Now())
	if err != nil {
		return nil, err
	}
	t, problems := topology.Build(devices, rules)
	resources, err := xds.Render(t, policy.policy, rules.DefaultService)
	if err != nil {
		return nil, err
	}
	document := map[string]any{"problems": joined(problems, policy.policy.Problems(t))}
	for _, name := range xds.TypeNames() {
		document[name] = []json.RawMessage{}
	}
	for _, r := range resources {
		raw, err := protojson.Marshal(r.Message)
		if err != nil {
			return nil, fmt.Errorf("render %s %s: %w", r.Type, r.Name, err)
		}
		document[r.Type] = append(document[r.Type].([]json.RawMessage), raw)
	}
	if only != "" {
		return json.MarshalIndent(document[only], "", "  ")
	}
	return json.MarshalIndent(document, "", "  ")
}

// stdinPath is the path of a file; - is standard input.
func stdinPath(path string) string {
	if path == "-" {
		return os.Stdin.Name()
	}
	return path
}

// rules are the options that decide what a device means, at a moment.
func (o options) rules(now time.Time) (topology.Rules, error) {
	if err := topology.ValidName(o.DefaultService); err != nil {
		return topology.Rules{}, fmt.Errorf("--default-service %q %w", o.DefaultService, err)
	}
	if o.DefaultPort == 0 {
		return topology.Rules{}, errors.New("--default-port must be from 1 to 65535")
	}
	return topology.Rules{
		DefaultService: o.DefaultService, DefaultPort: o.DefaultPort, PreferIPv6: o.PreferIPv6,
		Now: now, OfflineGrace: o.OfflineGrace, DrainWindow: o.DrainWindow,
	}, nil
}
