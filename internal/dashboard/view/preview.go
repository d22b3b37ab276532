package view

import (
	"fmt"
	"slices"

	"github.com/tailxds/tailxds/internal/dashboard"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/traffic"
)

// Preview is what an act would do to the expected shares of the regions.
func (f Input) Preview(a dashboard.Action) dashboard.Preview {
	p := dashboard.Preview{Regions: []string{}, Before: []float64{}, After: []float64{}}
	i := slices.IndexFunc(f.Services, func(s topology.Service) bool { return s.Name == f.Table.Service })
	if i < 0 {
		return p
	}
	service := f.Services[i]
	next := afterAction(a, service, f.heldEndpoints(service.Name))
	if len(next.Serving()) == 0 && len(service.Serving()) > 0 && a.Kind == dashboard.ActDrain {
		p.NoEffect = fmt.Sprintf("Nobody else serves %s: it serves on until another does, or until that loss is accepted.", service.Name)
		next = service
	}
	if a.Kind == dashboard.ActRestore && next.SameServing(service) {
		p.NoEffect = "Its own tags or grants still keep it from serving."
	}
	c := f.Traffic
	c.Topology = topology.Topology{Services: []topology.Service{next}}
	then := TableOf(traffic.Tables(c), service.Name)
	for _, region := range f.order().regions {
		before, now := expectedShare(f.Table, region), expectedShare(then, region)
		if before > 0 || now > 0 {
			p.Regions, p.Before, p.After = append(p.Regions, region), append(p.Before, before), append(p.After, now)
		}
	}
	return p
}

func (f Input) heldEndpoints(service string) []guard.HeldEndpoint {
	for _, h := range f.Held {
		if h.Service == service {
			return h.Endpoints
		}
	}
	return nil
}

// afterAction is a service once an act is done.
func afterAction(a dashboard.Action, s topology.Service, held []guard.HeldEndpoint) topology.Service {
	endpoints := slices.Concat(s.Serving(), s.Idle)
	for i := range endpoints {
		e := &endpoints[i]
		gone := slices.ContainsFunc(held, func(h guard.HeldEndpoint) bool { return h.Device == e.Device && h.Address == e.Address.String() })
		switch {
		case a.Kind == dashboard.ActAccept && gone:
			e.State = topology.Offline
		case a.Kind == dashboard.ActDrain && e.Device == a.Device && e.State == topology.Serving:
			e.State = topology.Drained
		case a.Kind == dashboard.ActRestore && e.Device == a.Device && e.State == topology.Drained && e.Weight > 0:
			e.State = topology.Serving
		}
	}
	return topology.NewService(s.Name, endpoints)
}

func expectedShare(t traffic.Table, region string) (share float64) {
	for _, s := range t.Servers {
		if s.Region == region {
			share += s.Expected
		}
	}
	return share
}
