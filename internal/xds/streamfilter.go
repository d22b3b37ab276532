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
	maxNames     = 10_000
	maxNameBytes = 512
)

// filterStream is a gRPC interceptor. What go-control-plane gets to see of a stream is
// bounded, of a type that is served, and free of text that is unfit for people.
func (s *Server) filterStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	who, _ := stream.Context().Value(identityKey{}).(peerInfo)
	d := &filteredStream{ServerStream: stream, server: s, who: who, gate: warmupGate{send: stream.SendMsg}}
	defer d.gate.close()
	err := handler(srv, d)
	if refused := d.refusal(); refused != nil {
		err = refused // go-control-plane takes every failed read for the peer's leaving
	}
	if code := status.Code(err); code == codes.InvalidArgument || code == codes.ResourceExhausted {
		s.streams.count("", "refused")
		s.refused.logRefusal(time.Now(), who.address, who.Name, status.Convert(err).Message())
	}
	return err
}

// filteredStream is one stream behind the filter.
type filteredStream struct {
	grpc.ServerStream
	server *Server
	who    peerInfo
	gate   warmupGate

	node         *core.Node // of a request that was not handed on
	nodeID       string     // of the last node
	warnedOfType bool       // a type that is not served was asked for

	mu  sync.Mutex
	err error
}

// SendMsg sends a response when its turn comes.
func (d *filteredStream) SendMsg(m any) error { return d.gate.forward(m) }

// RecvMsg hands on the next request that can be served.
func (d *filteredStream) RecvMsg(m any) error {
	for {
		if err := d.ServerStream.RecvMsg(m); err != nil {
			if code := status.Code(err); code == codes.InvalidArgument || code == codes.ResourceExhausted {
				return d.refuse(err)
			}
			return err
		}
		served, err := d.accept(m)
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
			return d.gate.release(r.GetTypeUrl(), r.GetResponseNonce())
		}
		return nil
	}
}

// accept reports whether a message is to be handed on, and makes it fit for that.
func (d *filteredStream) accept(m any) (served bool, err error) {
	switch r := m.(type) {
	case *discovery.DiscoveryRequest:
		if err := checkBounds(r.GetTypeUrl(), r.GetResourceNames()); err != nil {
			return false, err
		}
		r.Node = d.trimNode(r.GetNode())
		if r.ErrorDetail != nil {
			r.ErrorDetail.Message = sanitize(r.ErrorDetail.GetMessage())
		}
		return d.serves(r.GetTypeUrl()), nil
	case *discovery.DeltaDiscoveryRequest:
		known := r.GetInitialResourceVersions()
		if err := checkBounds(r.GetTypeUrl(), r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe(),
			slices.Collect(maps.Keys(known)), slices.Collect(maps.Values(known))); err != nil {
			return false, err
		}
		r.Node = d.trimNode(r.GetNode())
		if r.ErrorDetail != nil {
			r.ErrorDetail.Message = sanitize(r.ErrorDetail.GetMessage())
		}
		return d.serves(r.GetTypeUrl()), nil
	default:
		return true, nil // of another service
	}
}

// checkBounds refuses a request that names no type, or asks for more than any
// client needs.
func checkBounds(url string, lists ...[]string) error {
	if url == "" || len(url) > maxNameBytes {
		return status.Errorf(codes.InvalidArgument, "a request needs a type URL of 1 to %d bytes; this one has %d", maxNameBytes, len(url))
	}
	for _, names := range lists {
		if len(names) > maxNames {
			return status.Errorf(codes.InvalidArgument, "%d resource names in one request are more than %d", len(names), maxNames)
		}
		for _, name := range names {
			if len(name) > maxNameBytes {
				return status.Errorf(codes.InvalidArgument, "a resource name of %d bytes is longer than %d", len(name), maxNameBytes)
			}
		}
	}
	return nil
}

// trimNode keeps of a node what is used, fit for people: an Envoy's whole node
// has tens of kilobytes, and the caches would keep it once a type. Only the
// first request of a stream must have one, so it outlives a request that is
// not handed on.
func (d *filteredStream) trimNode(node *core.Node) *core.Node {
	if node == nil {
		return d.node
	}
	at := node.GetLocality()
	d.nodeID = sanitize(node.GetId())
	d.node = &core.Node{
		UserAgentVersionType: &core.Node_UserAgentVersion{UserAgentVersion: envoyVersion(node)},
		Id:                   d.nodeID, Cluster: sanitize(node.GetCluster()),
		Locality: &core.Locality{Region: sanitize(at.GetRegion()), Zone: sanitize(at.GetZone()), SubZone: sanitize(at.GetSubZone())},
	}
	return d.node
}

// envoyVersion is the version of the Envoy that a node is, such as "1.40.0"; empty if it
// is none.
func envoyVersion(node *core.Node) string {
	v := node.GetUserAgentBuildVersion().GetVersion()
	if node.GetUserAgentName() != "envoy" || v == nil {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
}

// serves reports whether a type is served. A request for another gets no answer,
// as the protocol wants it; go-control-plane would end the whole stream, and
// with it all types that are served.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
func (d *filteredStream) serves(url string) bool {
	if d.server.types.served(url) {
		d.node = nil // handed on
		return true
	}
	d.server.streams.count(unknownType, "asked")
	if !d.warnedOfType {
		d.warnedOfType = true
		if dropped, ok := d.who.connection.peerQuota().mayLog(time.Now()); ok {
			d.server.log.Warn("an Envoy asks for a type that is not served", "device", sanitize(d.who.Name), "node", d.nodeID, "type", sanitize(url), "lines_dropped", dropped)
		}
	}
	return false
}

// refuse ends the stream, and keeps why.
func (d *filteredStream) refuse(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	return err
}

func (d *filteredStream) refusal() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}
