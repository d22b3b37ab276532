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
// connection, which identifies them: what they say themselves comes from the
// bootstrap, which several Envoys may share (--service-node names each).
type connection struct {
	credentials.CommonAuthInfo
	conn   net.Conn
	quota  *quota // of its peer; nil in tests without one
	nodeID atomic.Pointer[string]
}

// AuthType is "insecure": on a tailnet, WireGuard has done that.
func (*connection) AuthType() string { return "insecure" }

// setNode notes what the Envoy at the other end calls itself.
func (c *connection) setNode(id string) {
	if c != nil {
		c.nodeID.Store(&id)
	}
}

// node is what the Envoy at the other end calls itself; empty while it has not.
func (c *connection) node() string {
	if c == nil {
		return ""
	}
	if id := c.nodeID.Load(); id != nil {
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

// close closes it, which ends what reads or writes.
func (c *connection) close() {
	if c != nil && c.conn != nil {
		_ = c.conn.Close() // it may be closed
	}
}

// connectionCredentials gives every connection a [connection]. It encrypts nothing.
type connectionCredentials struct {
	credentials.TransportCredentials
}

func newConnectionCredentials() credentials.TransportCredentials {
	return connectionCredentials{insecure.NewCredentials()}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (connectionCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	to := &connection{conn: c, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}}
	if bounded, ok := c.(*boundedConn); ok {
		to.quota = bounded.quota
	}
	return c, to, nil
}

// Clone implements [credentials.TransportCredentials].
func (e connectionCredentials) Clone() credentials.TransportCredentials { return e }

// connectionOf is that over which a call comes; nil without one.
func connectionOf(ctx context.Context) *connection {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return nil
	}
	c, _ := p.AuthInfo.(*connection)
	return c
}
