package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"tailscale.com/client/local"

	"github.com/tailxds/tailxds/internal/topology"
)

// Source lists the devices of a tailnet: whole or an error, never a part.
type Source interface {
	List(ctx context.Context) ([]topology.Device, error)
}

// The names of the sources, as Config.Provider and [Open] say them.
const (
	Auto      = "auto"
	FromNet   = "netmap"
	Headscale = "headscale"
	Tailscale = "tailscale"
	FromFile  = "file"
)

// Config says which source to open and how to reach it.
type Config struct {
	// Provider is the name of a source, or Auto (or empty) to choose by what
	// else is given: see [Open].
	Provider string
	// Tailnet is the tailnet's name in the Tailscale API; empty means "-", the
	// one that the credential belongs to.
	Tailnet string
	// APIURL is the base URL of the Tailscale or headscale API; empty means
	// Tailscale's, and for headscale the ControlURL.
	APIURL string
	// APIToken is an API key of either. ClientID and ClientSecret are an OAuth
	// client of the Tailscale API instead.
	APIToken, ClientID, ClientSecret Secret
	// ControlURL is the coordination server that the control plane joins.
	ControlURL string
	// Devices is the file of the file source.
	Devices string
	// TagPrefix begins the tags that describe endpoints: see [topology.Rules].
	TagPrefix string
	// Last are the devices of the last list that an earlier process had from this
	// provider. Their attributes count until they can be read again.
	Last []topology.Device
	// MaxBytes is the size of the largest answer that is read; 0 means 64 MiB.
	MaxBytes int64
	// Local is the local API of the control plane's own tailnet node; nil if
	// it joins no tailnet. With it, grants are read and netmap events wake.
	Local *local.Client
	// Log is where sources say what they meet; nil means the default logger.
	Log *slog.Logger
	// Transport carries the requests to an API; nil means Go's own.
	Transport http.RoundTripper
}

// defaultMaxBytes holds some 40,000 devices of the largest kind.
const defaultMaxBytes = 64 << 20

// errNeedsTailnet is for what only a control plane on a tailnet can do.
var errNeedsTailnet = errors.New("needs a tailnet to read devices from: give an auth key, or choose --provider file, headscale or tailscale")

// Check tells what is wrong with cfg, before a tailnet is joined for it: an
// unknown source, a URL or credential that is missing, a secret whose file can't
// be read. onTailnet says that Local will be given to [Open].
func Check(cfg Config, onTailnet bool) error {
	if onTailnet && cfg.Local == nil {
		cfg.Local = &local.Client{} // sources only keep it when they are opened
	}
	_, name, err := Open(cfg)
	if err != nil {
		return err
	}
	for _, s := range secrets(cfg, name) {
		if _, err := s.Value(); err != nil {
			return fmt.Errorf("provider %s: %w", name, err)
		}
	}
	return nil
}

// ReadsFile tells whether devices come from a file.
func (cfg Config) ReadsFile() bool { return choose(cfg) == FromFile }

// secrets are those that a source uses.
func secrets(cfg Config, name string) []Secret {
	switch {
	case name == Tailscale && cfg.ClientID.Given():
		return []Secret{cfg.ClientID, cfg.ClientSecret}
	case name == Tailscale || name == Headscale:
		return []Secret{cfg.APIToken}
	default:
		return nil
	}
}

// Open opens the source that cfg names and returns its name, "headscale". It
// asks nobody yet.
//
// Auto chooses: Devices given, the file; an API token and a URL that is not
// Tailscale's, headscale; any other token or an OAuth client, Tailscale;
// nothing, the netmap.
//
// On a tailnet, the devices of every source carry their grants, and the source
// has a Watch method by which the [Watcher] is woken.
func Open(cfg Config) (Source, string, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	name := choose(cfg)
	open, known := sources()[name]
	if !known {
		return nil, "", fmt.Errorf("unknown provider %q: choose auto, netmap, headscale, tailscale or file", name)
	}
	src, err := open(cfg)
	if err != nil {
		return nil, "", fmt.Errorf("provider %s: %w", name, err)
	}
	if name != FromNet && cfg.Local != nil {
		src = withGrants(src, newNetmap(cfg.Local, cfg.Log))
	}
	return src, name, nil
}

// PlainHTTP says which API is sent a credential unencrypted, "http://host", or
// is empty. An API on this machine is not meant.
func PlainHTTP(cfg Config) string {
	var raw string
	switch name := choose(cfg); {
	case len(secrets(cfg, name)) == 0:
		return ""
	case name == Tailscale:
		raw = cmp.Or(cfg.APIURL, tailscaleURL)
	default:
		raw = cmp.Or(cfg.APIURL, cfg.ControlURL)
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" {
		return ""
	}
	host := strings.ToLower(u.Hostname())
	if a, err := netip.ParseAddr(host); host == "localhost" || strings.HasSuffix(host, ".localhost") || (err == nil && a.Unmap().IsLoopback()) {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// sources has one row a source. To add one, add a row.
func sources() map[string]func(Config) (Source, error) {
	return map[string]func(Config) (Source, error){
		FromNet:   openNetmap,
		Headscale: openHeadscale,
		Tailscale: openTailscale,
		FromFile:  openFile,
	}
}

// choose is the name of the source, with Auto replaced by what fits.
func choose(cfg Config) string {
	switch {
	case cfg.Provider != Auto && cfg.Provider != "":
		return cfg.Provider
	case cfg.Devices != "":
		return FromFile
	case cfg.ClientID.Given() || cfg.ClientSecret.Given():
		return Tailscale
	case cfg.APIToken.Given() && ownServer(cfg):
		return Headscale
	case cfg.APIToken.Given():
		return Tailscale
	default:
		return FromNet
	}
}

// ownServer tells whether the API is somebody's own, so not Tailscale's. Only
// the first of the two URLs that is given counts.
func ownServer(cfg Config) bool {
	for _, raw := range []string{cfg.APIURL, cfg.ControlURL} {
		if raw == "" {
			continue
		}
		u, err := url.Parse(raw)
		return err != nil || !isTailscales(u.Hostname())
	}
	return false
}

func isTailscales(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "tailscale.com" || strings.HasSuffix(host, ".tailscale.com")
}
