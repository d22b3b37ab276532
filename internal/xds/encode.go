package xds

import (
	"google.golang.org/protobuf/proto"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
)

// A service's assignment is published under several names, and but for the name
// it is the same message. What is done with each message of a change is done
// once for all that is the same.

// contents are an assignment but for its name: the same list of localities, and
// not only an equal one.
type contents struct {
	list   **endpoint.LocalityLbEndpoints // where it begins
	n      int
	policy *endpoint.ClusterLoadAssignment_Policy
}

// contentsOf tells what an assignment has, if others may have just the same.
func contentsOf(r proto.Message) (*endpoint.ClusterLoadAssignment, contents, bool) {
	a, ok := r.(*endpoint.ClusterLoadAssignment)
	if !ok || len(a.GetEndpoints()) == 0 || len(a.GetNamedEndpoints()) > 0 {
		return nil, contents{}, false
	}
	return a, contents{&a.GetEndpoints()[0], len(a.GetEndpoints()), a.GetPolicy()}, true
}

// encoder encodes the resources of one change.
type encoder struct {
	shared map[contents][]byte
	of     []*lbEndpoints
}

func newEncoder(of []*lbEndpoints) encoder {
	return encoder{shared: make(map[contents][]byte), of: of}
}

func (e encoder) encode(r types.Resource) ([]byte, error) {
	a, of, shared := contentsOf(r)
	if !shared {
		return cache.MarshalResource(r)
	}
	rest, known := e.shared[of]
	if !known {
		var err error
		if rest, err = e.contents(a); err != nil {
			return nil, err
		}
		e.shared[of] = rest
	}
	name := fields{bytes: make([]byte, 0, len(rest)+len(a.GetClusterName())+8)}
	name.text(assignmentName, a.GetClusterName())
	return append(name.bytes, rest...), name.err
}

// contents encodes all of an assignment but its name.
func (e encoder) contents(a *endpoint.ClusterLoadAssignment) ([]byte, error) {
	for _, l := range e.of {
		if localities, known, err := l.encode(a.GetEndpoints()); err != nil {
			return nil, err
		} else if known {
			return proto.MarshalOptions{Deterministic: true}.MarshalAppend(localities, &endpoint.ClusterLoadAssignment{Policy: a.GetPolicy()})
		}
	}
	return cache.MarshalResource(&endpoint.ClusterLoadAssignment{Endpoints: a.GetEndpoints(), Policy: a.GetPolicy()})
}

// validator holds resources to Envoy's own rules.
type validator struct {
	seen map[contents]bool
	of   *lbEndpoints // may be nil
}

func newValidator(of *lbEndpoints) validator {
	return validator{seen: make(map[contents]bool), of: of}
}

func (v validator) validate(r proto.Message) error {
	if a, of, shared := contentsOf(r); shared {
		if v.seen[of] {
			r = &endpoint.ClusterLoadAssignment{ClusterName: a.GetClusterName()}
		} else {
			r = v.of.unproven(a)
		}
		v.seen[of] = true
	}
	if all, ok := r.(interface{ ValidateAll() error }); ok {
		return all.ValidateAll()
	}
	return nil
}
