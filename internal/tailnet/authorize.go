package tailnet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"tailscale.com/client/local"
	"tailscale.com/client/tailscale/apitype"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"

	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/input"
)

// Authorizer lets in whom the tailnet's policy grants the page, under the node's own
// names. Both are asked anew for each request, and again and again for a stream.
func (t *Node) Authorizer() dashboard.Authorizer {
	return dashboard.Authorizer{
		Identify: func(r *http.Request) (dashboard.Viewer, error) {
			who, err := t.LocalClient.WhoIs(r.Context(), r.RemoteAddr)
			switch {
			case errors.Is(err, local.ErrPeerNotFound):
				return dashboard.Viewer{}, dashboard.ErrUnknownPeer
			case err != nil:
				return dashboard.Viewer{}, fmt.Errorf("WhoIs %s: %w", r.RemoteAddr, err)
			}
			return viewer(who), nil
		},
		AllowsHost: func(ctx context.Context, host string) bool {
			status, err := t.LocalClient.StatusWithoutPeers(ctx)
			return err == nil && status.Self != nil && slices.Contains(nodeNames(status.Self), host)
		},
	}
}

// viewer is who looks, and what they may do. A device with tags has no user, so
// it is called by its name.
func viewer(who *apitype.WhoIsResponse) dashboard.Viewer {
	v := dashboard.Viewer{Role: AdminRole(who)}
	v.Name, _, _ = strings.Cut(who.Node.Name, ".")
	if len(who.Node.Tags) == 0 && who.UserProfile != nil && who.UserProfile.LoginName != "" {
		v.Name = who.UserProfile.LoginName
	}
	v.Name = input.Printable(v.Name)
	return v
}

// AdminRole is the most that the tailnet's policy grants to somebody. A value that
// can't be read grants nothing.
func AdminRole(who *apitype.WhoIsResponse) dashboard.Role {
	most := dashboard.RoleNone
	for _, raw := range who.CapMap[dashboard.Capability] {
		values, err := tailcfg.UnmarshalCapJSON[struct {
			Role dashboard.Role `json:"role"`
		}](tailcfg.PeerCapMap{dashboard.Capability: {raw}}, dashboard.Capability)
		switch {
		case err != nil || len(values) == 0:
		case values[0].Role == dashboard.RoleOperate:
			return dashboard.RoleOperate
		case values[0].Role == dashboard.RoleView:
			most = dashboard.RoleView
		}
	}
	return most
}

// nodeNames are the names and addresses of a node, as a browser writes them.
func nodeNames(self *ipnstate.PeerStatus) []string {
	full := dashboard.HostName(self.DNSName)
	short, _, _ := strings.Cut(full, ".")
	names := []string{full, short}
	for _, a := range self.TailscaleIPs {
		names = append(names, a.String())
	}
	return slices.DeleteFunc(names, func(s string) bool { return s == "" })
}
