package tailnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"tailscale.com/client/tailscale/apitype"

	"github.com/tailxds/tailxds/internal/dashboard"
)

// DialOperator connects to another node of the tailnet, if the policy lets that
// node operate this one: what it says is believed then.
func (t *Node) DialOperator(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := t.server.Dial(ctx, network, address)
	if err != nil {
		return nil, err // says what was dialled
	}
	who, err := t.LocalClient.WhoIs(ctx, conn.RemoteAddr().String())
	switch {
	case err != nil:
		err = fmt.Errorf("who is %s: %w", conn.RemoteAddr(), err)
	case AdminRole(who) != dashboard.RoleOperate:
		err = fmt.Errorf(`it is not believed: the tailnet's policy must grant %s {"role": "operate"} from %s to this control plane`, dashboard.Capability, nodeName(who))
	default:
		return conn, nil
	}
	return nil, errors.Join(err, conn.Close())
}

// NameOf is the name of the node that has an address.
func (t *Node) NameOf(ctx context.Context, remote string) (string, error) {
	who, err := t.LocalClient.WhoIs(ctx, remote)
	if err != nil {
		return "", fmt.Errorf("who is %s: %w", remote, err)
	}
	return nodeName(who), nil
}

// nodeName is the full name of a node, without the last dot.
func nodeName(who *apitype.WhoIsResponse) string { return strings.TrimSuffix(who.Node.Name, ".") }

// Listen listens on a TCP port of the node, such as ":80".
func (t *Node) Listen(address string) (net.Listener, error) {
	l, err := t.server.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on the tailnet: %w", err)
	}
	return l, nil
}
