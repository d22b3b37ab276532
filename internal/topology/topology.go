package topology

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Topology holds what Envoys balance over: services in the order of their names.
type Topology struct {
	Services []Service `json:"services"`
	// Next is when time alone changes the topology (a grace that ends, a key
	// that expires); zero if it never does.
	Next time.Time `json:"-"`
	// Drains are the operators' active drains by device ID, also of devices that the
	// list lacks.
	Drains map[string]Drain `json:"-"`
}

// Service is what is balanced; one Envoy cluster.
type Service struct {
	Name string `json:"name"`
	// Localities hold the serving endpoints, by priority, region and zone.
	// Their priorities start at 0 and have no gaps.
	Localities []Locality `json:"localities"`
	// Idle are endpoints that are known but given no new requests. They are
	// not published: a listed endpoint of no use would pull down the weight of
	// its whole locality (Envoy scales it by the share of eligible hosts).
	Idle []Endpoint `json:"idle,omitempty"`
}

// NewService groups endpoints, each with an address of its own, by priority,
// region and zone. Those that do not serve are idle.
func NewService(name string, endpoints []Endpoint) Service {
	s := Service{Name: name}
	groups := make(map[place][]Endpoint)
	for i, e := range endpoints {
		if e.State != Serving {
			s.Idle = append(s.Idle, e)
			continue
		}
		at := place{e.Priority, e.Region, e.Zone}
		group, there := groups[at]
		if !there && len(groups) == 0 { // most services have one place that most are at
			group = make([]Endpoint, 0, len(endpoints)-i)
		}
		groups[at] = append(group, e)
	}
	s.Localities = localities(groups)
	return s
}

// place is where an endpoint stands within its service.
type place struct {
	priority     uint32
	region, zone string
}

func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.priority, o.priority), cmp.Compare(p.region, o.region), cmp.Compare(p.zone, o.zone))
}

// localities lists the groups in order, and closes the gaps between their
// priorities: Envoy and gRPC refuse an assignment that skips one.
func localities(groups map[place][]Endpoint) []Locality {
	var all []Locality
	var priority uint32
	places := slices.SortedFunc(maps.Keys(groups), place.compare)
	for i, at := range places {
		if i > 0 && places[i-1].priority != at.priority {
			priority++
		}
		l := Locality{Region: at.region, Zone: at.zone, Priority: priority, Endpoints: groups[at]}
		for _, e := range l.Endpoints {
			l.Weight += e.Weight
		}
		all = append(all, l)
	}
	return all
}

// Serving are the endpoints that get new requests, in the order in which they
// are published.
func (s Service) Serving() []Endpoint {
	n := 0
	for _, l := range s.Localities {
		n += len(l.Endpoints)
	}
	all := slices.Grow([]Endpoint(nil), n)
	for _, l := range s.Localities {
		all = append(all, l.Endpoints...)
	}
	return all
}

// SameServing reports whether Envoys see no difference between s and o.
func (s Service) SameServing(o Service) bool {
	return s.Name == o.Name && slices.EqualFunc(s.Localities, o.Localities, func(a, b Locality) bool {
		return a.Region == b.Region && a.Zone == b.Zone && a.Priority == b.Priority && a.Weight == b.Weight && slices.Equal(a.Endpoints, b.Endpoints)
	})
}

// Locality is a region and zone within one priority of a service.
type Locality struct {
	Region   string `json:"region,omitempty"`
	Zone     string `json:"zone,omitempty"`
	Priority uint32 `json:"priority"`
	// Weight is the sum of the endpoints' weights, so that a weight means the
	// same in every region.
	Weight    uint32     `json:"weight"`
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint is one device's address and port in one service.
type Endpoint struct {
	// Device is the ID and Name the name of the endpoint's device.
	Device  string         `json:"device"`
	Name    string         `json:"name"`
	Address netip.AddrPort `json:"address"`
	// Weight is 1 to 1,000, or 0 for a drained endpoint.
	Weight uint32 `json:"weight"`
	Region string `json:"region,omitempty"`
	Zone   string `json:"zone,omitempty"`
	// Priority is the one of the tag or grant, before gaps are closed.
	Priority uint32 `json:"priority"`
	State    State  `json:"state"`
	// DrainedBy is the operator who drained the device, and until when; empty if none did.
	DrainedBy string `json:"drainedBy,omitempty"`
}

// DrainRequested reports whether the endpoint is to get no new requests, whatever its
// state: by weight 0, or by an operator's drain.
func (e Endpoint) DrainRequested() bool { return e.Weight == 0 || e.DrainedBy != "" }

// State is whether an endpoint gets new requests, and why not.
type State string

// The states of an endpoint. Only Serving is published.
const (
	Serving  State = "serving"
	Drained  State = "drained"  // weight 0, or an operator's drain
	Expiring State = "expiring" // the node key expires within the drain window
	Expired  State = "expired"  // the node key has expired
	Offline  State = "offline"  // for longer than the grace
)

// Rules are what [Build] needs to know besides the devices.
type Rules struct {
	// DefaultService and DefaultPort hold for a device that names none. The
	// default service exists even without endpoints.
	DefaultService string
	DefaultPort    uint16
	// PreferIPv6 takes a device's IPv6 address where it has both.
	PreferIPv6 bool
	// TagPrefix begins the tags that describe endpoints, behind "tag:": with "pool-",
	// only tag:pool-weight-2 and the like are read. Empty means that every tag of the
	// grammar is.
	TagPrefix string
	// Now is the time that offline devices and expiring keys are compared with.
	Now time.Time
	// OfflineGrace is how long a device that went offline still serves.
	OfflineGrace time.Duration
	// DrainWindow is how long before its key expires a device is drained.
	DrainWindow time.Duration
	// LastGood gives the endpoints that a device described last, by its ID. Where
	// a value can't be read, the one here counts until it is fixed. It must always
	// answer the same, and is asked only about such devices. It may be nil.
	LastGood func(id string) ServiceEndpoints
	// Drains are operators' drains by device ID. They override the devices' own
	// metadata. It may be nil.
	Drains map[string]Drain
}

// Drain is an operator's decision that a device gets no new requests.
type Drain struct {
	// By is the operator.
	By string
	// Until is when it ends; zero is never.
	Until time.Time
}

// String returns the operator, and until when.
func (d Drain) String() string {
	if d.Until.IsZero() {
		return d.By
	}
	return d.By + " until " + d.Until.UTC().Format("2006-01-02 15:04:05 MST")
}

// ServiceEndpoints are the endpoints of one device, by service.
type ServiceEndpoints map[string][]Endpoint

// ByDevice groups the endpoints by device.
func (t Topology) ByDevice() map[string]ServiceEndpoints {
	all := make(map[string]ServiceEndpoints)
	for service, e := range t.endpoints {
		if all[e.Device] == nil {
			all[e.Device] = make(ServiceEndpoints)
		}
		all[e.Device][service] = append(all[e.Device][service], e)
	}
	return all
}

// Present are the IDs of the devices that are endpoints and on the tailnet:
// serving ones, and those that were drained on purpose.
func (t Topology) Present() map[string]bool {
	present := make(map[string]bool)
	for _, e := range t.endpoints {
		if e.present() {
			present[e.Device] = true
		}
	}
	return present
}

// Addresses are the addresses of all devices in the topology, idle ones too.
func (t Topology) Addresses() map[netip.Addr]bool {
	addresses := make(map[netip.Addr]bool)
	for _, e := range t.endpoints {
		addresses[e.Address.Addr()] = true
	}
	return addresses
}

// Regions are the regions of all devices in the topology that have one, idle
// ones too, by address.
func (t Topology) Regions() map[netip.Addr]string {
	regions := make(map[netip.Addr]string)
	for _, e := range t.endpoints {
		if a := e.Address.Addr(); e.Region != "" && regions[a] == "" {
			regions[a] = e.Region
		}
	}
	return regions
}

// RegionOf returns the region of a device that serves nothing, by its tags; empty if
// it has none. The prefix is that of [Rules.TagPrefix].
func RegionOf(tags []string, tagPrefix string) string {
	s, _ := newGrammar(tagPrefix).parseTags(tags)
	return s.settings[keyRegion].value.name
}

// SameDevices reports whether t and o have the same devices in the same order, by what
// [Topology.Present], [Topology.Addresses] and [Topology.Regions] return. It
// costs much less than these.
func (t Topology) SameDevices(o Topology) bool {
	return slices.EqualFunc(t.Services, o.Services, func(a, b Service) bool {
		return slices.EqualFunc(a.Idle, b.Idle, sameDevice) &&
			slices.EqualFunc(a.Localities, b.Localities, func(a, b Locality) bool {
				return slices.EqualFunc(a.Endpoints, b.Endpoints, sameDevice)
			})
	})
}

func sameDevice(a, b Endpoint) bool {
	return a.Address.Addr() == b.Address.Addr() && a.present() == b.present() && a.Device == b.Device && a.Region == b.Region
}

// present reports whether the endpoint's device is on the tailnet.
func (e Endpoint) present() bool { return e.State != Offline && e.State != Expired }

// endpoints yields every endpoint, idle ones too, with its service's name.
func (t Topology) endpoints(yield func(string, Endpoint) bool) {
	for _, s := range t.Services {
		for _, l := range s.Localities {
			for _, e := range l.Endpoints {
				if !yield(s.Name, e) {
					return
				}
			}
		}
		for _, e := range s.Idle {
			if !yield(s.Name, e) {
				return
			}
		}
	}
}
