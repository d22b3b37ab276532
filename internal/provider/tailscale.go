package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// tailscaleURL returns the base URL of the API, by default Tailscale's own.
func tailscaleURL(cfg Config) string { return cmp.Or(cfg.APIURL, "https://api.tailscale.com") }

// tailscale lists devices by Tailscale's API, v2, which headscale 0.30 serves
// too. The public Go client is not used to fetch: it reads a redirect, an answer
// without "devices" and trailing garbage as an empty list, and does not distinguish
// a device that is offline from one whose state is missing.
type tailscale struct {
	api        *api
	tailnet    string
	attributes *attributes
}

func openTailscale(cfg Config) (Source, error) {
	base := tailscaleURL(cfg)
	auth, err := tailscaleCredential(cfg, base)
	if err != nil {
		return nil, err
	}
	a, err := newAPI(cfg, base, auth)
	if err != nil {
		return nil, err
	}
	return &tailscale{api: a, tailnet: cmp.Or(cfg.Tailnet, "-"), attributes: newAttributes(a, cfg.TagPrefix, cfg.Last)}, nil
}

func tailscaleCredential(cfg Config, base string) (credential, error) {
	switch id, secret := cfg.ClientID.Given(), cfg.ClientSecret.Given(); {
	case id != secret:
		return nil, errors.New("an OAuth client has an ID and a secret: give both --client-id and --client-secret")
	case id:
		return newOAuth(cfg, base)
	case cfg.APIToken.Given():
		return bearer{cfg.APIToken}, nil
	default:
		return nil, errors.New("needs an OAuth client with scope devices:core:read (--client-id, --client-secret) or an API token (--api-token)")
	}
}

// List asks for all devices, in one page as the API has it, and then for the
// posture attributes of some of them.
func (t *tailscale) List(ctx context.Context) ([]topology.Device, error) {
	devices, size := []topology.Device{}, listSize{}
	var seen, addressed bool
	read := func(r io.Reader) error {
		seen, addressed = false, false
		return decodeList(r, "devices", func(d tailscaleDevice) error {
			seen, addressed = true, addressed || d.Addresses.given
			if d.id() == "" {
				return errors.New("unknown shape: a device without an ID")
			}
			// Until an admin approves a device, no other lets it in. The netmap
			// does not show it either.
			if d.Authorized == nil || *d.Authorized {
				devices = append(devices, d.device())
			}
			return size.add(d.device())
		})
	}
	if err := t.api.get(ctx, read, "api/v2/tailnet", t.tailnet, "devices"); err != nil {
		return nil, fmt.Errorf("list devices of Tailscale: %w", err)
	}
	if seen && !addressed { // tags may be left out, but not these
		return nil, errors.New(`list devices of Tailscale: unknown shape: no device has "addresses"; is --api-url the Tailscale API, version 2?`)
	}
	if err := t.attributes.add(ctx, devices, time.Now()); err != nil {
		return nil, fmt.Errorf("read posture attributes of Tailscale: %w", err)
	}
	return devices, nil
}

// tailscaleDevice holds the fields of a device that are used.
type tailscaleDevice struct {
	// NodeID is the stable ID, which the netmap has too; ID is the older one.
	NodeID string         `json:"nodeId"`
	ID     stringOrNumber `json:"id"`
	// Name is the MagicDNS name.
	Name       string        `json:"name"`
	Hostname   string        `json:"hostname"`
	Addresses  optionalTexts `json:"addresses"`
	Tags       []string      `json:"tags"`
	Authorized *bool         `json:"authorized"`
	Connected  *bool         `json:"connectedToControl"`
	// A device without a valid signature, under tailnet lock, is unknown to all
	// others, and one that blocks incoming connections answers none.
	// See https://tailscale.com/kb/1226/tailnet-lock and https://tailscale.com/kb/1072/client-preferences.
	TailnetLockError  string       `json:"tailnetLockError"`
	BlocksIncoming    bool         `json:"blocksIncomingConnections"`
	KeyExpiryDisabled bool         `json:"keyExpiryDisabled"`
	Expires           optionalTime `json:"expires"`
}

func (d tailscaleDevice) id() string { return cmp.Or(d.NodeID, string(d.ID)) }

func (d tailscaleDevice) device() topology.Device {
	device := topology.Device{
		ID:        d.id(),
		Name:      cmp.Or(firstLabel(d.Name), d.Hostname),
		Addresses: hostAddresses(d.Addresses.values),
		Tags:      d.Tags,
		Online:    onlineByDefault(d.Connected),
	}
	switch {
	case d.TailnetLockError != "":
		device.Unreachable = "tailnet lock refuses its key (" + truncate(d.TailnetLockError, 200) + "): sign it by `tailscale lock sign`"
	case d.BlocksIncoming:
		device.Unreachable = "it blocks incoming connections: run `tailscale set --shields-up=false` on it"
	}
	if !d.KeyExpiryDisabled {
		device.Expires = d.Expires.orNever()
	}
	return device
}
