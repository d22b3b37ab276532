package netmap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"tailscale.com/client/local"
	"tailscale.com/tailcfg"
	"tailscale.com/wgengine/filter"

	"github.com/tailxds/tailxds/internal/topology"
)

// maxLookUps bounds the WhoIs questions that are under way at the same time.
const maxLookUps = 4

// grants reads what the policy grants to devices, by WhoIs. A WhoIs is a round
// trip, so a device is looked up only when the rules that name it changed: the
// rules are read once a policy, and matched here.
type grants struct {
	local   *local.Client
	rules   []rule
	version uint64 // of the policy that the rules are of; 0 is none
	known   map[string]grant
}

// rule is a line of the node's packet filter that grants our capability.
type rule struct {
	matches func(netip.Addr) bool
	values  []json.RawMessage
}

// grant is what a device was granted at its last look-up.
type grant struct {
	expected string // fingerprint of what the rules granted then
	values   []json.RawMessage
}

func newGrants(lc *local.Client) *grants { return &grants{local: lc, known: map[string]grant{}} }

// addTo sets the grants of the devices. version tells one policy from the next;
// 0 means that it is not known, and that the rules must be read again.
func (g *grants) addTo(ctx context.Context, devices []topology.Device, self []netip.Addr, version uint64) error {
	if version == 0 || version != g.version {
		current, err := currentFilter(ctx, g.local)
		if err != nil {
			return err
		}
		g.rules, g.version = grantingRules(current.PacketFilterRules, self), version
	}
	known := make(map[string]grant)
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxLookUps)
	for i := range devices {
		d := &devices[i]
		addresses := parseAddresses(d.Addresses)
		expected := g.expected(addresses)
		if expected == "" {
			continue
		}
		if last, ok := g.known[d.ID]; ok && last.expected == expected {
			mu.Lock()
			d.Grants, known[d.ID] = last.values, last
			mu.Unlock()
			continue
		}
		group.Go(func() error {
			values, err := g.whoIs(ctx, addresses[0])
			if errors.Is(err, local.ErrPeerNotFound) {
				// The policy does not show it to us, or not just now.
				values, err = g.known[d.ID].values, nil
			}
			if err != nil {
				return fmt.Errorf("WhoIs %s: %w", addresses[0], err)
			}
			mu.Lock()
			defer mu.Unlock()
			d.Grants = values
			// Remembered only if the node agrees with its own rules. It may be
			// about to apply them, or the device is not a peer yet; then the next
			// list asks again.
			if fingerprint(values) == expected {
				known[d.ID] = grant{expected, values}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err // it says what failed
	}
	g.known = known
	return nil
}

// grantingRules returns the rules that grant our capability on the node's own
// addresses.
func grantingRules(all []tailcfg.FilterRule, self []netip.Addr) []rule {
	// An error is about rules that the node left out as well.
	matches, _ := filter.MatchesFromFilterRules(all)
	var rules []rule
	for _, m := range matches {
		r := rule{matches: m.SrcsContains}
		for _, c := range m.Caps {
			if c.Cap == topology.Capability && slices.ContainsFunc(self, c.Dst.Contains) {
				r.values = append(r.values, compacted(c.Values)...)
			}
		}
		if len(r.values) > 0 {
			rules = append(rules, r)
		}
	}
	return rules
}

// expected returns the fingerprint of what the rules grant a device; empty if no
// rule names it.
func (g *grants) expected(addresses []netip.Addr) string {
	var values []json.RawMessage
	for _, r := range g.rules {
		if slices.ContainsFunc(addresses, r.matches) {
			values = append(values, r.values...)
		}
	}
	return fingerprint(values)
}

// fingerprint is equal for equal values in any order. A value given twice
// counts once: a rule holds one for each of the node's own addresses.
func fingerprint(values []json.RawMessage) string {
	lines := make([]string, 0, len(values))
	for _, v := range values {
		lines = append(lines, string(v))
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n")
}

// whoIs asks the node what the policy grants to the device at address. The caller
// says what failed.
func (g *grants) whoIs(ctx context.Context, address netip.Addr) ([]json.RawMessage, error) {
	who, err := g.local.WhoIs(ctx, address.String())
	if err != nil {
		return nil, err
	}
	return compacted(who.CapMap[topology.Capability]), nil
}

// compacted returns the values without needless space: the node adds some.
func compacted(values []tailcfg.RawMessage) []json.RawMessage {
	var out []json.RawMessage
	for _, v := range values {
		var b bytes.Buffer
		if json.Compact(&b, []byte(v)) != nil {
			b.Reset()
			b.WriteString(string(v)) // not JSON: the topology reports it
		}
		out = append(out, b.Bytes())
	}
	return out
}
