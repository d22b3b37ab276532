package controlplane

import (
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/topology"
)

// Config says how a control plane works. The flags of `tailxds serve` fill it,
// with their defaults and after checks of each value; [Config.Listen] and
// [Config.Admin] may end in port 0.
type Config struct {
	// Provider is where devices come from, one of the constants of package
	// provider. Tailnet, APIURL, APIToken, ClientID and ClientSecret are for its
	// API, and Devices is the path of its device file.
	Provider, Tailnet, APIURL        string
	APIToken, ClientID, ClientSecret provider.Secret
	Devices                          string
	// PollInterval is the longest time between two lists of devices.
	PollInterval time.Duration
	// MaxResponseBytes bounds what is read of an API's answer.
	MaxResponseBytes int64

	// Listen is the host:port to serve xDS on without a tailnet; if it is empty,
	// the control plane joins the tailnet of ControlURL (Tailscale's if empty) as
	// Hostname, by AuthKey and with AdvertiseTags, and serves xDS there on Port.
	Listen               string
	Hostname, ControlURL string
	AuthKey              provider.Secret
	AdvertiseTags        []string
	Port                 uint16
	// Allow are tags whose devices may connect although they are no endpoint.
	Allow []string
	// Peers are the other control planes of the tailnet, host or host:port. This
	// one may be among them.
	Peers []string

	// StateDir holds the node key and the saved state; empty is the XDG state
	// directory. StateStore is where they live instead: kube:SECRET.
	StateDir, StateStore string
	// Admin is the host:port of the admin API, and AdminHosts the host names under
	// which it answers besides localhost and IP addresses.
	Admin      string
	AdminHosts []string

	// PolicyFile is the path of the policy file; empty means the defaults.
	PolicyFile string
	// Rules say what devices mean. Now, LastGood and Drains are filled in.
	Rules topology.Rules
	// HoldFraction is the largest share of a service's endpoints that may vanish
	// at once; more is held for HoldFor.
	HoldFraction float64
	HoldFor      time.Duration

	// JoinWarning is how often the log says why the tailnet is not joined; 0
	// means half a minute.
	JoinWarning time.Duration
	// PeerTimeout is how long a drain waits for other control planes to know of
	// it; 0 means 3 s.
	PeerTimeout time.Duration
}

// rules are the rules that hold at a moment.
func (c Config) rules(now time.Time) topology.Rules {
	r := c.Rules
	r.Now = now
	return r
}

// providerConfig is what the device source needs.
func (c Config) providerConfig(log *slog.Logger) provider.Config {
	return provider.Config{
		Provider: c.Provider, Tailnet: c.Tailnet, APIURL: c.APIURL, ControlURL: c.ControlURL,
		APIToken: c.APIToken, ClientID: c.ClientID, ClientSecret: c.ClientSecret,
		Devices: c.Devices, TagPrefix: c.Rules.TagPrefix, MaxBytes: c.MaxResponseBytes, Log: log,
	}
}

// others are the control planes to exchange drains with: all peers but this one, so that all can be given the same names.
func (c Config) others() []string {
	return slices.DeleteFunc(slices.Clone(c.Peers), func(name string) bool {
		host, _, err := net.SplitHostPort(name)
		if err != nil {
			host = name
		}
		first, _, _ := strings.Cut(host, ".")
		return strings.EqualFold(first, c.Hostname)
	})
}
