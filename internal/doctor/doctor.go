// Package doctor finds faults of a pool: of its tailnet, policy, control plane, and
// a host that wants to join.
//
// It is pure. [Facts] go in; [Finding]s come out, each with one remedy.
package doctor

import (
	"net/netip"
	"time"
)

// Level is the severity of a finding.
type Level string

// The levels. Fail costs requests, now or soon; Warn costs them once something else
// fails.
const (
	Pass Level = "PASS"
	Warn Level = "WARN"
	Fail Level = "FAIL"
)

// Finding is the result of one check.
type Finding struct {
	Category string `json:"category"`
	Check    string `json:"check"`
	Level    Level  `json:"level"`
	// Text is what was found.
	Text string `json:"text"`
	// Remedy is what to do about it; empty if it passed.
	Remedy string `json:"mend,omitempty"`
}

// Facts are the collected facts. A nil part was not collected.
type Facts struct {
	ControlPlane *ControlPlane
	Host         *Host
	// Version is the examining program's.
	Version string
}

// ControlPlane are a control plane's facts about itself and its tailnet: the
// document of /doctor.
type ControlPlane struct {
	Version string    `json:"version"`
	Now     time.Time `json:"now"`
	// Joining says why it is not on the tailnet yet; empty if it is.
	Joining string `json:"joining,omitempty"`
	// Node is its own node; nil if it serves without a tailnet.
	Node *Node `json:"node,omitempty"`
	// Port is where it serves xDS, and Advertised the tags that it asks for.
	Port       uint16   `json:"port"`
	Advertised []string `json:"advertised,omitempty"`
	// Sources may reach Port by the tailnet's policy. ByCapability reports that node
	// capabilities allow it to others.
	Sources      []netip.Prefix `json:"sources,omitempty"`
	ByCapability bool           `json:"byCapability,omitempty"`
	// ClockAhead is how far its clock is ahead of the coordination server's; nil if
	// unknown.
	ClockAhead *time.Duration `json:"clockAhead,omitempty"`
	// Source is the device source; SourceError why it fails.
	Source      string    `json:"source"`
	SourceError string    `json:"sourceError,omitempty"`
	LastGood    time.Time `json:"lastGood,omitzero"`
	// PolicyError and PublishError say what is wrong with the policy file, and
	// why nothing can be published.
	PolicyError  string `json:"policyError,omitempty"`
	PublishError string `json:"publishError,omitempty"`
	// PublishedAt is when something was published last; zero if nothing is yet.
	PublishedAt time.Time  `json:"publishedAt,omitzero"`
	Endpoints   []Endpoint `json:"endpoints"`
	Envoys      []Envoy    `json:"envoys"`
	Degraded    []string   `json:"degraded"`
	Held        []string   `json:"held"`
	Problems    []string   `json:"problems"`
	Drains      []Drain    `json:"drains"`
}

// Node is a node of the tailnet as its own tailscaled knows it.
type Node struct {
	// State is "Running" for one that is on the tailnet.
	State string `json:"state"`
	Name  string `json:"name"`
	// Tags are those that it has.
	Tags       []string   `json:"tags"`
	KeyExpires *time.Time `json:"keyExpires,omitempty"`
	// Health are its own warnings.
	Health []string `json:"health"`
	// MagicDNS reports whether the tailnet has names; NetmapCached whether this node
	// can join without the coordination server, from disk.
	MagicDNS     bool `json:"magicDNS"`
	NetmapCached bool `json:"netmapCached"`
	// LinkDown reports that it has lost the coordination server. Its own Health says
	// so only after eight minutes.
	LinkDown bool `json:"linkDown,omitempty"`
}

// Endpoint is an endpoint of a service.
type Endpoint struct {
	Service string     `json:"service"`
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	State   string     `json:"state"`
	// Connected reports whether its own Envoy has a stream.
	Connected bool `json:"connected"`
	// Path is how the control plane reaches it.
	Path Path `json:"path,omitempty"`
}

// Path is how one node reaches another: "direct", "relay NAME", or nothing if
// nothing was sent of late.
type Path string

// Direct is the path without a relay.
const Direct Path = "direct"

// Envoy is a connected Envoy.
type Envoy struct {
	Name string `json:"name"`
	// Version is such as "1.40.0"; empty if it does not tell.
	Version string `json:"version,omitempty"`
	// Rejected is what it rejected, and why.
	Rejected string `json:"rejected,omitempty"`
}

// Drain is an operator's drain.
type Drain struct {
	Name  string    `json:"name"`
	By    string    `json:"by"`
	At    time.Time `json:"at"`
	Until time.Time `json:"until,omitzero"`
}

// Host are the facts of a host that wants to join.
type Host struct {
	// Target is the control plane, as host:port.
	Target string
	// Addresses are the addresses of its name here. ResolveError is why this host's
	// resolver fails; they come from its tailscaled then, if at all.
	Addresses    []netip.Addr
	ResolveError string
	// DialError is why no connection can be made.
	DialError string
	// Refused is the control plane's reason for refusing this host; CallError why it
	// could not be called.
	Refused   string
	CallError string
	// Node is this host's; NodeError why its tailscaled could not be asked.
	Node      *Node
	NodeError string
	// Path is how this host reaches the control plane.
	Path Path
	// EnvoyVersion and EnvoyConnected are of this host's Envoy; EnvoyError is why it
	// could not be asked.
	EnvoyVersion   string
	EnvoyConnected bool
	EnvoyError     string
}

// Examine runs all checks that the facts allow, in the order in which a remedy helps
// the next.
func Examine(f Facts) []Finding {
	var all []Finding
	for _, c := range checks() {
		level, text, mend := c.find(f)
		if level == "" {
			continue // there is nothing to check
		}
		if level == Pass {
			mend = ""
		}
		all = append(all, Finding{Category: c.category, Check: c.name, Level: level, Text: text, Remedy: mend})
	}
	return all
}

// Count returns the number of findings of a level.
func Count(findings []Finding, l Level) int {
	n := 0
	for _, f := range findings {
		if f.Level == l {
			n++
		}
	}
	return n
}

// check is one check. Its level is empty if it does not apply.
type check struct {
	category, name string
	find           func(Facts) (level Level, text, mend string)
}

// ifPublished wraps a check that needs a control plane that has published something:
// without that, nothing is known, and nothing passes.
func ifPublished(find func(*ControlPlane) (Level, string, string)) func(Facts) (Level, string, string) {
	return ifControlPlane(func(c *ControlPlane) (Level, string, string) {
		if c.PublishedAt.IsZero() {
			return "", "", ""
		}
		return find(c)
	})
}

// ifControlPlane wraps a check that needs a control plane's facts, ifNode one that
// needs a control plane on a tailnet, and ifHost one of a host.
func ifControlPlane(find func(*ControlPlane) (Level, string, string)) func(Facts) (Level, string, string) {
	return func(f Facts) (Level, string, string) {
		if f.ControlPlane == nil {
			return "", "", ""
		}
		return find(f.ControlPlane)
	}
}

func ifNode(find func(*ControlPlane, *Node) (Level, string, string)) func(Facts) (Level, string, string) {
	return func(f Facts) (Level, string, string) {
		if f.ControlPlane == nil || f.ControlPlane.Node == nil || f.ControlPlane.Joining != "" {
			return "", "", ""
		}
		return find(f.ControlPlane, f.ControlPlane.Node)
	}
}

func ifHost(find func(*Host) (Level, string, string)) func(Facts) (Level, string, string) {
	return func(f Facts) (Level, string, string) {
		if f.Host == nil {
			return "", "", ""
		}
		return find(f.Host)
	}
}

// checks returns all checks.
func checks() []check {
	return []check{
		{"tailnet", "joined", ifControlPlane(joined)},
		{"tailnet", "coordination server", ifNode(coordinated)},
		{"tailnet", "own tag", ifNode(ownTag)},
		{"tailnet", "node key", ifNode(nodeKey)},
		{"tailnet", "node health", ifNode(health)},
		{"tailnet", "MagicDNS", ifNode(magicDNS)},
		{"tailnet", "netmap cache", ifNode(netmapCache)},
		{"tailnet", "clock", ifNode(clock)},
		{"policy", "servers may connect", ifNode(mayConnect)},
		{"policy", "others may not", ifNode(othersMayNotConnect)},
		{"policy", "direct paths", ifNode(directPaths)},
		{"control plane", "version", version},
		{"control plane", "device list", ifControlPlane(deviceList)},
		{"control plane", "policy file", ifControlPlane(policyFile)},
		{"control plane", "publication", ifControlPlane(publication)},
		{"Envoys", "connected", ifControlPlane(connected)},
		{"Envoys", "configuration taken", ifControlPlane(configurationAccepted)},
		{"Envoys", "versions", ifControlPlane(versions)},
		{"services", "served", ifPublished(servicesServed)},
		{"services", "nothing held", ifPublished(nothingHeld)},
		{"services", "no problems", ifPublished(noProblems)},
		{"services", "operators' drains", ifPublished(drains)},
		{"this host", "name of the control plane", ifHost(resolves)},
		{"this host", "control plane's port", ifHost(reaches)},
		{"this host", "let in", ifHost(admitted)},
		{"this host", "tailscaled", ifHost(tailscaled)},
		{"this host", "direct path", ifHost(hostPath)},
		{"this host", "Envoy", ifHost(hostEnvoy)},
	}
}
