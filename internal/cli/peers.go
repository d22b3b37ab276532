package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"tailscale.com/client/tailscale/apitype"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/drain/peersync"
	"github.com/tailxds/tailxds/internal/topology"
)

// dialOperator connects to another node of the tailnet, if the policy lets that
// node operate this one: what it says is believed then.
func (t *tailnet) dialOperator(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := t.server.Dial(ctx, network, address)
	if err != nil {
		return nil, err // says what was dialled
	}
	who, err := t.local.WhoIs(ctx, conn.RemoteAddr().String())
	switch {
	case err != nil:
		err = fmt.Errorf("who is %s: %w", conn.RemoteAddr(), err)
	case adminRole(who) != dashboard.RoleOperate:
		err = fmt.Errorf(`it is not believed: the tailnet's policy must grant %s {"role": "operate"} from %s to this control plane`, dashboard.Capability, whoName(who))
	default:
		return conn, nil
	}
	return nil, errors.Join(err, conn.Close())
}

// nameOf is the name of the node that has an address.
func (t *tailnet) nameOf(ctx context.Context, remote string) (string, error) {
	who, err := t.local.WhoIs(ctx, remote)
	if err != nil {
		return "", fmt.Errorf("who is %s: %w", remote, err)
	}
	return whoName(who), nil
}

func whoName(who *apitype.WhoIsResponse) string { return strings.TrimSuffix(who.Node.Name, ".") }

// others are the control planes to exchange words with: all that were named but
// for this one, so that all can be given the same names.
func (o options) others() []string {
	return slices.DeleteFunc(slices.Clone(o.Peers), func(name string) bool {
		host, _, err := net.SplitHostPort(name)
		if err != nil {
			host = name
		}
		first, _, _ := strings.Cut(host, ".")
		return strings.EqualFold(first, o.Hostname)
	})
}

// pagePort is where the tailnet finds the live page, http://tsnet-dynamic-eds/,
// and other control planes find this one.
const pagePort = ":80"

// meet prepares what the tailnet finds on port 80: the live page, and the
// exchange with other control planes, if there are any. It returns what serves
// them until its context ends.
func (d *daemon) meet(t *tailnet) (func(context.Context) error, error) {
	listener, err := t.server.Listen("tcp", pagePort)
	if err != nil {
		return nil, fmt.Errorf("listen for the live page on the tailnet: %w", err)
	}
	pages := http.NewServeMux()
	door := t.door()
	pages.Handle("/", d.page.Handler(door))
	pages.Handle("POST /diff", door.AdmitOperators(d.diffs))
	if names := d.o.others(); len(names) > 0 {
		d.exchange = peersync.New(peersync.Config{
			Names: names, Dial: t.dialOperator, PeerName: t.nameOf, Log: d.log,
			Receive: func(ctx context.Context, words []drain.Record) {
				select {
				case d.heard <- words:
				case <-ctx.Done():
				}
			},
		})
		pages.Handle("GET "+peersync.Path, door.Admit(d.exchange))
	}
	return func(ctx context.Context) error {
		var on errgroup.Group
		on.Go(func() error { return api.Serve(ctx, listener, pages) })
		if d.exchange != nil {
			on.Go(func() error { return d.exchange.Run(ctx) })
		}
		return on.Wait()
	}, nil
}

// connected are the addresses of the devices whose Envoys are connected here or
// to another control plane.
func (d *daemon) connected() map[netip.Addr]bool {
	all := d.server.Connected()
	if d.exchange == nil {
		return all
	}
	all = maps.Clone(all)
	for _, a := range d.exchange.Connected() {
		all[a] = true
	}
	return all
}

// learn takes what operators said to another control plane. Only the loop calls
// it.
func (d *daemon) learn(words []drain.Record, now time.Time) {
	type said struct {
		device string
		at     int64
	}
	known := make(map[said]bool)
	for _, w := range d.words.Records() {
		known[said{w.Device, w.At.UnixNano()}] = true
	}
	d.words = d.words.Merge(words, now)
	d.prune(now) // also while nothing can be published yet
	heard := 0
	for _, w := range d.words.Records() {
		if known[said{w.Device, w.At.UnixNano()}] {
			continue
		}
		if heard++; heard <= maxTold {
			d.log.Warn("an operator told another control plane", "device", w.Device, "name", w.Name, "drain", w.Drain, "by", w.By, "until", w.Until)
		}
	}
	if heard > maxTold {
		d.log.Warn("operators told another control plane more", "devices", heard-maxTold)
	}
}

// others are the other control planes; none before the tailnet is joined.
func (d *daemon) others() []peersync.State {
	if !d.started() || d.exchange == nil {
		return nil
	}
	return d.exchange.States()
}

// tellOthers is how long an operator waits for other control planes to know,
// unless options say otherwise.
const tellOthers = 3 * time.Second

// spread waits until the others know what was said here, and says who does not.
func (d *daemon) spread(ctx context.Context) string {
	if d.exchange == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(d.o.TellOthers, tellOthers))
	defer cancel()
	var text strings.Builder
	for _, s := range d.exchange.WaitSynced(ctx) {
		if s.Synced {
			fmt.Fprintf(&text, "; %s knows, too", s.Name)
		} else {
			fmt.Fprintf(&text, "; BUT %s does not know yet, and will as soon as it asks", s.Name)
		}
	}
	return text.String()
}

// estranged are other control planes that don't hear what operators say here, or
// that can't be heard.
func estranged(states []peersync.State, self string, now time.Time) []topology.Problem {
	const silent = time.Minute
	var problems []topology.Problem
	for _, s := range states {
		p := topology.Problem{Name: s.Name, Subject: "peer"}
		switch {
		case s.Error != "":
			p.Reason = "what operators tell it is not heard here: " + s.Error
		case !s.LastAnswer.IsZero() && now.Sub(s.LastPoll) > silent:
			p.Reason = "it does not ask what operators say here: give it --peer " + self
		default:
			continue
		}
		problems = append(problems, p)
	}
	return problems
}
