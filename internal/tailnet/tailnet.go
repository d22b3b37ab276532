// Package tailnet is the control plane's own node on the tailnet: it joins, says who a
// peer is and what the tailnet's policy lets it do, and listens.
package tailnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"tailscale.com/client/local"
	"tailscale.com/envknob"
	"tailscale.com/ipn"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/ipn/store/kubestore"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"
)

// Node is the control plane's own node on the tailnet.
type Node struct {
	server      *tsnet.Server
	LocalClient *local.Client
	Listener    net.Listener
}

// Config says how a node joins its tailnet.
type Config struct {
	// Hostname is the node's name, and Dir where its key and state live, if not in
	// Store.
	Hostname, Dir string
	Store         ipn.StateStore
	// ControlURL is the coordination server; empty is Tailscale's.
	ControlURL    string
	AuthKey       string
	AdvertiseTags []string
	// Port is the TCP port of the listener.
	Port uint16
	// JoinWarning is how often the log says why the node has not joined yet; 0
	// means half a minute.
	JoinWarning time.Duration
	// Progress is called with each reason why the node has not joined yet.
	Progress func(reason string)
	Log      *slog.Logger
}

// Join brings the node up and listens on it. It waits for as long as the
// coordination server takes, or until ctx ends.
func Join(ctx context.Context, c Config) (*Node, error) {
	if c.ControlURL != "" {
		// Who runs a coordination server of their own sends no logs to Tailscale.
		envknob.SetNoLogsNoSupport()
	}
	j := &joinProgress{server: cmp.Or(c.ControlURL, ipn.DefaultControlURL), secret: c.AuthKey, log: c.Log, every: cmp.Or(c.JoinWarning, warnInterval)}
	c.Progress(j.waiting())
	says := nodeLog(c.Log)
	s := &tsnet.Server{
		Dir:           c.Dir,
		Store:         c.Store,
		Hostname:      c.Hostname,
		AuthKey:       c.AuthKey,
		ControlURL:    c.ControlURL,
		AdvertiseTags: c.AdvertiseTags,
		Logf: func(format string, args ...any) {
			j.onLog(fmt.Sprintf(format, args...))
			says(format, args...)
		},
		UserLogf: says, // j reports what of it concerns people
	}
	lc, err := s.LocalClient() // starts the node, and does not wait for it
	if err != nil {
		return nil, fmt.Errorf("start the tailnet node: %w", err) // it has closed what it had
	}
	explained, stop := context.WithCancel(ctx)
	var explaining sync.WaitGroup
	explaining.Go(func() { j.report(explained, lc, c.Progress) })
	status, err := s.Up(ctx)
	stop()
	explaining.Wait()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("join the tailnet: %w (give an auth key with TS_ENVOY_AUTHKEY, or --listen to do without a tailnet)", err), s.Close())
	}
	listener, err := s.Listen("tcp", fmt.Sprintf(":%d", c.Port))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for xDS on the tailnet: %w", err), s.Close())
	}
	c.Log.Info("joined the tailnet", "name", strings.TrimSuffix(status.Self.DNSName, "."), "addresses", addressTexts(status.TailscaleIPs), "tags", tags(status.Self))
	return &Node{server: s, LocalClient: lc, Listener: listener}, nil
}

// nodeLog takes what the node and its parts say. It is much, and for debugging.
func nodeLog(log *slog.Logger) logger.Logf {
	return func(format string, args ...any) {
		log.Debug("tsnet", "says", strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}

// addressTexts are addresses as people write them, in every format of the log.
func addressTexts(addresses []netip.Addr) []string {
	all := []string{}
	for _, a := range addresses {
		all = append(all, a.String())
	}
	return all
}

func tags(p *ipnstate.PeerStatus) []string {
	if p.Tags == nil {
		return []string{}
	}
	return p.Tags.AsSlice()
}

// OpenStateStore opens where a node's key lives other than in a directory:
// kube:SECRET.
func OpenStateStore(name string, log *slog.Logger) (ipn.StateStore, error) {
	secret, ok := strings.CutPrefix(name, "kube:")
	if !ok || secret == "" {
		return nil, fmt.Errorf("--state-store %q: only kube:SECRET is known", name)
	}
	store, err := kubestore.New(nodeLog(log), secret)
	if err != nil {
		return nil, fmt.Errorf("open the node's state in the Kubernetes secret %s: %w", secret, err)
	}
	return store, nil
}

// Peer is a device of the tailnet.
type Peer struct {
	Name      string // full, without the last dot
	Tags      []string
	Addresses []netip.Addr
}

// ErrUnknownPeer says that no device of the tailnet has an address.
var ErrUnknownPeer = errors.New("no device of the tailnet has this address")

// WhoIs asks the tailnet which device has an address: [ErrUnknownPeer] if none
// has it.
func (t *Node) WhoIs(ctx context.Context, from netip.AddrPort) (Peer, error) {
	who, err := t.LocalClient.WhoIs(ctx, from.String())
	if errors.Is(err, local.ErrPeerNotFound) {
		return Peer{}, ErrUnknownPeer
	} else if err != nil {
		return Peer{}, fmt.Errorf("WhoIs: %w", err)
	}
	peer := Peer{Name: nodeName(who), Tags: who.Node.Tags}
	for _, p := range who.Node.Addresses {
		peer.Addresses = append(peer.Addresses, p.Addr())
	}
	return peer, nil
}

// KeyExpiry is when the node's key expires; nil if it never does, or if the
// node does not say.
func (t *Node) KeyExpiry(ctx context.Context) *time.Time {
	status, err := t.LocalClient.StatusWithoutPeers(ctx)
	if err != nil || status.Self == nil {
		return nil
	}
	return status.Self.KeyExpiry
}

// Close leaves the tailnet's sockets; the node stays known to the tailnet, so
// that a restart has the same name and address.
func (t *Node) Close() { _ = t.server.Close() }
