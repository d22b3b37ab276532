package cli

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tailxds/tailxds/internal/input"
)

// argument is the only argument of a command: "a device". Max is how long it may
// be, in bytes.
type argument struct {
	what     string
	optional bool
	max      int
}

// The longest names, of DNS, and the longest paths, of Linux, in bytes.
const (
	maxName = 253
	maxPath = 4095
)

// Check is a [cobra.PositionalArgs].
func (a argument) Check(cmd *cobra.Command, args []string) error {
	_, noun, _ := strings.Cut(a.what, " ")
	switch {
	case len(args) == 0 && a.optional:
		return nil
	case len(args) == 0:
		return fmt.Errorf("%s needs %s: %s", name(cmd), a.what, call(cmd))
	case len(args) > 1:
		return fmt.Errorf("%s takes one %s, and got %d arguments: %s", name(cmd), noun, len(args), call(cmd))
	case strings.TrimSpace(args[0]) == "" && a.optional:
		return fmt.Errorf("%s got an empty %s: name one, or leave it out: %s", name(cmd), noun, call(cmd))
	case strings.TrimSpace(args[0]) == "":
		return fmt.Errorf("%s got an empty %s: %s", name(cmd), noun, call(cmd))
	case len(args[0]) > a.max:
		return fmt.Errorf("%s got a %s of %d bytes: it must have at most %d", name(cmd), noun, len(args[0]), a.max)
	case !utf8.ValidString(args[0]):
		return fmt.Errorf("%s got the %s %s: it must be UTF-8 text", name(cmd), noun, input.Quoted(args[0]))
	default:
		return nil
	}
}

// noArguments is a [cobra.PositionalArgs] for commands that take none.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%s takes no arguments, and got %s: see `%s --help`", name(cmd), input.Quoted(args[0]), cmd.CommandPath())
}

// name is what a command is called without the program: "completion bash".
func name(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// call is how a command is called: "tailxds drain DEVICE".
func call(cmd *cobra.Command) string { return strings.TrimSuffix(cmd.UseLine(), " [flags]") }

// unknownCommand is the error for a word that is no command below cmd.
func unknownCommand(cmd *cobra.Command, word string) error {
	if near := cmd.SuggestionsFor(word); len(near) > 0 && word != "" {
		return fmt.Errorf("there is no command %s: did you mean %q?", input.Quoted(word), near[0])
	}
	return fmt.Errorf("there is no command %s: see `%s --help`", input.Quoted(word), cmd.CommandPath())
}

// groupOfCommands makes a command that only has commands below it show its help,
// and refuse every other word.
func groupOfCommands(cmd *cobra.Command) {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.SuggestionsMinimumDistance = 2 // cobra sets it too late for us
}

// helpCommand prints the help of a command. Cobra's own ends with 0 where there
// is no such command.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Print the help of a command",
		Example: "  tailxds help drain",
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			switch {
			case err != nil:
				return err
			case len(rest) > 0 && of.HasSubCommands():
				return unknownCommand(of, rest[0])
			case len(rest) > 0:
				return fmt.Errorf("%s has no commands, and got %s: see `%s --help`", name(of), input.Quoted(rest[0]), of.CommandPath())
			}
			of.InitDefaultHelpFlag()
			of.InitDefaultVersionFlag()
			return of.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if of, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				for _, c := range of.Commands() {
					if c.IsAvailableCommand() && strings.HasPrefix(c.Name(), begun) {
						names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// flagError says of a flag that can't be read what would be right.
func flagError(cmd *cobra.Command, err error) error {
	if words := cmd.Flags().Args(); cmd.HasAvailableSubCommands() && len(words) > 0 {
		return unknownCommand(cmd, words[0]) // its flags are not the ones to complain about
	}
	var unknown *pflag.NotExistError
	var valueless *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	var malformed *pflag.InvalidSyntaxError
	switch {
	case errors.As(err, &unknown):
		return unknownFlag(cmd, unknown)
	case errors.As(err, &valueless):
		return fmt.Errorf("--%s needs a value: see `%s --help`", valueless.GetFlag().Name, cmd.CommandPath())
	case errors.As(err, &invalid):
		return unreadable("--"+invalid.GetFlag().Name, invalid.GetValue(), invalid.GetFlag(), errors.Unwrap(invalid))
	case errors.As(err, &malformed):
		return fmt.Errorf("%s is no flag: see `%s --help`", input.Quoted(malformed.GetSpecifiedFlag()), cmd.CommandPath())
	default:
		return err
	}
}

func unknownFlag(cmd *cobra.Command, unknown *pflag.NotExistError) error {
	if short := unknown.GetSpecifiedShortnames(); short != "" {
		return fmt.Errorf("there is no flag -%.1s: see `%s --help`", short, cmd.CommandPath())
	}
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, f.Name)
		}
	})
	name := unknown.GetSpecifiedName()
	if near := input.Nearest(name, known); near != "" {
		return fmt.Errorf("there is no flag --%s: did you mean --%s?", name, near)
	}
	return fmt.Errorf("there is no flag --%s: see `%s --help`", name, cmd.CommandPath())
}

// unreadable says which values the type of a flag has.
func unreadable(from, value string, f *pflag.Flag, cause error) error {
	if c, ok := f.Value.(*choice); ok {
		return c.wrong(from, value)
	}
	switch f.Value.Type() {
	case "uint16":
		return invalidValue(from, value, "a port from 1 to 65535")
	case "int64":
		return invalidValue(from, value, "a whole number")
	case "float64":
		return invalidValue(from, value, "a number, such as 0.5")
	case "duration":
		return invalidValue(from, value, "a duration, such as 15s or 10m")
	case "bool":
		return invalidValue(from, value, "true or false")
	case "stringSlice":
		return invalidValue(from, value, "values with commas between them, and quotes in pairs")
	default:
		return fmt.Errorf("%s: %w", from, cause)
	}
}
