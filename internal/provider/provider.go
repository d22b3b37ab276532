package provider

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/tailxds/tailxds/internal/topology"
)

// Source lists the devices of a tailnet: whole or an error, never a part.
type Source interface {
	List(ctx context.Context) ([]topology.Device, error)
}

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
	// Node is the control plane's own tailnet node; nil if it joins no tailnet. With
	// it, grants are read and changes of the netmap wake.
	Node Node
	// Log is where sources log; nil means the default logger.
	Log *slog.Logger
	// Transport carries the requests to an API; nil means Go's own.
	Transport http.RoundTripper
}

// defaultMaxBytes holds some 40,000 devices of the largest kind.
const defaultMaxBytes = 64 << 20

func (cfg Config) withDefaults() Config {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	return cfg
}

// Open opens the source that cfg names and returns its name, "headscale". It
// sends no request yet.
//
// Auto chooses: Devices given, the file; an API token and a URL that is not
// Tailscale's, headscale; any other token or an OAuth client, Tailscale;
// nothing, the netmap.
//
// On a tailnet, the devices of every source carry their grants, and the source
// has a Watch method by which the [Watcher] is woken.
func Open(cfg Config) (Source, string, error) {
	e, src, err := open(cfg.withDefaults(), cfg.Node != nil)
	if err != nil {
		return nil, "", err
	}
	if !e.needsNode && cfg.Node != nil {
		src = WithGrants(src, cfg.Node)
	}
	return src, e.name, nil
}

// open opens the source alone, without grants.
func open(cfg Config, onTailnet bool) (entry, Source, error) {
	e, err := find(cfg)
	if err != nil {
		return entry{}, nil, err
	}
	var src Source
	if e.needsNode && !onTailnet {
		err = errNeedsNode()
	} else {
		src, err = e.open(cfg)
	}
	if err != nil {
		return entry{}, nil, fmt.Errorf("provider %s: %w", e.name, err)
	}
	return e, src, nil
}

// Check returns what is wrong with cfg, before a tailnet is joined for it: an
// unknown source, a URL or credential that is missing, a secret whose file can't
// be read. onTailnet says that a Node will be given to [Open].
func Check(cfg Config, onTailnet bool) error {
	e, _, err := open(cfg.withDefaults(), onTailnet)
	if err != nil {
		return err
	}
	for _, s := range e.secretsOf(cfg) {
		if _, err := s.Value(); err != nil {
			return fmt.Errorf("provider %s: %w", e.name, err)
		}
	}
	return nil
}

// ReadsFile reports whether devices come from a file.
func (cfg Config) ReadsFile() bool {
	e, err := find(cfg)
	return err == nil && e.name == File
}

// Same reports whether two lists say the same, in the same order.
func Same(a, b []topology.Device) bool { return slices.EqualFunc(a, b, topology.Device.Equal) }
