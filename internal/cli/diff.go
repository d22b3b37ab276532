package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/yamldoc"
)

// Exit statuses of `tailxds diff`, those of diff(1).
const (
	exitDiffers = 1
	exitTrouble = 2
)

// diffCommand prints what a policy file or a device file would change.
func diffCommand(env environment) *cobra.Command {
	var policy, devices, output string
	cmd := adminCommand(env, "diff [POLICY-FILE]", "Tell what a policy file, or a device file, would change of what is served now",
		func(cmd *cobra.Command, args []string, c api.Client) error {
			if len(args) > 0 {
				policy = args[0]
			}
			switch {
			case policy == "" && devices == "":
				return errors.New("diff needs a policy file, or --devices FILE, or both")
			case policy == "-" && devices == "-":
				return errors.New("only one of the files can be standard input")
			}
			doc, body, err := askDiff(cmd, c, policy, devices)
			if err != nil {
				return err
			}
			if err := diffPrinters()[output](cmd.OutOrStdout(), body, doc); err != nil {
				return err
			}
			if len(doc.Changes) > 0 {
				return exitError{Code: exitDiffers}
			}
			return nil
		})
	cmd.Long = `Ask the running control plane what would change if a policy file, a device file or both were in force. It answers by
the rules by which it publishes: drains count, and what it would hold is told as held. Nothing is changed.

Exit status: 0 if nothing would change, 1 if something would, 2 if that can't be told.`
	cmd.Example = `  tailxds diff policy.yaml
  git show HEAD:policy.yaml | tailxds diff -
  tailxds diff --devices devices.yaml -o json`
	cmd.Args = argument{what: "a policy file", optional: true, max: maxPath}.Check
	cmd.Flags().StringVar(&devices, "devices", "", "device file, JSON or YAML; or - for standard input")
	outputFlag(cmd.Flags(), &output, "text", "json", "yaml")
	return withExitTrouble(cmd)
}

// withExitTrouble makes each error of a command one of [exitTrouble], so that none
// is taken for a difference.
func withExitTrouble(cmd *cobra.Command) *cobra.Command {
	trouble := func(err error) error {
		if err == nil || errors.As(err, new(exitError)) {
			return err
		}
		return exitError{exitTrouble, err}
	}
	args, prepare, run := cmd.Args, cmd.PreRunE, cmd.RunE
	cmd.Args = func(cmd *cobra.Command, a []string) error { return trouble(args(cmd, a)) }
	cmd.PreRunE = func(cmd *cobra.Command, a []string) error { return trouble(prepare(cmd, a)) }
	cmd.RunE = func(cmd *cobra.Command, a []string) error { return trouble(run(cmd, a)) }
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return trouble(flagError(cmd, err)) })
	return cmd
}

// askDiff sends files that were read, and returns the answer.
func askDiff(cmd *cobra.Command, c api.Client, policy, devices string) (doc api.Diff, body []byte, err error) {
	var p api.Proposal
	if policy != "" {
		_, text, err := checkedPolicy(policy, cmd.InOrStdin())
		if err != nil {
			return doc, nil, eachFault(cmd.ErrOrStderr(), policy, err)
		}
		p.Policy = &text
	}
	if devices != "" {
		if p.Devices, err = provider.ReadDevices(stdinPath(devices), 0); err != nil {
			return doc, nil, fmt.Errorf("read devices: %w", err)
		}
	}
	question, err := json.Marshal(p)
	if err != nil {
		return doc, nil, fmt.Errorf("write what to compare: %w", err)
	}
	if body, err = c.Do(cmd.Context(), http.MethodPost, "/diff", bytes.NewReader(question)); err != nil {
		return doc, nil, err
	}
	return doc, body, c.Decode("/diff", body, &doc)
}

// diffPrinters are the formats of `diff --output`.
func diffPrinters() map[string]func(io.Writer, []byte, api.Diff) error {
	return map[string]func(io.Writer, []byte, api.Diff) error{
		"text": func(out io.Writer, _ []byte, doc api.Diff) error { return printDiff(out, doc) },
		"json": func(out io.Writer, body []byte, _ api.Diff) error { return write(out, escaped(body)) },
		"yaml": func(out io.Writer, body []byte, _ api.Diff) error { return writeYAML(out, body) },
	}
}

// writeDocument writes a document of JSON as that, or as YAML.
func writeDocument(out io.Writer, body []byte, format string) error {
	if format == "yaml" {
		return writeYAML(out, body)
	}
	return write(out, escaped(body))
}

func writeYAML(out io.Writer, body []byte) error {
	text, err := yamldoc.FromJSON(body)
	if err != nil {
		return fmt.Errorf("write it as YAML: %w", err)
	}
	return write(out, replaced(text))
}

// printDiff writes one change a line, with a sign for its kind.
func printDiff(out io.Writer, doc api.Diff) error {
	var b bytes.Buffer
	for _, c := range doc.Changes {
		fmt.Fprintf(&b, "%s %s\n", diffSign(c), input.Printable(c.Text))
	}
	if len(doc.Changes) == 0 {
		b.WriteString("nothing would change\n")
	}
	return write(out, b.Bytes())
}

// diffSign is + and - for what comes and goes, ! for what to look at, and ~ for
// the rest.
func diffSign(c events.Event) string {
	switch c.Kind {
	case events.Added, events.Fixed, events.Released:
		return "+"
	case events.Removed:
		return "-"
	case events.Problem, events.Held:
		return "!"
	case events.Service:
		switch {
		case c.To != "":
			return "+"
		case c.From != "":
			return "-"
		default:
			return "!" // no endpoint serves it
		}
	default:
		return "~"
	}
}
