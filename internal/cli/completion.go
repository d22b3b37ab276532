package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/input"
)

// completeWithin bounds how long a shell waits for names from the control plane.
const completeWithin = time.Second

// fileFlags are the flags whose values are files, with the endings that are offered;
// none of them offers every file.
func fileFlags() map[string][]string {
	return map[string][]string{
		"devices": {"yaml", "yml", "json"}, "config": {"yaml", "yml"}, "socket": {}, "bootstrap output": {},
	}
}

// completeValues gives each flag and argument below root its completion: choices,
// names that the control plane knows, or files. Where no file is meant, none is
// offered.
func completeValues(root *cobra.Command, env environment) {
	arguments := map[string]cobra.CompletionFunc{
		"drain": firstOnly(fromControlPlane(env, deviceNames)), "restore": firstOnly(fromControlPlane(env, deviceNames)),
		"status": firstOnly(fromControlPlane(env, serviceNames)), "top": firstOnly(fromControlPlane(env, serviceNames)), "accept": firstOnly(fromControlPlane(env, serviceNames)),
		"explain": firstOnly(fromControlPlane(env, serviceNames, deviceNames)),
		"check":   firstOnly(filesEnding("yaml", "yml")), "diff": firstOnly(filesEnding("yaml", "yml")),
		"documents": firstOnly(directories),
	}
	for _, cmd := range root.Commands() {
		if of, ok := arguments[cmd.Name()]; ok {
			cmd.ValidArgsFunction = of
		} else if cmd.ValidArgsFunction == nil {
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			_ = cmd.RegisterFlagCompletionFunc(f.Name, valuesOf(cmd, f, env)) // the flag is there, and has none
		})
	}
}

func valuesOf(cmd *cobra.Command, f *pflag.Flag, env environment) cobra.CompletionFunc {
	if c, ok := f.Value.(*choice); ok {
		return cobra.FixedCompletions(c.of, cobra.ShellCompDirectiveNoFileComp)
	}
	for _, name := range []string{cmd.Name() + " " + f.Name, f.Name} {
		if endings, ok := fileFlags()[name]; ok {
			return filesEnding(endings...)
		}
	}
	switch {
	case f.Name == "state-dir":
		return directories
	case f.Name == "from":
		return fromControlPlane(env, deviceNames)
	case f.Name == "state-store":
		return cobra.FixedCompletions([]string{"kube:"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace)
	case f.Value.Type() == "bool":
		return cobra.FixedCompletions([]string{"true", "false"}, cobra.ShellCompDirectiveNoFileComp)
	default:
		return cobra.NoFileCompletions
	}
}

// firstOnly completes the first argument only.
func firstOnly(of cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return of(cmd, args, begun)
	}
}

func filesEnding(endings ...string) cobra.CompletionFunc {
	directive := cobra.ShellCompDirectiveFilterFileExt
	if len(endings) == 0 {
		directive = cobra.ShellCompDirectiveDefault
	}
	return cobra.FixedCompletions(endings, directive)
}

func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// fromControlPlane completes names from the status of the control plane, if one
// answers.
func fromControlPlane(env environment, names ...func(api.Status) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
		defer cancel()
		address := cmd.Flags().Lookup("admin")
		if v := env.get(variable("admin")); v != "" && !address.Changed {
			_ = address.Value.Set(v) // a text takes every value
		}
		var all []string
		client, err := api.NewClient(address.Value.String())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var doc api.Status
		if _, err := client.Document(ctx, "/status", &doc); err == nil {
			for _, of := range names {
				all = append(all, of(doc)...)
			}
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

func serviceNames(s api.Status) []string {
	var all []string
	for _, of := range s.Services {
		all = append(all, input.Printable(of.Name))
	}
	return all
}

func deviceNames(s api.Status) []string {
	var all []string
	for _, d := range s.Devices {
		if d.Name != "" {
			all = append(all, input.Printable(d.Name))
		}
	}
	return all
}
