// Package cli is the command line of tailxds: one file a command.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/version"
)

// exitError is an error that ends the process with an exit status of its own. Without
// a cause nothing is said: the command said it all.
type exitError struct {
	Code  int
	cause error
}

func (e exitError) Error() string {
	if e.cause == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.cause.Error()
}

func (e exitError) Unwrap() error { return e.cause }

// exitStatus says what went wrong, and with which status the process ends.
func exitStatus(to io.Writer, err error) int {
	if err == nil {
		return 0
	}
	e := exitError{1, err}
	errors.As(err, &e)
	if e.cause != nil {
		for _, one := range joinedErrors(err) {
			fmt.Fprintln(to, "tailxds:", input.Printable(one.Error()))
		}
	}
	return e.Code
}

// joinedErrors are the errors that [errors.Join] made one, so that each gets a
// line; any other error is the only one.
func joinedErrors(err error) []error {
	var e exitError
	if errors.As(err, &e) && e.cause != nil && e.cause.Error() == err.Error() {
		err = e.cause
	}
	several, ok := err.(interface{ Unwrap() []error })
	if !ok || err.Error() != errors.Join(several.Unwrap()...).Error() {
		return []error{err}
	}
	var all []error
	for _, one := range several.Unwrap() {
		all = append(all, joinedErrors(one)...)
	}
	return all
}

// Run runs the command that the arguments name until it ends or ctx does, and
// returns the status to exit with. Errors are printed to stderr.
func Run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand(environ) //nolint:contextcheck // commands take the context of their execution
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return exitStatus(stderr, root.ExecuteContext(ctx))
}

// rootCommand holds all commands.
func rootCommand(env environment) *cobra.Command {
	root := &cobra.Command{
		Use:           "tailxds",
		Short:         "Serve the devices of a tailnet to Envoys as one weighted, self-healing pool",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.Current().Version,
	}
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(usage)
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run"}, &cobra.Group{ID: groupInspect, Title: "Look"},
		&cobra.Group{ID: groupOperate, Title: "Act"}, &cobra.Group{ID: groupWrite, Title: "Write and check"},
	)
	root.AddCommand(grouped(groupRun, serveCommand(env), healthcheckCommand(env), drainAtStopCommand())...)
	root.AddCommand(grouped(groupInspect, statusCommand(env), topCommand(env), explainCommand(env), doctorCommand(env))...)
	root.AddCommand(grouped(groupOperate, acceptCommand(env), drainCommand(env), restoreCommand(env))...)
	root.AddCommand(grouped(groupWrite, bootstrapCommand(), checkCommand(), diffCommand(env), schemaCommand(), renderCommand(env))...)
	root.AddCommand(versionCommand(), documentsCommand())
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	groupOfCommands(root)
	for _, c := range root.Commands() {
		if c.HasSubCommands() {
			groupOfCommands(c)
			for _, sub := range c.Commands() {
				sub.Args = noArguments
			}
		}
	}
	completeValues(root, env)
	return root
}
