package controlplane

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// explain explains one service, one device, or all endpoints.
func (c *ControlPlane) explain(of, from string) (api.Explanation, error) {
	doc := api.Explanation{At: time.Now(), Devices: []api.ExplainedDevice{}}
	p := c.published.Load()
	if p == nil {
		_, detail := c.readiness()
		return doc, fmt.Errorf("nothing can be explained yet: %s", detail)
	}
	known := p.knownDevices()
	view := c.reports.View(doc.At)
	if from != "" {
		caller, err := drain.Find(from, known)
		if err != nil {
			return doc, fmt.Errorf("--from: %w", err)
		}
		doc.From, view = caller.Name, viewOf(p, view, caller)
	}
	service, device := "", drain.Device{}
	switch {
	case of == "":
	case slices.ContainsFunc(p.topology.Services, func(s topology.Service) bool { return s.Name == of }):
		service = of
	default:
		var err error
		if device, err = drain.Find(of, known); err != nil {
			return doc, unknownServiceOrDevice(p, of, err)
		}
	}
	tables := traffic.Tables(c.trafficInput(p, view))
	for _, k := range known {
		if device.ID != "" && device.ID != k.ID {
			continue
		}
		x := p.explain(k, tables)
		if service != "" {
			x.Endpoints = slices.DeleteFunc(x.Endpoints, func(e api.ExplainedEndpoint) bool { return e.Service != service })
		}
		if device.ID != "" || len(x.Endpoints) > 0 || (service == "" && len(x.Problems) > 0) {
			doc.Devices = append(doc.Devices, x)
		}
	}
	slices.SortStableFunc(doc.Devices, func(a, b api.ExplainedDevice) int { return cmp.Compare(a.Name, b.Name) })
	return doc, nil
}

// unknownServiceOrDevice is the error for a name of neither; err is why it is no
// device.
func unknownServiceOrDevice(p *snapshot, name string, err error) error {
	var unknown drain.UnknownError
	if !errors.As(err, &unknown) {
		return err // it is several
	}
	var names []string
	for _, s := range p.topology.Services {
		names = append(names, s.Name)
	}
	for _, d := range p.knownDevices() {
		names = append(names, d.Name)
	}
	return input.UnknownName("service or device", name, names)
}

// knownDevices are the devices of the list, and those that are published without it.
func (p *snapshot) knownDevices() []drain.Device {
	var all []drain.Device
	listed := make(map[string]bool)
	for _, device := range p.devices {
		k := drain.Device{ID: device.ID, Name: device.Name}
		for _, text := range device.Addresses {
			if a, err := netip.ParseAddr(text); err == nil {
				k.Addresses = append(k.Addresses, a.Unmap())
			}
		}
		listed[device.ID] = true
		all = append(all, k)
	}
	for _, s := range p.topology.Services {
		for _, e := range slices.Concat(s.Serving(), s.Idle) {
			if !listed[e.Device] {
				listed[e.Device] = true
				all = append(all, drain.Device{ID: e.Device, Name: e.Name, Addresses: []netip.Addr{e.Address.Addr()}})
			}
		}
	}
	return all
}

// viewOf is what the Envoys of one device measured. One that does not report
// is taken to be where the tailnet knows its device.
func viewOf(p *snapshot, view traffic.View, caller drain.Device) traffic.View {
	own := func(e traffic.Envoy) bool { return slices.Contains(caller.Addresses, e.Address) && !e.Stale }
	view.Envoys = slices.DeleteFunc(view.Envoys, func(e traffic.Envoy) bool { return !own(e) })
	if len(view.Envoys) > 0 {
		return view
	}
	silent := traffic.Envoy{Device: caller.Name}
	for _, device := range p.devices {
		if device.ID == caller.ID {
			silent.Region = topology.RegionOf(device.Tags, p.rules.TagPrefix)
		}
	}
	regions := p.topology.Regions()
	for _, a := range caller.Addresses {
		silent.Region = cmp.Or(regions[a], silent.Region)
	}
	for _, s := range p.topology.Services {
		silent.Services = append(silent.Services, traffic.Service{Name: s.Name})
	}
	view.Envoys = []traffic.Envoy{silent}
	return view
}

// explain explains one device.
func (p *snapshot) explain(k drain.Device, tables []traffic.Table) api.ExplainedDevice {
	x := api.ExplainedDevice{ID: k.ID, Name: k.Name, Problems: []topology.Problem{}, Endpoints: []api.ExplainedEndpoint{}}
	if len(k.Addresses) > 0 {
		x.Address = k.Addresses[0].String()
	}
	for _, device := range p.devices {
		if device.ID != k.ID {
			continue
		}
		x.Listed = true
		why := topology.Explain(device, p.rules)
		x.Missing = why.Missing
		for _, of := range why.Services {
			x.Endpoints = append(x.Endpoints, api.ExplainedEndpoint{Service: of.Service, Values: of.Values})
		}
	}
	for _, problem := range p.problems {
		if problem.Device == k.ID {
			x.Problems = append(x.Problems, problem)
		}
	}
	for _, t := range tables {
		for _, s := range t.Servers {
			if s.Device == k.ID {
				addServer(&x, t.Service, s)
			}
		}
	}
	for _, h := range p.held {
		for _, e := range h.Endpoints {
			if e.Device == k.ID {
				setHeld(&x, h.Service, fmt.Sprintf("the list says %s. %s", e.Listed, h.Reason))
			}
		}
	}
	return x
}

// addServer adds what became of the device in a service.
func addServer(x *api.ExplainedDevice, service string, s traffic.Server) {
	for i := range x.Endpoints {
		e := &x.Endpoints[i]
		if e.Service == service && e.Server == nil && portOf(e.Values) == fmt.Sprint(s.Address.Port()) {
			e.Server = &s
			return
		}
	}
	// It is published though it does not say so now.
	x.Endpoints = append(x.Endpoints, api.ExplainedEndpoint{Service: service, Values: []topology.Value{}, Server: &s})
}

func portOf(values []topology.Value) string {
	for _, v := range values {
		if v.Key == "port" {
			return v.Value
		}
	}
	return ""
}

// setHeld says why a device is held in a service.
func setHeld(x *api.ExplainedDevice, service, why string) {
	for i := range x.Endpoints {
		if e := &x.Endpoints[i]; e.Service == service {
			e.Held = why
		}
	}
}
