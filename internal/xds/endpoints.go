package xds

import (
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/wrapperspb"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/tailxds/tailxds/internal/topology"
)

// lbEndpoints are the endpoints of one service as Envoy takes them. Most changes
// are of a few endpoints among many; so each is made, held to Envoy's rules and
// encoded once, for as long as it does not change. A nil one has none.
//
// It is no more than a saving: what is in it depends on nothing but its key.
type lbEndpoints struct {
	byKey map[endpointKey]*lbEndpoint
	byLB  map[*endpoint.LbEndpoint]*lbEndpoint
	build int // counts up
	used  int // how many this build has
	fresh []*lbEndpoint
}

type lbEndpoint struct {
	*endpoint.LbEndpoint
	key     endpointKey
	used    int // the last build that has it
	proven  bool
	encoded []byte // nil until it is asked for
}

// endpointKey is all that a message is made of.
type endpointKey struct {
	name      string
	at        netip.AddrPort
	weight    uint32
	checkedAt uint32 // port; 0 is that of the endpoint
}

func newLBEndpoints() *lbEndpoints {
	return &lbEndpoints{byKey: make(map[endpointKey]*lbEndpoint), byLB: make(map[*endpoint.LbEndpoint]*lbEndpoint)}
}

// begin begins a build.
func (l *lbEndpoints) begin() {
	for _, unproven := range l.fresh { // by a build that failed
		l.drop(unproven)
	}
	l.build++
	l.used, l.fresh = 0, nil
}

// end ends a build whose endpoints Envoy takes. What none has used of late is forgotten.
func (l *lbEndpoints) end() {
	for _, e := range l.fresh {
		e.proven = true
	}
	l.fresh = nil
	if len(l.byKey) <= 2*l.used {
		return
	}
	for _, e := range l.byKey {
		if e.used != l.build {
			l.drop(e)
		}
	}
}

func (l *lbEndpoints) drop(e *lbEndpoint) {
	delete(l.byKey, e.key)
	delete(l.byLB, e.LbEndpoint)
}

// of are the messages of some endpoints.
func (l *lbEndpoints) of(all []topology.Endpoint, checkedAt uint32) []*endpoint.LbEndpoint {
	found := make([]*endpoint.LbEndpoint, len(all))
	var missing []int
	for i, e := range all {
		known := l.byKey[keyOf(e, checkedAt)]
		if known == nil {
			missing = append(missing, i)
			continue
		}
		l.use(known)
		found[i] = known.LbEndpoint
	}
	for i, lb := range lbEndpointsOf(all, missing, checkedAt) {
		e := l.byKey[keyOf(all[missing[i]], checkedAt)]
		if e == nil { // else it is listed twice
			e = &lbEndpoint{LbEndpoint: lb, key: keyOf(all[missing[i]], checkedAt)}
			l.byKey[e.key], l.byLB[lb] = e, e
			l.fresh = append(l.fresh, e)
			l.use(e)
		}
		found[missing[i]] = e.LbEndpoint
	}
	return found
}

func (l *lbEndpoints) use(e *lbEndpoint) {
	if e.used != l.build {
		e.used = l.build
		l.used++
	}
}

func keyOf(e topology.Endpoint, checkedAt uint32) endpointKey {
	return endpointKey{name: e.Name, at: e.Address, weight: e.Weight, checkedAt: checkedAt}
}

// lbEndpointsOf makes the messages of those with these indexes. All parts of one
// lie in one place: to make each by itself takes twice as long.
func lbEndpointsOf(all []topology.Endpoint, indexes []int, checkedAt uint32) []*endpoint.LbEndpoint {
	var checked *endpoint.Endpoint_HealthCheckConfig
	if checkedAt > 0 {
		checked = &endpoint.Endpoint_HealthCheckConfig{PortValue: checkedAt}
	}
	parts := make([]struct {
		lb      endpoint.LbEndpoint
		is      endpoint.LbEndpoint_Endpoint
		at      endpoint.Endpoint
		address core.Address
		by      core.Address_SocketAddress
		socket  core.SocketAddress
		port    core.SocketAddress_PortValue
		weight  wrapperspb.UInt32Value
	}, len(indexes))
	made := make([]*endpoint.LbEndpoint, len(indexes))
	for i, at := range indexes {
		p, e := &parts[i], all[at]
		p.weight.Value, p.port.PortValue = e.Weight, uint32(e.Address.Port())
		p.socket.Address, p.socket.PortSpecifier = e.Address.Addr().String(), &p.port
		p.by.SocketAddress = &p.socket
		p.address.Address = &p.by
		// What is no UTF-8 can't be sent, and would spoil all the rest.
		p.at.Hostname, p.at.Address, p.at.HealthCheckConfig = strings.ToValidUTF8(e.Name, "\uFFFD"), &p.address, checked
		p.is.Endpoint = &p.at
		p.lb.HostIdentifier, p.lb.LoadBalancingWeight = &p.is, &p.weight
		made[i] = &p.lb
	}
	return made
}

// unproven is an assignment without the endpoints that were held to Envoy's rules
// before.
func (l *lbEndpoints) unproven(a *endpoint.ClusterLoadAssignment) *endpoint.ClusterLoadAssignment {
	if l == nil {
		return a
	}
	less := &endpoint.ClusterLoadAssignment{ClusterName: a.GetClusterName(), Policy: a.GetPolicy()}
	for _, in := range a.GetEndpoints() {
		if !plain(in) {
			return a
		}
		one := &endpoint.LocalityLbEndpoints{Locality: in.GetLocality(), LoadBalancingWeight: in.GetLoadBalancingWeight(), Priority: in.GetPriority()}
		for _, lb := range in.GetLbEndpoints() {
			if e := l.byLB[lb]; e == nil || !e.proven {
				one.LbEndpoints = append(one.LbEndpoints, lb)
			}
		}
		less.Endpoints = append(less.Endpoints, one)
	}
	return less
}

// plain tells whether a locality has no more than we give it.
func plain(l *endpoint.LocalityLbEndpoints) bool {
	return l.GetMetadata() == nil && l.GetProximity() == nil && l.GetLbConfig() == nil
}

// The numbers of fields, of an assignment and of a locality in it.
const (
	assignmentName, assignmentLocalities = 1, 2
	localityEndpoints                    = 2
)

// encode encodes localities as protobuf does, in an assignment, but for what it
// has encoded already. It is false if they hold endpoints of others.
func (l *lbEndpoints) encode(localities []*endpoint.LocalityLbEndpoints) ([]byte, bool, error) {
	var out []byte
	for _, in := range localities {
		endpoints, known, err := l.encodeAll(in.GetLbEndpoints())
		if !known || !plain(in) || err != nil {
			return nil, false, err
		}
		before, err := cache.MarshalResource(&endpoint.LocalityLbEndpoints{Locality: in.GetLocality()})
		if err != nil {
			return nil, false, err
		}
		after, err := cache.MarshalResource(&endpoint.LocalityLbEndpoints{LoadBalancingWeight: in.GetLoadBalancingWeight(), Priority: in.GetPriority()})
		if err != nil {
			return nil, false, err
		}
		size := len(before) + len(endpoints) + len(after)
		out = tagged(slices.Grow(out, size+headBytes), assignmentLocalities, size)
		out = append(append(append(out, before...), endpoints...), after...)
	}
	return out, true, nil
}

// encodeAll encodes the endpoints of a locality.
func (l *lbEndpoints) encodeAll(all []*endpoint.LbEndpoint) ([]byte, bool, error) {
	var out []byte
	for i, lb := range all {
		e := l.byLB[lb]
		if e == nil {
			return nil, false, nil
		}
		if e.encoded == nil {
			var err error
			if e.encoded, err = cache.MarshalResource(lb); err != nil {
				return nil, false, err
			}
		}
		if i == 0 { // they are much alike
			out = make([]byte, 0, len(all)*(len(e.encoded)+8))
		}
		out = protowire.AppendBytes(tag(out, localityEndpoints), e.encoded)
	}
	return out, true, nil
}
