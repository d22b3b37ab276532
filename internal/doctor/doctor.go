// Package doctor finds what is wrong with a pool: with its tailnet, its policy,
// its control plane, and a host that wants to take part.
//
// It is pure. [Facts] go in, collected by others; out come [Finding]s, each with
// one mend.
package doctor

import (
	"net/netip"
	"time"
)

// Level is how bad a finding is.
type Level string

// The levels. Fail is what costs requests, or soon will; Warn is what costs them
// when something else goes wrong, too.
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
	// Mend is what to do about it; empty if it passed.
	Remedy string `json:"mend,omitempty"`
}

// Facts are what is known. A part that is nil was not asked.
type Facts struct {
	ControlPlane *ControlPlane
	Host         *Host
	// Version is that of the program that examines.
	Version string
}

// ControlPlane is what a control plane knows of itself and its tailnet. It is
// the document of /doctor.
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
	// Sources may reach Port by the tailnet's policy. ByCapability tells that
	// others may whom their node capabilities allow it.
	Sources      []netip.Prefix `json:"sources,omitempty"`
	ByCapability bool           `json:"byCapability,omitempty"`
	// ClockAhead is how far its clock is ahead of the coordination server's; nil
	// if that could not be told.
	ClockAhead *time.Duration `json:"clockAhead,omitempty"`
	// Source is where devices come from; SourceError why they do not.
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
	// MagicDNS tells whether the tailnet gives names; NetmapCached whether this
	// node joins without the coordination server from what it wrote to disk.
	MagicDNS     bool `json:"magicDNS"`
	NetmapCached bool `json:"netmapCached"`
	// LinkDown tells that it is not in touch with the coordination server. Its own
	// Health says so after eight minutes only.
	LinkDown bool `json:"linkDown,omitempty"`
}

// Endpoint is an endpoint of a service.
type Endpoint struct {
	Service string     `json:"service"`
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	State   string     `json:"state"`
	// Connected tells whether its own Envoy has a stream.
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

// Drain is an operator's word.
type Drain struct {
	Name  string    `json:"name"`
	By    string    `json:"by"`
	At    time.Time `json:"at"`
	Until time.Time `json:"until,omitzero"`
}

// Host is what a host knows that wants to take part.
type Host struct {
	// Target is the control plane, as host:port.
	Target string
	// Addresses are what its name means here. ResolveError is why this host's
	// resolver does not know; they are what its tailscaled knows then, or nothing.
	Addresses    []netip.Addr
	ResolveError string
	// DialError says why no connection came about.
	DialError string
	// Refused is why the control plane does not serve this host, in its words;
	// CallError why it could not even be asked.
	Refused   string
	CallError string
	// Node is this host's; NodeError why its tailscaled could not be asked.
	Node      *Node
	NodeError string
	// Path is how this host reaches the control plane.
	Path Path
	// Envoy is the one of this host; EnvoyError why it could not be asked.
	EnvoyVersion   string
	EnvoyConnected bool
	EnvoyError     string
}

// Examine makes all checks that the facts allow, in the order in which a mend
// helps the next.
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

// Count is how many findings have a level.
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

// ifPublished is a check that needs a control plane that has published something:
// of one that has not, nothing is known, and nothing passes.
func ifPublished(find func(*ControlPlane) (Level, string, string)) func(Facts) (Level, string, string) {
	return ifControlPlane(func(c *ControlPlane) (Level, string, string) {
		if c.PublishedAt.IsZero() {
			return "", "", ""
		}
		return find(c)
	})
}

// ifControlPlane is a check that needs a control plane's facts; ofNode one that
// needs a control plane that is on a tailnet, and ofHost one of a host.
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

// checks are all there are.
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
