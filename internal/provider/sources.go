package provider

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The names of the sources, as [Config] and [Open] give them. Auto chooses one.
const (
	Auto      = "auto"
	Netmap    = "netmap"
	Headscale = "headscale"
	Tailscale = "tailscale"
	File      = "file"
)

// entry is what there is to know of a source.
type entry struct {
	name string
	// open opens it, and says what it needs if that is missing.
	open func(Config) (Source, error)
	// needsNode says that it only exists on a tailnet.
	needsNode bool
	// fits reports whether Auto chooses it for what is given, unless one below does.
	fits func(Config) bool
	// api is the URL of the API that it sends its secrets to, and secrets are those.
	// Both may be nil.
	api     func(Config) string
	secrets func(Config) []Secret
	// spacing is the shortest time between lists that it can bear; see [Options].
	spacing time.Duration
}

// entries has one row a source. To add one, add its name and its row: Auto, the
// choices of --provider, what the errors say and the pace of lists follow from it.
func entries() []entry {
	return []entry{
		{
			name: Netmap, needsNode: true, spacing: 100 * time.Millisecond,
			open: func(cfg Config) (Source, error) { return cfg.Node, nil },
			fits: func(Config) bool { return true },
		},
		{
			name: Headscale, open: openHeadscale,
			spacing: 500 * time.Millisecond, // the check of an API key costs it 80 ms
			fits:    func(cfg Config) bool { return cfg.APIToken.Given() },
			api:     headscaleURL,
			secrets: func(cfg Config) []Secret { return []Secret{cfg.APIToken} },
		},
		{
			name: Tailscale, open: openTailscale,
			spacing: 2 * time.Second, // its limits are not published
			fits: func(cfg Config) bool {
				return cfg.ClientID.Given() || cfg.ClientSecret.Given() || (cfg.APIToken.Given() && !ownServer(cfg))
			},
			api: tailscaleURL,
			secrets: func(cfg Config) []Secret {
				if cfg.ClientID.Given() {
					return []Secret{cfg.ClientID, cfg.ClientSecret}
				}
				return []Secret{cfg.APIToken}
			},
		},
		{
			name: File, open: openFile, spacing: 100 * time.Millisecond,
			fits: func(cfg Config) bool { return cfg.Devices != "" },
		},
	}
}

// Names returns what [Config.Provider] can be, Auto first.
func Names() []string {
	names := []string{Auto}
	for _, e := range entries() {
		names = append(names, e.name)
	}
	return names
}

// find returns the source that cfg names, or that Auto chooses.
func find(cfg Config) (entry, error) {
	all := entries()
	if cfg.Provider == Auto || cfg.Provider == "" {
		for _, e := range slices.Backward(all) {
			if e.fits(cfg) {
				return e, nil
			}
		}
	}
	at := slices.IndexFunc(all, func(e entry) bool { return e.name == cfg.Provider })
	if at < 0 {
		return entry{}, fmt.Errorf("unknown provider %q: choose %s", cfg.Provider, oneOf(Names()))
	}
	return all[at], nil
}

// errNeedsNode is the error of a source that only exists on a tailnet.
func errNeedsNode() error {
	var others []string
	for _, e := range entries() {
		if !e.needsNode {
			others = append(others, e.name)
		}
	}
	return errors.New("needs a tailnet to read devices from: give an auth key, or choose --provider " + oneOf(others))
}

// oneOf lists words: "a, b or c".
func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// secretsOf returns the secrets that a source sends.
func (e entry) secretsOf(cfg Config) []Secret {
	if e.secrets == nil {
		return nil
	}
	return e.secrets(cfg)
}

// PlainHTTP returns the API that is sent a credential unencrypted, "http://host";
// empty if none is. An API on this machine does not count.
func PlainHTTP(cfg Config) string {
	e, err := find(cfg)
	if err != nil || e.api == nil || e.secrets == nil {
		return ""
	}
	u, err := url.Parse(e.api(cfg))
	if err != nil || u.Scheme != "http" {
		return ""
	}
	host := strings.ToLower(u.Hostname())
	if a, err := netip.ParseAddr(host); host == "localhost" || strings.HasSuffix(host, ".localhost") || (err == nil && a.Unmap().IsLoopback()) {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// ownServer reports whether the API is the user's own, so not Tailscale's. Only
// the first of the two URLs that is given counts.
func ownServer(cfg Config) bool {
	raw := cmp.Or(cfg.APIURL, cfg.ControlURL)
	if raw == "" {
		return false
	}
	u, err := url.Parse(raw)
	if err != nil {
		return true
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	return host != "tailscale.com" && !strings.HasSuffix(host, ".tailscale.com")
}
