package xds

import (
	"context"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
)

// connection is what all calls over one connection share. An Envoy that fetches its
// configuration says by it who it is (node.id). It sends its reports over the same
// connection, and they are told by that: what they say themselves comes from the
// bootstrap, which several Envoys may share (--service-node names each).
type connection struct {
	credentials.CommonAuthInfo
	wire  net.Conn
	quota *quota // of its peer; nil in tests without one
	id    atomic.Pointer[string]
}

// AuthType is "insecure": on a tailnet, WireGuard has done that.
func (*connection) AuthType() string { return "insecure" }

// name notes what the Envoy at the other end calls itself.
func (c *connection) name(id string) {
	if c != nil {
		c.id.Store(&id)
	}
}

// node is what the Envoy at the other end calls itself; empty while it has not.
func (c *connection) node() string {
	if c == nil {
		return ""
	}
	if id := c.id.Load(); id != nil {
		return *id
	}
	return ""
}

// peerQuota is what its peer may use; nil is without bounds.
func (c *connection) peerQuota() *quota {
	if c == nil {
		return nil
	}
	return c.quota
}

// hangUp closes it: whoever reads or writes learns of that.
func (c *connection) hangUp() {
	if c != nil && c.wire != nil {
		_ = c.wire.Close() // it may be closed
	}
}

// eachConnection gives every connection a [connection]. It encrypts nothing.
type eachConnection struct {
	credentials.TransportCredentials
}

func newEachConnection() credentials.TransportCredentials {
	return eachConnection{insecure.NewCredentials()}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (eachConnection) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	to := &connection{wire: c, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}
	if bounded, ok := c.(*boundedConn); ok {
		to.quota = bounded.quota
	}
	return c, to, nil
}

// Clone implements [credentials.TransportCredentials].
func (e eachConnection) Clone() credentials.TransportCredentials { return e }

// connectionOf is that over which a call comes; nil without one.
func connectionOf(ctx context.Context) *connection {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return nil
	}
	c, _ := p.AuthInfo.(*connection)
	return c
}
