package xds

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// What one request may ask for, and one stream of a type in all: an Envoy asks
// for a cluster at a time, a gRPC client for a handful. The caches remember each
// name for as long as its stream lasts.
const (
	mostNames   = 10_000
	longestName = 512
)

// door is a gRPC interceptor. What go-control-plane gets to see of a stream is
// bounded, of a type that is served, and free of text that is unfit for people.
func (s *Server) door(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	who, _ := stream.Context().Value(identityKey{}).(peerInfo)
	d := &doorway{ServerStream: stream, server: s, who: who, out: sequence{send: stream.SendMsg}}
	defer d.out.end()
	err := handler(srv, d)
	if refused := d.refused(); refused != nil {
		err = refused // go-control-plane takes every failed read for the peer's leaving
	}
	if code := status.Code(err); code == codes.InvalidArgument || code == codes.ResourceExhausted {
		s.streams.count("", "refused")
		s.refused.tell(time.Now(), who.address, who.Name, status.Convert(err).Message())
	}
	return err
}

// doorway is one stream behind the door.
type doorway struct {
	grpc.ServerStream
	server *Server
	who    peerInfo
	out    sequence

	node    *core.Node // of a request that was not handed on
	id      string     // of the last node
	strange bool       // a type that is not served was asked for

	mu  sync.Mutex
	err error
}

// SendMsg sends a response when its turn comes.
func (d *doorway) SendMsg(m any) error { return d.out.put(m) }

// RecvMsg hands on the next request that can be served.
func (d *doorway) RecvMsg(m any) error {
	for {
		if err := d.ServerStream.RecvMsg(m); err != nil {
			if code := status.Code(err); code == codes.InvalidArgument || code == codes.ResourceExhausted {
				return d.refuse(err)
			}
			return err
		}
		served, err := d.inspect(m)
		if err != nil {
			return d.refuse(err)
		}
		if !served {
			continue
		}
		if r, ok := m.(interface {
			GetTypeUrl() string
			GetResponseNonce() string
		}); ok {
			return d.out.answered(r.GetTypeUrl(), r.GetResponseNonce())
		}
		return nil
	}
}

// inspect tells whether a message is to be handed on, and makes it fit for that.
func (d *doorway) inspect(m any) (served bool, err error) {
	switch r := m.(type) {
	case *discovery.DiscoveryRequest:
		if err := bounded(r.GetTypeUrl(), r.GetResourceNames()); err != nil {
			return false, err
		}
		r.Node = d.introduce(r.GetNode())
		if r.ErrorDetail != nil {
			r.ErrorDetail.Message = clean(r.ErrorDetail.GetMessage())
		}
		return d.serves(r.GetTypeUrl()), nil
	case *discovery.DeltaDiscoveryRequest:
		known := r.GetInitialResourceVersions()
		if err := bounded(r.GetTypeUrl(), r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe(),
			slices.Collect(maps.Keys(known)), slices.Collect(maps.Values(known))); err != nil {
			return false, err
		}
		r.Node = d.introduce(r.GetNode())
		if r.ErrorDetail != nil {
			r.ErrorDetail.Message = clean(r.ErrorDetail.GetMessage())
		}
		return d.serves(r.GetTypeUrl()), nil
	default:
		return true, nil // of another service
	}
}

// bounded refuses a request that names no type, or asks for more than anybody
// needs.
func bounded(url string, lists ...[]string) error {
	if url == "" || len(url) > longestName {
		return status.Errorf(codes.InvalidArgument, "a request needs a type URL of 1 to %d bytes; this one has %d", longestName, len(url))
	}
	for _, names := range lists {
		if len(names) > mostNames {
			return status.Errorf(codes.InvalidArgument, "%d resource names in one request are more than %d", len(names), mostNames)
		}
		for _, name := range names {
			if len(name) > longestName {
				return status.Errorf(codes.InvalidArgument, "a resource name of %d bytes is longer than %d", len(name), longestName)
			}
		}
	}
	return nil
}

// introduce keeps of a node what is used, fit for people: an Envoy's whole node
// has tens of kilobytes, and the caches would keep it once a type. Only the
// first request of a stream must have one, so it outlives a request that is
// not handed on.
func (d *doorway) introduce(node *core.Node) *core.Node {
	if node == nil {
		return d.node
	}
	at := node.GetLocality()
	d.id = clean(node.GetId())
	d.node = &core.Node{
		UserAgentVersionType: &core.Node_UserAgentVersion{UserAgentVersion: agent(node)},
		Id:                   d.id, Cluster: clean(node.GetCluster()),
		Locality: &core.Locality{Region: clean(at.GetRegion()), Zone: clean(at.GetZone()), SubZone: clean(at.GetSubZone())},
	}
	return d.node
}

// agent is the version of the Envoy that a node is, such as "1.40.0"; empty if it
// is none.
func agent(node *core.Node) string {
	v := node.GetUserAgentBuildVersion().GetVersion()
	if node.GetUserAgentName() != "envoy" || v == nil {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
}

// serves tells whether a type is served. A request for another gets no answer,
// as the protocol wants it; go-control-plane would end the whole stream, and
// with it all types that are served.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
func (d *doorway) serves(url string) bool {
	if d.server.types.served(url) {
		d.node = nil // handed on
		return true
	}
	d.server.streams.count(unknownType, "asked")
	if !d.strange {
		d.strange = true
		if dropped, ok := d.who.connection.peerQuota().mayLog(time.Now()); ok {
			d.server.log.Warn("an Envoy asks for a type that is not served", "device", clean(d.who.Name), "node", d.id, "type", clean(url), "lines_dropped", dropped)
		}
	}
	return false
}

// refuse ends the stream, and keeps why.
func (d *doorway) refuse(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	return err
}

func (d *doorway) refused() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}
