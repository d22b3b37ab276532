package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/xds"
)

func renderCommand(env environment) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "render --devices FILE [--config FILE]",
		Short: "Print the xDS resources that a device file makes, as JSON",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, s := range env.strays(cmd.Root()) {
				fmt.Fprintln(cmd.ErrOrStderr(), "tailxds: warning:", s)
			}
			if err := o.checkTopology(); err != nil {
				return err
			}
			out, err := render(cmd, o)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(append(out, '\n'))
			return err
		},
	}
	topologyFlags(newBinder(cmd, env), &o)
	return cmd
}

// render is the document: resources by type, and the problems.
func render(cmd *cobra.Command, o options) ([]byte, error) {
	if o.Devices == "" {
		return nil, errors.New("render needs --devices FILE (or - for standard input)")
	}
	if o.Devices == "-" {
		o.Devices = os.Stdin.Name()
	}
	src, _, err := provider.Open(provider.Config{Provider: provider.FromFile, Devices: o.Devices})
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
	return json.MarshalIndent(document, "", "  ")
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

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Validate a policy file, for CI",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			policy, err := readPolicy(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, policies for %d services\n", args[0], len(policy.policy.Services))
			return err
		},
	}
}
