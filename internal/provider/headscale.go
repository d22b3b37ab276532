package provider

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// headscale lists nodes by headscale's own REST API, v1. Its API keys have no
// scopes: each one allows everything.
type headscale struct{ api *api }

// headscaleURL returns the base URL of the API, by default the coordination server's.
func headscaleURL(cfg Config) string { return cmp.Or(cfg.APIURL, cfg.ControlURL) }

func openHeadscale(cfg Config) (Source, error) {
	if !cfg.APIToken.Given() {
		return nil, errors.New("needs an API key: make one by `headscale apikeys create` and give it by --api-token")
	}
	a, err := newAPI(cfg, headscaleURL(cfg), bearer{cfg.APIToken})
	if err != nil {
		return nil, err
	}
	return headscale{a}, nil
}

// List asks for all nodes. The answer has one page.
func (h headscale) List(ctx context.Context) ([]topology.Device, error) {
	devices, size := []topology.Device{}, listSize{}
	var seen, addressed, tagged bool
	read := func(r io.Reader) error {
		seen, addressed, tagged = false, false, false
		return decodeList(r, "nodes", func(n headscaleNode) error {
			seen, addressed, tagged = true, addressed || n.IPAddresses.given, tagged || n.tagged()
			d, err := n.device()
			devices = append(devices, d)
			return errors.Join(err, size.add(d))
		})
	}
	if err := h.api.get(ctx, read, "api/v1/node"); err != nil {
		return nil, fmt.Errorf("list nodes of headscale: %w", err)
	}
	// A field that another version calls otherwise must not be taken for a pool
	// without servers.
	switch {
	case seen && !addressed:
		return nil, errors.New(`list nodes of headscale: unknown shape: no node has "ipAddresses"; this tailxds reads the API of headscale 0.23 to 0.29`)
	case seen && !tagged:
		return nil, errors.New(`list nodes of headscale: unknown shape: no node has "tags", nor "forcedTags" and "validTags" as before headscale 0.28; this tailxds reads the API of headscale 0.23 to 0.29`)
	}
	return devices, nil
}

// headscaleNode holds the fields of a node that are used.
type headscaleNode struct {
	ID          stringOrNumber `json:"id"`
	GivenName   string         `json:"givenName"`
	Name        string         `json:"name"`
	IPAddresses optionalTexts  `json:"ipAddresses"`
	Tags        optionalTexts  `json:"tags"`
	// ForcedTags are those that an admin set, and ValidTags those that the node
	// asked for and may have: headscale before 0.28 has them in place of Tags.
	ForcedTags optionalTexts `json:"forcedTags"`
	ValidTags  optionalTexts `json:"validTags"`
	Online     *bool         `json:"online"`
	Expiry     optionalTime  `json:"expiry"`
}

func (n headscaleNode) tagged() bool {
	return n.Tags.given || n.ForcedTags.given || n.ValidTags.given
}

// tags are the tags that count, by any version of headscale.
func (n headscaleNode) tags() []string {
	if n.Tags.given || !n.tagged() {
		return n.Tags.values
	}
	all := slices.Concat(n.ForcedTags.values, n.ValidTags.values)
	slices.Sort(all)
	return slices.Compact(all)
}

func (n headscaleNode) device() (topology.Device, error) {
	if n.ID == "" {
		return topology.Device{}, errors.New("unknown shape: a node without an ID")
	}
	return topology.Device{
		ID:        string(n.ID),
		Name:      cmp.Or(n.GivenName, n.Name),
		Addresses: hostAddresses(n.IPAddresses.values),
		Tags:      n.tags(),
		Online:    onlineByDefault(n.Online),
		Expires:   n.Expiry.orNever(),
	}, nil
}

// onlineByDefault counts a device as online where the API does not say. A
// wrong guess costs a failed health check; the other guess costs an endpoint.
func onlineByDefault(online *bool) bool { return online == nil || *online }

// stringOrNumber is an ID that is written as a JSON string or as a number.
type stringOrNumber string

// UnmarshalJSON reads the text of either.
func (id *stringOrNumber) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(id))
	}
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("an ID that is neither text nor number: %w", err)
	}
	*id = stringOrNumber(n)
	return nil
}

// optionalTexts are texts, and whether the field is there at all.
type optionalTexts struct {
	values []string
	given  bool
}

// UnmarshalJSON reads a list or null.
func (t *optionalTexts) UnmarshalJSON(b []byte) error {
	t.given = true
	return json.Unmarshal(b, &t.values) //nolint:wrapcheck // decodeList says of which element
}

// optionalTime is a time that may be null, empty or the zero time; all of them
// mean never.
type optionalTime struct{ time.Time }

// UnmarshalJSON reads a time, or leaves it zero.
func (t *optionalTime) UnmarshalJSON(b []byte) error {
	if s := string(b); s == "null" || s == `""` {
		return nil
	}
	if err := json.Unmarshal(b, &t.Time); err != nil {
		return fmt.Errorf("a time that is not RFC 3339: %w", err)
	}
	return nil
}

func (t optionalTime) orNever() *time.Time {
	at := t.UTC()
	// Tailscale writes 0001-01-01 for a key that never expires; and JSON can't
	// write what lies beyond 9999.
	if at.Year() <= 1 || at.Year() > 9999 {
		return nil
	}
	return &at
}

// firstLabel is the host name in a MagicDNS name.
func firstLabel(name string) string {
	label, _, _ := strings.Cut(name, ".")
	return label
}
