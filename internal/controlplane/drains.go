package controlplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/events"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/topology"
)

// drainRequest is what an operator wants of a device.
type drainRequest struct {
	device string // a name, ID or address
	drain  bool
	long   time.Duration // of a drain; 0 is without an end
	by     string
	answer chan drainResult
}

// drainResult answers an order.
type drainResult struct {
	text  string
	saved <-chan error // gets nil once the drain is saved, or the error
	err   error
}

// drain takes a device out of all its services, until long is over if it is not
// 0, whatever attributes, grants and tags say. The answer is a sentence for the
// operator, whom by names. It returns once that is published and kept.
func (c *ControlPlane) drain(ctx context.Context, device string, long time.Duration, by string) (string, error) {
	return c.requestDrain(ctx, drainRequest{device: device, drain: true, long: long, by: by})
}

// restore takes back what drain said.
func (c *ControlPlane) restore(ctx context.Context, device, by string) (string, error) {
	return c.requestDrain(ctx, drainRequest{device: device, by: by})
}

// errNotYet answers an operator before there is anything to steer.
var errNotYet = errors.New("the control plane knows no devices yet")

// requestDrain hands an order to the loop, and waits until it is obeyed.
func (c *ControlPlane) requestDrain(ctx context.Context, o drainRequest) (string, error) {
	o.answer = make(chan drainResult, 1)
	select {
	case c.drainRequests <- o:
	case <-ctx.Done():
		return "", fmt.Errorf("hand the drain to the control plane: %w", context.Cause(ctx))
	}
	a := <-o.answer
	if a.err != nil {
		return "", a.err
	}
	select {
	case err := <-a.saved:
		if err != nil {
			a.text += fmt.Sprintf("; BUT a restart would forget it, since it can't be kept: %v", err)
		}
	case <-ctx.Done():
		a.text += "; whether it is kept over a restart is not known yet"
	}
	return a.text + c.waitForPeers(ctx), nil
}

// applyDrain does what an operator wants, and says what came of it. Only the loop
// calls it.
func (c *ControlPlane) applyDrain(o drainRequest, now time.Time) drainResult {
	if c.list.Provider == "" {
		return drainResult{err: errNotYet}
	}
	devices := c.planInput().devices()
	devices = append(devices, c.drains.Unknown(c.list.Provider, devices, now)...)
	device, err := drain.Find(o.device, devices)
	if err != nil {
		return drainResult{err: err}
	}
	before, drained := c.drains.Active(c.list.Provider, devices, now)[device.ID]
	if !o.drain && !drained {
		return drainResult{text: fmt.Sprintf("%s was not drained by an operator%s", device, whyNotServing(c.published.Load(), device.ID)), saved: saved()}
	}
	record := drain.Record{
		Provider: c.list.Provider, Device: device.ID, Name: device.Name, Addresses: device.Addresses[:min(len(device.Addresses), drain.MaxAddresses)],
		Drain: o.drain, By: o.by, At: now,
	}
	if o.long > 0 {
		record.Until = now.Add(o.long)
	}
	if err := errors.Join(record.Check(), record.CheckDates(now)); err != nil {
		return drainResult{err: err}
	}
	if o.drain && !drained && c.drains.Full(now) {
		return drainResult{err: fmt.Errorf("%d devices are drained, and no more can be: restore some, or set their weight to 0 where they are described", drain.MaxRecords)}
	}
	c.drains = c.drains.Add(record)
	change := events.Event{Kind: events.Drain, Device: device.ID, Name: device.Name, By: o.by, Text: device.Name + " is drained by " + topology.Drain{By: o.by, Until: record.Until}.String()}
	if !o.drain {
		change.Kind, change.Text = events.Restore, device.Name+" is restored; it was drained by "+before.String()
	}
	c.events.Add(now, 0, change)
	saved := c.reconcile(now)
	if !o.drain {
		c.log.Warn("an operator restored a device", "device", device.ID, "name", device.Name, "by", o.by)
		return drainResult{text: fmt.Sprintf("%s serves again as its own metadata says; it was drained by %s%s", device, before, whyNotServing(c.published.Load(), device.ID)), saved: saved}
	}
	c.log.Warn("an operator drained a device", "device", device.ID, "name", device.Name, "by", o.by, "until", record.Until)
	return drainResult{text: c.drainAnswer(device, record), saved: saved}
}

// drainAnswer says what came of a drain.
func (c *ControlPlane) drainAnswer(device drain.Device, record drain.Record) string {
	ends := "until `tailxds restore " + cmp.Or(device.Name, device.ID) + "`"
	if !record.Until.IsZero() {
		ends = "until " + record.Until.UTC().Format("2006-01-02 15:04:05 MST") + ", or " + ends
	}
	if text := c.publishErr.Load(); text != nil {
		return fmt.Sprintf("%s is to be drained %s, BUT nothing can be published now: %s", device, ends, *text)
	}
	p := c.published.Load()
	var stuck []string
	for _, h := range p.held {
		if slices.ContainsFunc(h.Endpoints, func(e guard.HeldEndpoint) bool { return e.Device == device.ID }) {
			stuck = append(stuck, fmt.Sprintf("nobody else serves %s, so it serves on there until another does, or until `tailxds accept %s`", h.Service, h.Service))
		}
	}
	switch {
	case len(stuck) > 0:
		return fmt.Sprintf("%s is to be drained %s; BUT %s", device, ends, strings.Join(stuck, "; "))
	case len(services(p.topology, device.ID)) == 0:
		return fmt.Sprintf("%s serves nothing now, and will take no requests %s", device, ends)
	default:
		return fmt.Sprintf("%s takes no new requests %s; what it is working on, it ends", device, ends)
	}
}

// saved is a channel that says at once that the state is saved.
func saved() <-chan error {
	c := make(chan error, 1)
	c <- nil
	return c
}

// services are the names of those that a device is an endpoint of.
func services(t topology.Topology, id string) []string {
	var names []string
	for _, s := range t.Services {
		if slices.ContainsFunc(slices.Concat(s.Serving(), s.Idle), func(e topology.Endpoint) bool { return e.Device == id }) {
			names = append(names, s.Name)
		}
	}
	return names
}

// whyNotServing says why a device that no operator drained does not serve.
func whyNotServing(p *snapshot, id string) string {
	if p == nil {
		return ""
	}
	var why []string
	for _, s := range p.topology.Services {
		for _, e := range s.Idle {
			switch {
			case e.Device != id:
			case e.State == topology.Drained:
				why = append(why, "it is drained in "+s.Name+" by its own weight of 0")
			default:
				why = append(why, fmt.Sprintf("it is %s in %s", e.State, s.Name))
			}
		}
	}
	if len(why) == 0 {
		return ""
	}
	return "; " + strings.Join(why, ", ")
}

// devices are those that an operator can name: those of the list, and those that
// are still published though the list lacks them.
func (k planInput) devices() []drain.Device {
	var all []drain.Device
	index := make(map[string]int)
	add := func(id, name string, addresses ...netip.Addr) {
		i, there := index[id]
		if !there {
			i = len(all)
			index[id] = i
			all = append(all, drain.Device{ID: id, Name: name})
		}
		for _, a := range addresses {
			if !slices.Contains(all[i].Addresses, a) {
				all[i].Addresses = append(all[i].Addresses, a)
			}
		}
	}
	for _, device := range k.list.Devices {
		add(device.ID, device.Name)
		for _, text := range device.Addresses {
			if a, err := netip.ParseAddr(text); err == nil {
				add(device.ID, device.Name, a.Unmap())
			}
		}
	}
	for _, s := range k.memory.Services {
		for _, e := range slices.Concat(s.Published, s.LastDescribed, s.RecentlyRemoved) {
			if _, listed := index[e.Device]; !listed {
				add(e.Device, e.Name, e.Address.Addr())
			}
		}
	}
	return all
}

// pruneDrains removes and reports the drains that have ended. Only the loop calls it.
func (c *ControlPlane) pruneDrains(now time.Time) {
	if c.drains.Empty() {
		return
	}
	pruned, ended := c.drains.Prune(now)
	for i, w := range ended {
		if i == maxLoggedDrains {
			c.log.Info("further drains have ended", "drains", len(ended)-i)
			c.events.Add(now, 0, events.Event{Kind: events.Restore, Text: fmt.Sprintf("%d further drains have ended", len(ended)-i)})
			break
		}
		c.log.Info("an operator's drain has ended", "device", w.Device, "name", w.Name, "by", w.By, "until", w.Until)
		c.events.Add(now, 0, events.Event{Kind: events.Restore, Device: w.Device, Name: w.Name, Text: "the drain of " + w.Name + " has ended; it was " + w.By + "'s"})
	}
	k := c.planInput()
	devices := k.devices()
	if c.list.At.IsZero() {
		devices = nil // the devices are not known yet
	}
	var dropped int
	c.drains, ended, dropped = pruned.Observe(k.list.Provider, devices, now)
	if len(ended) > 0 {
		c.log.Info("drains and restorations are forgotten of devices that are gone for a week", "devices", len(ended), "first", ended[0].Name)
	}
	if dropped > 0 {
		c.log.Warn("there are more drains and restorations than are kept", "kept", drain.MaxRecords, "dropped", dropped)
	}
}

// maxLoggedDrains bounds the log lines of one event about many devices.
const maxLoggedDrains = 20
