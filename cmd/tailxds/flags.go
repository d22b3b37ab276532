package main

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
	Provider, Tailnet, APIURL                  string
	APIToken, ClientID, ClientSecret, AuthKey  provider.Secret
	Devices, Hostname, Listen, ControlURL      string
	Port, DefaultPort                          uint16
	StateDir, StateStore, Config               string
	DefaultService, Admin, LogLevel, LogFormat string
	PollInterval, OfflineGrace, DrainWindow    time.Duration
	HoldFor                                    time.Duration
	HoldFraction                               float64
	MaxResponseBytes                           int64
	PreferIPv6                                 bool
	Allow, AdvertiseTags                       []string
}

// binder declares flags together with the environment variables that stand in
// for them.
type binder struct {
	flags  *pflag.FlagSet
	getenv func(string) string
	env    map[string][]string // by flag
	secret map[string]bool     // flags whose file: value is read when it is used
}

func newBinder(cmd *cobra.Command, getenv func(string) string) *binder {
	b := &binder{flags: cmd.Flags(), getenv: getenv, env: make(map[string][]string), secret: make(map[string]bool)}
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

// bind adds the environment variables of a flag that was just declared. The
// first one that is set counts.
func (b *binder) bind(flag string, env ...string) {
	b.env[flag] = env
	f := b.flags.Lookup(flag)
	f.Usage = fmt.Sprintf("%s (env %s)", f.Usage, strings.Join(env, ", then "))
}

// str, dur and secretFlag declare a flag of their type and bind it.
func (b *binder) str(at *string, flag, value, usage string, env ...string) {
	b.flags.StringVar(at, flag, value, usage)
	b.bind(flag, env...)
}

func (b *binder) dur(at *time.Duration, flag string, value time.Duration, usage string, env ...string) {
	b.flags.DurationVar(at, flag, value, usage)
	b.bind(flag, env...)
}

func (b *binder) secretFlag(at *provider.Secret, flag, usage string, env ...string) {
	b.flags.Var((*secretValue)(at), flag, usage)
	b.secret[flag] = true
	b.bind(flag, env...)
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
		for _, name := range b.env[f.Name] {
			if v := b.getenv(name); v != "" {
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
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

// serveFlags declares every flag of serve.
func serveFlags(b *binder, o *options) {
	b.str(&o.Provider, "provider", "auto", "where devices come from: auto, netmap, headscale, tailscale or file", "TS_ENVOY_PROVIDER")
	b.str(&o.Tailnet, "tailnet", "-", "tailnet of the Tailscale API", "TS_ENVOY_TAILNET")
	b.str(&o.APIURL, "api-url", "", "base URL of the Tailscale or headscale API (default Tailscale's)", "TS_ENVOY_API_URL")
	b.secretFlag(&o.APIToken, "api-token", "API key of either", "TS_ENVOY_API_TOKEN")
	b.secretFlag(&o.ClientID, "client-id", "OAuth client, instead of a token", "TS_ENVOY_CLIENT_ID")
	b.secretFlag(&o.ClientSecret, "client-secret", "its secret; scope devices:core:read", "TS_ENVOY_CLIENT_SECRET")
	b.dur(&o.PollInterval, "poll-interval", 15*time.Second, "longest time between lists; the netmap wakes them sooner", "TS_ENVOY_POLL_INTERVAL")
	b.str(&o.Hostname, "hostname", "tsnet-dynamic-eds", "name on the tailnet", "TS_ENVOY_HOSTNAME")
	b.flags.Uint16Var(&o.Port, "port", 18000, "xDS port, on the tailnet only")
	b.bind("port", "TS_ENVOY_PORT")
	b.str(&o.Listen, "listen", "", "serve xDS on this host:port and join no tailnet; every peer may connect", "TS_ENVOY_LISTEN")
	b.secretFlag(&o.AuthKey, "authkey", "auth key to join the tailnet with", "TS_ENVOY_AUTHKEY", "TS_AUTHKEY")
	b.str(&o.ControlURL, "control-url", "", "coordination server, such as headscale's URL (default Tailscale's)", "TS_ENVOY_CONTROL_URL", "TS_CONTROL_URL")
	b.flags.StringSliceVar(&o.AdvertiseTags, "advertise-tags", nil, "tags to ask for when joining the tailnet")
	b.bind("advertise-tags", "TS_ENVOY_ADVERTISE_TAGS")
	b.flags.StringSliceVar(&o.Allow, "allow", nil, "tags whose bearers may connect though they are no endpoint")
	b.bind("allow", "TS_ENVOY_ALLOW")
	b.str(&o.StateDir, "state-dir", "", "node key and last good device list (default the XDG state directory)", "TS_ENVOY_STATE_DIR")
	b.str(&o.StateStore, "state-store", "", "where the node key lives if not in the state directory: kube:SECRET", "TS_ENVOY_STATE_STORE")
	b.str(&o.Admin, "admin", defaultAdmin, "address of the admin pages", "TS_ENVOY_ADMIN")
	b.flags.Float64Var(&o.HoldFraction, "hold-fraction", 0.5, "hold a list that lacks more than this share of the serving devices")
	b.bind("hold-fraction", "TS_ENVOY_HOLD_FRACTION")
	b.dur(&o.HoldFor, "hold-for", time.Minute, "how long such a list must stand before it is applied", "TS_ENVOY_HOLD_FOR")
	b.flags.Int64Var(&o.MaxResponseBytes, "max-response-bytes", 64<<20, "largest answer of an API that is read")
	b.bind("max-response-bytes", "TS_ENVOY_MAX_RESPONSE_BYTES")
	b.str(&o.LogLevel, "log-level", "info", "debug, info, warn or error", "TS_ENVOY_LOG_LEVEL")
	b.str(&o.LogFormat, "log-format", "text", "text or json", "TS_ENVOY_LOG_FORMAT")
	topologyFlags(b, o)
}

// topologyFlags are the flags that decide what is rendered from devices.
func topologyFlags(b *binder, o *options) {
	b.str(&o.Devices, "devices", "", "device file of the file provider, JSON or YAML; re-read when replaced", "TS_ENVOY_DEVICES")
	b.str(&o.Config, "config", "", "policy per service, YAML; re-read when replaced", "TS_ENVOY_CONFIG")
	b.str(&o.DefaultService, "default-service", "server", "service of a device that names none", "TS_ENVOY_DEFAULT_SERVICE")
	b.flags.Uint16Var(&o.DefaultPort, "default-port", 8080, "port of a device that names none")
	b.bind("default-port", "TS_ENVOY_DEFAULT_PORT")
	b.flags.BoolVar(&o.PreferIPv6, "prefer-ipv6", false, "connect to a device's IPv6 address where it has both")
	b.bind("prefer-ipv6", "TS_ENVOY_PREFER_IPV6")
	b.dur(&o.OfflineGrace, "offline-grace", 15*time.Second, "how long a device that went offline still serves", "TS_ENVOY_OFFLINE_GRACE")
	b.dur(&o.DrainWindow, "drain-window", 10*time.Minute, "how long before its key expires a device is drained", "TS_ENVOY_DRAIN_WINDOW")
}
