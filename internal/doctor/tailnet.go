package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

func joined(c *ControlPlane) (Level, string, string) {
	switch {
	case c.Joining != "":
		return Fail, "not on the tailnet yet: " + c.Joining, "see \"While it joins\" in docs/operations.md"
	case c.Node == nil:
		return Warn, "it serves without a tailnet, and every peer may connect", "leave out --listen, but for a trial"
	case c.Node.State != "Running":
		return Fail, "its node is not running: " + c.Node.State, "restart the control plane, and read its log"
	default:
		return Pass, "as " + c.Node.Name, ""
	}
}

// linkRemedy is for a node that lost the coordination server. Its client waits
// n*n*10 ms before its n-th retry, 30 s at most, plus up to half as long by chance:
// https://github.com/tailscale/tailscale/blob/v1.102.5/util/backoff/backoff.go
// A try without any answer takes its time, too.
const linkRemedy = "see whether its host reaches the coordination server; once it does, the node connects by itself, within two minutes"

func coordinated(_ *ControlPlane, n *Node) (Level, string, string) {
	if n.LinkDown {
		return Warn, "its node's link to it is down, so it learns of peers, tags and the policy late", linkRemedy
	}
	return Pass, "its node is in touch with it", ""
}

func ownTag(c *ControlPlane, n *Node) (Level, string, string) {
	var missing []string
	for _, tag := range c.Advertised {
		if !slices.Contains(n.Tags, tag) {
			missing = append(missing, tag)
		}
	}
	switch {
	case len(missing) > 0:
		return Fail, "it asks for " + strings.Join(missing, ", ") + " and has not got it",
			"let tagOwners in the policy name who made its auth key, or make a key with the tag"
	case len(n.Tags) == 0:
		return Warn, "it has no tag, so it belongs to a person and its key expires",
			"join it with a key that is tagged, such as tag:control-plane"
	default:
		return Pass, strings.Join(n.Tags, ", "), ""
	}
}

// How long before its key expires a node is reported.
const (
	keyWarn = 14 * 24 * time.Hour
	keyFail = 48 * time.Hour
)

func nodeKey(c *ControlPlane, n *Node) (Level, string, string) {
	const mend = "disable key expiry for it, which a tag does, or join it anew"
	if n.KeyExpires == nil {
		return Pass, "never expires", ""
	}
	text := "expires " + n.KeyExpires.UTC().Format("2006-01-02 15:04 MST")
	switch left := n.KeyExpires.Sub(c.Now); {
	case left < keyFail:
		return Fail, text, mend
	case left < keyWarn:
		return Warn, text, mend
	default:
		return Pass, text, ""
	}
}

func health(_ *ControlPlane, n *Node) (Level, string, string) {
	if len(n.Health) > 0 {
		return Warn, firstFew(n.Health), "mend what its node complains of"
	}
	return Pass, "its node has no complaints", ""
}

func magicDNS(_ *ControlPlane, n *Node) (Level, string, string) {
	if !n.MagicDNS {
		return Warn, "the tailnet gives no names, so Envoys find the control plane by an IP address only",
			"turn MagicDNS on, or give bootstraps the control plane's address"
	}
	return Pass, "on", ""
}

func netmapCache(_ *ControlPlane, n *Node) (Level, string, string) {
	if !n.NetmapCached {
		return Warn, "a restart while the coordination server is away would wait for it",
			`add {"target": ["*"], "attr": ["cache-network-maps"]} to nodeAttrs in the policy`
	}
	return Pass, "nodes keep their netmap on disk", ""
}

// How far a clock may differ: expiries are times, and drains have ends.
const (
	clockWarn = 2 * time.Second
	clockFail = time.Minute
)

func clock(c *ControlPlane, _ *Node) (Level, string, string) {
	const mend = "keep time on its host by NTP"
	if c.ClockAhead == nil {
		return Warn, "the coordination server could not be asked what time it is", "see whether the control plane's host reaches it"
	}
	off, how := *c.ClockAhead, "ahead of"
	if off < 0 {
		off, how = -off, "behind"
	}
	text := fmt.Sprintf("%s %s the coordination server's", off.Round(100*time.Millisecond), how)
	switch {
	case off > clockFail:
		return Fail, text, mend
	case off > clockWarn:
		return Warn, text, mend
	default:
		return Pass, "agrees with the coordination server's", ""
	}
}

func mayConnect(c *ControlPlane, _ *Node) (Level, string, string) {
	var shut []string
	for _, e := range c.Endpoints {
		allowed := slices.ContainsFunc(c.Sources, func(p netip.Prefix) bool { return p.Contains(e.Address) })
		if !allowed && !e.Connected {
			shut = append(shut, e.Name)
		}
	}
	slices.Sort(shut)
	shut = slices.Compact(shut)
	switch {
	case len(shut) == 0 && len(c.Endpoints) == 0:
		return "", "", ""
	case len(shut) == 0:
		return Pass, fmt.Sprintf("the policy lets them reach port %d", c.Port), ""
	case c.ByCapability:
		return Warn, fmt.Sprintf("whether the policy lets them reach port %d depends on their capabilities: %s", c.Port, firstFew(shut)),
			"run `tailxds doctor --control-plane` on one of them"
	default:
		return Fail, fmt.Sprintf("the policy does not let them reach port %d: %s", c.Port, firstFew(shut)),
			fmt.Sprintf("grant their tags tcp:%d on the control plane's tag: see docs/grants.md", c.Port)
	}
}

// tailnetPrefixes are the addresses of all nodes of a tailnet.
func tailnetPrefixes() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("fd7a:115c:a1e0::/48")}
}

func othersMayNotConnect(c *ControlPlane, _ *Node) (Level, string, string) {
	for _, s := range c.Sources {
		if slices.ContainsFunc(tailnetPrefixes(), func(all netip.Prefix) bool { return s.Bits() <= all.Bits() && s.Contains(all.Addr()) }) {
			return Warn, fmt.Sprintf("the policy lets the whole tailnet reach port %d; who is no endpoint is refused there, and knocks all the same", c.Port),
				fmt.Sprintf("grant tcp:%d on the control plane's tag to the servers' tags only: see docs/grants.md", c.Port)
		}
	}
	return Pass, fmt.Sprintf("the policy closes port %d to the rest of the tailnet", c.Port), ""
}

func directPaths(c *ControlPlane, _ *Node) (Level, string, string) {
	var relayed []string
	for _, e := range c.Endpoints {
		if e.Path != "" && e.Path != Direct {
			relayed = append(relayed, fmt.Sprintf("%s (%s)", e.Name, e.Path))
		}
	}
	slices.Sort(relayed)
	if relayed = slices.Compact(relayed); len(relayed) > 0 {
		return Warn, "a relay is between the control plane and " + firstFew(relayed), relayRemedy
	}
	return Pass, "no relay is in use", ""
}

const relayRemedy = "let UDP through between them, or leave it: a relay costs time, and no requests; `tailscale netcheck` tells more"

// maxNamed is how many items a finding names.
const maxNamed = 4

// firstFew names the first few.
func firstFew(all []string) string {
	if len(all) > maxNamed {
		return strings.Join(all[:maxNamed], "; ") + fmt.Sprintf("; and %d more", len(all)-maxNamed)
	}
	return strings.Join(all, "; ")
}
