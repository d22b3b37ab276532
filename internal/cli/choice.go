package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tailxds/tailxds/internal/input"
)

// choice is the value of a flag that takes one of a few values, in any case. Any
// other is refused when flags are parsed, before anything is done.
type choice struct {
	at *string
	of []string
}

// choiceFlag declares a flag that takes one of a few values.
func choiceFlag(flags *pflag.FlagSet, at *string, name, shorthand, value, usage string, of ...string) {
	*at = value
	flags.VarP(&choice{at, of}, name, shorthand, usage)
}

// outputFlag declares the flag --output of a command that prints a document; the
// first form is the default.
func outputFlag(flags *pflag.FlagSet, at *string, forms ...string) {
	choiceFlag(flags, at, "output", "o", forms[0], input.OneOf(forms), forms...)
}

func (c *choice) String() string {
	if c.at == nil {
		return "" // pflag asks a zero value
	}
	return *c.at
}

func (c *choice) Type() string { return "string" }

func (c *choice) Set(value string) error {
	for _, o := range c.of {
		if strings.EqualFold(o, value) {
			*c.at = o
			return nil
		}
	}
	return errors.New("must be " + input.OneOf(c.of))
}

// wrong says of a value from a flag or a variable which ones there are.
func (c *choice) wrong(from, value string) error {
	err := invalidValue(from, value, input.OneOf(c.of))
	if near := input.DidYouMean(value, c.of); near != "" {
		return fmt.Errorf("%w: %s", err, near)
	}
	return err
}
