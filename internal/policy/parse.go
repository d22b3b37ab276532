package policy

import (
	"maps"
	"slices"
	"strings"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/yamldoc"
)

// Parse reads a policy file, strictly: an unknown key, a bad value or
// two services that claim the same host are [yamldoc.Faults], and all of them are told.
func Parse(source []byte) (Policy, error) {
	root, err := yamldoc.ParseWithin(source, policyLimits())
	if err != nil {
		return Policy{}, err
	}
	p := readPolicy(root)
	return p, root.Err()
}

// policyLimits bound a policy file: some 1,000 services with 30 keys each.
func policyLimits() yamldoc.Limits { return yamldoc.Limits{Bytes: 1 << 20, Values: 150_000} }

const (
	// maxServices bounds the services of a policy file: each costs half a
	// millisecond whenever the file changes.
	maxServices = 1_000
	// maxHosts and maxSources bound the hosts of a service and what the ingress
	// lets in: each change is sent to every Envoy.
	maxHosts   = 1_000
	maxSources = 1_000
)

// readPolicy reads the whole file.
func readPolicy(s yamldoc.Section) Policy {
	p := Default()
	if s.Null() {
		return p
	}
	var services yamldoc.Section
	for _, e := range s.Entries() {
		switch e.Name {
		case "defaults":
			p.Defaults = readDefaults(e.Section, p.Defaults)
		case "ingress":
			p.Ingress = readIngress(e.Section, p.Ingress)
		case "services":
			services = e.Section
		default:
			e.AtKey.AddUnknownKeys([]string{"defaults", "ingress", "services"})
		}
	}
	sound := p.readServices(services, s.At("defaults").Valid())
	p.distinctPorts(sound)
	p.routable(sound)
	p.distinctHosts(sound)
	return p
}

// readServices reads all services, and returns the sections of those in which
// nothing is wrong.
func (p *Policy) readServices(s yamldoc.Section, goodDefaults bool) map[string]yamldoc.Section {
	p.Services = make(map[string]Service)
	sound := make(map[string]yamldoc.Section)
	if s.Null() {
		return sound
	}
	defaults := p.Defaults
	if !goodDefaults {
		defaults = Default().Defaults // what they got wrong is told there
	}
	as := make(map[string]string) // how a name is written
	entries := s.Entries()
	if len(entries) > maxServices {
		s.AddError("must be at most %d services", maxServices)
		return sound
	}
	for _, e := range entries {
		name := strings.ToLower(e.Name)
		if err := topology.ValidName(name); err != nil {
			e.AtKey.AddError("the service name %q %v", e.Name, err)
		}
		if first, twice := as[name]; twice {
			e.AtKey.AddError("the service stands there twice, as %s, too; names differ in more than case", first)
		}
		as[name] = e.Name
		p.Services[name] = readService(e.Section, defaults, goodDefaults)
		if e.Valid() {
			sound[name] = e.Section
		}
	}
	return sound
}

func readDefaults(s yamldoc.Section, builtIn Service) Service {
	p := readService(s, builtIn, true)
	if len(p.Hosts) > 0 {
		s.At("hosts").AddError("hosts belong to one service, not to all")
	}
	if len(p.Routes) > 0 {
		s.At("routes").AddError("routes belong to one service, not to all")
	}
	if p.Protocol == TCP {
		s.At("protocol").AddError("tcp belongs to one service, with a port of its own")
	}
	return p
}

// mostHops is more proxies than anyone has in front of an Envoy.
const mostHops = 10

// readIngress reads who is let in, and where. A list replaces the default one.
func readIngress(s yamldoc.Section, p Ingress) Ingress {
	if s.Null() {
		return p
	}
	s.Read(&p)
	if len(p.Allow) > maxSources {
		s.At("allow").AddError("must be at most %d sources", maxSources)
		return p
	}
	hold(s, p.checks())
	for i, source := range p.Allow {
		if _, err := SourceRanges(source); err != nil {
			s.At("allow").Item(i).Require(false, err.Error())
		}
	}
	return p
}

// hold notes which values are not what they must be.
func hold(s yamldoc.Section, checks []check) {
	for _, c := range checks {
		s.At(c.path).Require(c.ok, c.want)
	}
}

// readService reads one service's policy over its defaults. Rules on what goes
// together are asked only where each value is right by itself, also those that
// are taken over.
func readService(s yamldoc.Section, defaults Service, goodDefaults bool) Service {
	p := defaults
	p.Hosts, p.Routes = nil, nil
	if s.Null() {
		return p
	}
	s.Read(&p)
	if len(p.Hosts) > maxHosts {
		s.At("hosts").AddError("must be at most %d hosts", maxHosts)
		return p
	}
	for i, host := range p.Hosts {
		p.Hosts[i] = strings.ToLower(host)
	}
	failover := s.At("failover").Written()
	if len(p.Failover) == 0 || (p.Locality != balance.Local && !failover) {
		p.Failover = nil // none, or those of the defaults
	}
	hold(s, p.checks())
	readRoutes(s.At("routes"), p.Routes)
	if !s.Valid() || !goodDefaults {
		return p
	}
	hold(s, p.together(failover))
	for _, m := range p.meaningless() {
		if at := s.At(m.path); at.Written() {
			at.AddError("%s", m.want)
		}
	}
	return p
}

// distinctPorts guards that each port is taken by one service, or by the ingress.
func (p Policy) distinctPorts(services map[string]yamldoc.Section) {
	owner := map[uint16]string{p.Ingress.Port: "the ingress of all others"}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		s := p.Services[name]
		if s.Protocol != TCP {
			continue
		}
		if first, taken := owner[s.Listen]; taken {
			services[name].At("listen").AddError("port %d is taken by %s", s.Listen, first)
		}
		owner[s.Listen] = "service " + name
	}
}

// distinctHosts guards that each domain belongs to one service.
func (p Policy) distinctHosts(services map[string]yamldoc.Section) {
	owner := make(map[string]string)
	for name := range p.Services {
		owner[name] = name
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		for i, host := range p.Services[name].Hosts {
			if host == name {
				continue // it has that one anyway
			}
			if first, taken := owner[host]; taken {
				services[name].At("hosts").Item(i).AddError("the host %s belongs to service %s already", host, first)
			}
			owner[host] = name
		}
	}
}
