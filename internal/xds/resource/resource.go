// Package resource is what the builder of xDS resources and their server agree on:
// the types there are, and what is served of each at a time.
package resource

import "google.golang.org/protobuf/proto"

// Type is a type of resources. A table of types is in the order in which additions
// reach a client: what is referred to goes before what refers to it. Removals go in
// reverse.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-docs/xds_protocol#eventual-consistency-considerations
type Type struct {
	// Name is its short name, such as "clusters": in documents, logs and metrics.
	Name string
	// URL is the xDS type URL.
	URL string
	// ByName is set if clients that ask for resources by name, as gRPC clients do,
	// get others than those that ask for all, as Envoys do: see [Snapshot.Named].
	ByName bool
	// ByRegion is set if clients get what is made for their region: see
	// [Snapshot.InRegion].
	ByRegion bool
}

// Set is resources of one type, by name.
type Set = map[string]proto.Message

// Snapshot is all that is served at a time. It never changes, and a resource that
// is the same as in an earlier snapshot may be the same message.
type Snapshot interface {
	// All returns the resources of a type for clients that ask for all of them, and
	// for clients that are in no region.
	All(url string) Set
	// Named returns the resources of a type with [Type.ByName] for clients that ask
	// for them by name.
	Named(url string) Set
	// InRegion returns the resources of a type with [Type.ByRegion] for clients in a
	// region.
	InRegion(url, region string) (Set, error)
}
