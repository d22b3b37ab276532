package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tailxds/tailxds/internal/provider"
)

// options are the values of all flags of serve.
type options struct {
	Provider, Tailnet, APIURL                             string
	APIToken, ClientID, ClientSecret, AuthKey             provider.Secret
	Devices, Hostname, Listen, ControlURL                 string
	Port, DefaultPort                                     uint16
	StateDir, StateStore, Config                          string
	DefaultService, TagPrefix, Admin, LogLevel, LogFormat string
	PollInterval, OfflineGrace, DrainWindow               time.Duration
	HoldFor                                               time.Duration
	HoldFraction                                          float64
	MaxResponseBytes                                      int64
	PreferIPv6                                            bool
	Allow, AdvertiseTags, AdminHosts, Peers               []string

	// JoinWarning is how often the log says why the tailnet is not joined; 0
	// means half a minute. It has no flag.
	JoinWarning time.Duration
	// TellOthers is how long an operator waits for other control planes to know;
	// 0 means 3 s. It has no flag.
	TellOthers time.Duration
}

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
	choiceFlag(b.flags, at, flag, "", value, usage+oneOf(of), of...)
	b.bind(flag)
}

func (b *binder) dur(at *time.Duration, flag string, value time.Duration, usage string) {
	b.flags.DurationVar(at, flag, value, usage)
	b.bind(flag)
}

func (b *binder) list(at *[]string, flag, usage string) {
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

// serveFlags declares every flag of serve.
func serveFlags(b *binder, o *options) {
	b.choice(&o.Provider, "provider", provider.Auto, "where devices come from: ", provider.Auto, provider.FromNet, provider.Headscale, provider.Tailscale, provider.FromFile)
	b.str(&o.Tailnet, "tailnet", "-", "tailnet of the Tailscale API")
	b.str(&o.APIURL, "api-url", "", "base URL of the Tailscale or headscale API (default Tailscale's)")
	b.secretFlag(&o.APIToken, "api-token", "API key of Tailscale or headscale")
	b.secretFlag(&o.ClientID, "client-id", "OAuth client, instead of a token")
	b.secretFlag(&o.ClientSecret, "client-secret", "its secret; scope devices:core:read")
	b.dur(&o.PollInterval, "poll-interval", 15*time.Second, "longest time between lists; the netmap wakes them sooner")
	b.str(&o.Hostname, "hostname", "tsnet-dynamic-eds", "name on the tailnet")
	b.flags.Uint16Var(&o.Port, "port", 18000, "xDS port, on the tailnet only")
	b.bind("port")
	b.str(&o.Listen, "listen", "", "serve xDS on this host:port and join no tailnet; every peer may connect")
	b.secretFlag(&o.AuthKey, "authkey", "auth key to join the tailnet with", "TS_AUTHKEY")
	b.str(&o.ControlURL, "control-url", "", "coordination server, such as headscale's URL (default Tailscale's)", "TS_CONTROL_URL")
	b.list(&o.AdvertiseTags, "advertise-tags", "tags to ask for when joining the tailnet")
	b.list(&o.Allow, "allow", "tags whose bearers may connect though they are no endpoint")
	b.list(&o.Peers, "peer", "other control planes of this tailnet, to exchange drains and connected Envoys with")
	b.str(&o.StateDir, "state-dir", "", "node key and last good device list (default the XDG state directory)")
	b.str(&o.StateStore, "state-store", "", "where the node key lives if not in the state directory: kube:SECRET")
	b.str(&o.Admin, "admin", defaultAdmin, "address of the admin pages")
	b.list(&o.AdminHosts, "admin-host", "host names under which the admin pages answer, besides localhost and IP addresses")
	b.flags.Float64Var(&o.HoldFraction, "hold-fraction", 0.5, "hold a loss of more than this share of a service's endpoints; 1 holds only what would empty it")
	b.bind("hold-fraction")
	b.dur(&o.HoldFor, "hold-for", time.Minute, "how long such a loss must stand before it is applied; 0 holds only what would empty a service")
	b.flags.Int64Var(&o.MaxResponseBytes, "max-response-bytes", 64<<20, "largest answer of an API that is read")
	b.bind("max-response-bytes")
	b.choice(&o.LogLevel, "log-level", "info", "", "debug", "info", "warn", "error")
	b.choice(&o.LogFormat, "log-format", "text", "", "text", "json")
	topologyFlags(b, o)
}

// topologyFlags are the flags that decide what is rendered from devices.
func topologyFlags(b *binder, o *options) {
	b.str(&o.Devices, "devices", "", "device file of the file provider, JSON or YAML; re-read when replaced")
	b.str(&o.Config, "config", "", "policy per service, YAML; re-read when replaced")
	b.str(&o.TagPrefix, "tag-prefix", "", "read only tags that begin so, such as pool- for tag:pool-weight-2")
	b.str(&o.DefaultService, "default-service", "server", "service of a device that names none")
	b.flags.Uint16Var(&o.DefaultPort, "default-port", 8080, "port of a device that names none")
	b.bind("default-port")
	b.flags.BoolVar(&o.PreferIPv6, "prefer-ipv6", false, "connect to a device's IPv6 address where it has both")
	b.bind("prefer-ipv6")
	b.dur(&o.OfflineGrace, "offline-grace", 15*time.Second, "how long a device that went offline still serves; 0 is not at all")
	b.dur(&o.DrainWindow, "drain-window", 10*time.Minute, "how long before its key expires a device is drained")
}
