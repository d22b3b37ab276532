package hostile

import (
	"context"
	"fmt"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
)

// Methods of the xDS port.
const (
	DeltaADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	SotwADS  = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	Export   = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
)

// The types that are served.
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// Dial connects to the xDS port from an address of loopback. Messages are bytes,
// so that a client can send what no library would.
func (c *ControlPlane) Dial(t testing.TB, from string) *grpc.ClientConn {
	t.Helper()
	dialer := From(from)
	conn, err := grpc.NewClient("passthrough:///"+c.XDS,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(Raw{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Open opens a stream in both directions.
func Open(ctx context.Context, conn *grpc.ClientConn, method string) (grpc.ClientStream, error) {
	return conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
}

// Raw is a codec whose messages are *[]byte.
type Raw struct{}

// Marshal implements [encoding.Codec].
func (Raw) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("a message must be *[]byte, and is %T", v)
	}
	return *b, nil
}

// Unmarshal implements [encoding.Codec].
func (Raw) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a message must be *[]byte, and is %T", v)
	}
	*b = append((*b)[:0], data...)
	return nil
}

// Name implements [encoding.Codec].
func (Raw) Name() string { return "proto" }

// Field appends a length-delimited field of a protobuf message.
func Field(b []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
}

// Node encodes a node that claims an id and a region.
func Node(id, region string) []byte {
	const idField, localityField, regionField = 1, 4, 1
	return Field(Field(nil, idField, []byte(id)), localityField, Field(nil, regionField, []byte(region)))
}

// DeltaRequest encodes a DeltaDiscoveryRequest that subscribes to names.
func DeltaRequest(node []byte, typeURL string, names ...string) *[]byte {
	const nodeField, typeField, subscribeField = 1, 2, 3
	b := Field(nil, typeField, []byte(typeURL))
	if node != nil {
		b = Field(b, nodeField, node)
	}
	for _, name := range names {
		b = Field(b, subscribeField, []byte(name))
	}
	return &b
}
