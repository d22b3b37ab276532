package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
)

// binder declares flags together with the environment variables that stand in
// for them.
type binder struct {
	flags  *pflag.FlagSet
	from   environment
	secret map[string]bool // flags whose file: value is read when it is used
}

func newBinder(cmd *cobra.Command, env environment) *binder {
	b := &binder{flags: cmd.Flags(), from: env, secret: make(map[string]bool)}
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if err := b.resolve(); err != nil {
			return err
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
	return b
}

// bind gives the flag that was just declared its environment variables: its
// own, and then others that mean the same. The first one that is set counts.
func (b *binder) bind(flag string, also ...string) {
	f := b.flags.Lookup(flag)
	variables := append([]string{variable(flag)}, also...)
	f.Usage = fmt.Sprintf("%s (env %s)", f.Usage, strings.Join(variables, ", then "))
	f.Annotations = map[string][]string{variableAnnotation: variables}
}

// variable is the environment variable of a flag.
func variable(flag string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// setting names a flag and its variable, as errors do.
func setting(flag string) string { return fmt.Sprintf("--%s (%s)", flag, variable(flag)) }

// str, choice, dur, list and secretFlag declare a flag of their type and bind it.
func (b *binder) str(at *string, flag, value, usage string, also ...string) {
	b.flags.StringVar(at, flag, value, usage)
	b.bind(flag, also...)
}

func (b *binder) choice(at *string, flag, value, usage string, of ...string) {
	choiceFlag(b.flags, at, flag, "", value, usage+input.OneOf(of), of...)
	b.bind(flag)
}

func (b *binder) dur(at *time.Duration, flag string, value time.Duration, usage string) {
	b.flags.DurationVar(at, flag, value, usage)
	b.bind(flag)
}

func (b *binder) List(at *[]string, flag, usage string) {
	b.flags.StringSliceVar(at, flag, nil, usage)
	b.bind(flag)
}

func (b *binder) secretFlag(at *provider.Secret, flag, usage string, also ...string) {
	b.flags.Var((*secretValue)(at), flag, usage)
	b.secret[flag] = true
	b.bind(flag, also...)
}

// secretValue lets a secret be a flag whose value is never shown.
type secretValue provider.Secret

func (s *secretValue) String() string     { return "" }
func (s *secretValue) Type() string       { return "secret" }
func (s *secretValue) Set(v string) error { *s = secretValue(v); return nil }

// resolve fills flags that were not given from the environment, and reads
// values of the form file:PATH.
func (b *binder) resolve() error {
	var firstErr error
	b.flags.VisitAll(func(f *pflag.Flag) {
		if firstErr == nil {
			firstErr = b.resolveOne(f)
		}
	})
	return firstErr
}

func (b *binder) resolveOne(f *pflag.Flag) error {
	from, value := "--"+f.Name, f.Value.String()
	if !f.Changed {
		for _, name := range f.Annotations[variableAnnotation] {
			if v := b.from.get(name); v != "" {
				from, value = name, v
				break
			}
		}
		if from == "--"+f.Name {
			return nil // the default
		}
	}
	if b.secret[f.Name] {
		if f.Changed {
			return nil
		}
	} else if path, ok := strings.CutPrefix(value, "file:"); ok {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read the value of %s: %w", from, err)
		}
		value = strings.TrimSpace(string(text))
	} else if f.Changed {
		return nil
	}
	if err := f.Value.Set(value); err != nil {
		return unreadable(from, value, f, err)
	}
	return nil
}

// topologyFlags are the flags that decide what is rendered from devices: the
// rules, the device file and the policy file.
func topologyFlags(b *binder, rules *topology.Rules, devices, policyFile *string) {
	b.str(devices, "devices", "", "device file of the file provider, JSON or YAML; re-read when replaced")
	b.str(policyFile, "config", "", "policy per service, YAML; re-read when replaced")
	b.str(&rules.TagPrefix, "tag-prefix", "", "read only tags that begin so, such as pool- for tag:pool-weight-2")
	b.str(&rules.DefaultService, "default-service", "server", "service of a device that names none")
	b.flags.Uint16Var(&rules.DefaultPort, "default-port", 8080, "port of a device that names none")
	b.bind("default-port")
	b.flags.BoolVar(&rules.PreferIPv6, "prefer-ipv6", false, "connect to a device's IPv6 address where it has both")
	b.bind("prefer-ipv6")
	b.dur(&rules.OfflineGrace, "offline-grace", 15*time.Second, "how long a device that went offline still serves; 0 is not at all")
	b.dur(&rules.DrainWindow, "drain-window", 10*time.Minute, "how long before its key expires a device is drained")
}
