package xds

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/topology"
)

// ParsePolicy reads a policy file, strictly: an unknown key, a bad value or
// two services that claim the same host are errors that tell their line. What
// it takes can be built with every topology, and Envoy takes it.
func ParsePolicy(source []byte) (p Policy, err error) {
	// The YAML library panics on some broken input, which must not cost a
	// running control plane its life.
	defer func() {
		if r := recover(); r != nil {
			p, err = Policy{}, fmt.Errorf("parse policy: this is no YAML that can be read (%v)", r)
		}
	}()
	if !utf8.Valid(source) {
		return Policy{}, fmt.Errorf("parse policy: line %d is no UTF-8 text", 1+strings.Count(string(source[:invalidAt(source)]), "\n"))
	}
	file, err := parser.ParseBytes(source, 0)
	if err != nil {
		return Policy{}, fmt.Errorf("parse policy: %s", yaml.FormatError(err, false, true))
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return DefaultPolicy(), nil
	}
	if len(file.Docs) > 1 {
		return Policy{}, fmt.Errorf("parse policy: one YAML document is wanted, not %d", len(file.Docs))
	}
	if p, err = parseDocument(file.Docs[0].Body); err != nil {
		return Policy{}, err
	}
	// The rules above should leave nothing that can't be built. Where they do,
	// it must be refused here, and not at the next change of a device.
	sample := topology.Topology{Services: []topology.Service{{Name: "server"}}}
	if _, err := build(sample, p, "server", nil); err != nil {
		return Policy{}, fmt.Errorf("parse policy: Envoy would refuse it: %w", err)
	}
	return p, nil
}

// invalidAt is where the first byte stands that is no UTF-8.
func invalidAt(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size <= 1 {
			return i
		}
		i += size
	}
	return len(text)
}

func parseDocument(body ast.Node) (Policy, error) {
	var document struct {
		Defaults ast.Node            `yaml:"defaults"`
		Services map[string]ast.Node `yaml:"services"`
		Ingress  ast.Node            `yaml:"ingress"`
	}
	if err := decode(body, &document); err != nil {
		return Policy{}, err
	}
	p := DefaultPolicy()
	var err error
	if p.Ingress, err = parseIngress(document.Ingress, p.Ingress); err != nil {
		return Policy{}, fmt.Errorf("ingress: %w", err)
	}
	if document.Defaults != nil {
		if p.Defaults, err = parseService(document.Defaults, p.Defaults); err != nil {
			return Policy{}, fmt.Errorf("defaults: %w", err)
		}
		if len(p.Defaults.Hosts) > 0 {
			return Policy{}, fmt.Errorf("line %d: defaults: hosts belong to one service, not to all", lineOf(document.Defaults, "hosts"))
		}
		if len(p.Defaults.Routes) > 0 {
			return Policy{}, fmt.Errorf("line %d: defaults: routes belong to one service, not to all", lineOf(document.Defaults, "routes"))
		}
		if p.Defaults.Protocol == TCP {
			return Policy{}, fmt.Errorf("line %d: defaults: protocol: tcp belongs to one service, with a port of its own", lineOf(document.Defaults, "protocol"))
		}
	}
	p.Services = make(map[string]ServicePolicy, len(document.Services))
	for _, name := range slices.Sorted(maps.Keys(document.Services)) {
		node := document.Services[name]
		lower := strings.ToLower(name)
		if err := topology.ValidName(lower); err != nil {
			return Policy{}, fmt.Errorf("line %d: the service name %q %w", line(node), name, err)
		}
		if _, twice := p.Services[lower]; twice {
			return Policy{}, fmt.Errorf("line %d: the service %q stands there twice; names differ in more than case", line(node), name)
		}
		if p.Services[lower], err = parseService(node, p.Defaults); err != nil {
			return Policy{}, fmt.Errorf("service %s: %w", name, err)
		}
	}
	if err := p.distinctPorts(document.Services); err != nil {
		return Policy{}, err
	}
	if err := p.routable(document.Services); err != nil {
		return Policy{}, err
	}
	return p, p.distinctHosts(document.Services)
}

func decode(node ast.Node, into any) error {
	if err := yaml.NodeToValue(node, into, yaml.Strict()); err != nil {
		return fmt.Errorf("parse policy: %s", yaml.FormatError(err, false, true))
	}
	return nil
}

func line(node ast.Node) int {
	if node == nil {
		return 0
	}
	return node.GetToken().Position.Line
}

// mostHops is more proxies than anyone has in front of an Envoy.
const mostHops = 10

// parseIngress reads who is let in, and where. A list replaces the default one.
func parseIngress(node ast.Node, defaults IngressPolicy) (IngressPolicy, error) {
	if node == nil || node.Type() == ast.NullType {
		return defaults, nil
	}
	// As wide as the file's numbers, so that one that is too large is named.
	i := struct {
		Port        int64    `yaml:"port"`
		Allow       []string `yaml:"allow"`
		TrustedHops int64    `yaml:"trusted_hops"`
		AccessLog   string   `yaml:"access_log"`
	}{int64(defaults.Port), defaults.Allow, int64(defaults.TrustedHops), defaults.AccessLog}
	if err := decode(node, &i); err != nil {
		return IngressPolicy{}, err
	}
	if i.Port < 1 || i.Port > math.MaxUint16 {
		return IngressPolicy{}, fmt.Errorf("line %d: port must be from 1 to 65535", lineOf(node, "port"))
	}
	if len(i.Allow) == 0 {
		return IngressPolicy{}, fmt.Errorf("line %d: allow must name who is let in, such as %s or 10.0.0.0/8", lineOf(node, "allow"), FromTailnet)
	}
	for n, source := range i.Allow {
		if _, err := sourceRanges(source); err != nil {
			return IngressPolicy{}, fmt.Errorf("line %d: allow: %w", lineOf(node, fmt.Sprintf("allow[%d]", n)), err)
		}
	}
	if i.TrustedHops < 0 || i.TrustedHops > mostHops {
		return IngressPolicy{}, fmt.Errorf("line %d: trusted_hops must be from 0 to %d", lineOf(node, "trusted_hops"), mostHops)
	}
	if !slices.Contains([]string{LogNone, LogErrors, LogAll}, i.AccessLog) {
		return IngressPolicy{}, fmt.Errorf("line %d: access_log must be %s, %s or %s", lineOf(node, "access_log"), LogNone, LogErrors, LogAll)
	}
	return IngressPolicy{Port: uint16(i.Port), Allow: i.Allow, TrustedHops: uint32(i.TrustedHops), AccessLog: i.AccessLog}, nil
}

// parseService reads one service's policy over its defaults.
func parseService(node ast.Node, defaults ServicePolicy) (ServicePolicy, error) {
	if node == nil || node.Type() == ast.NullType {
		return defaults, nil
	}
	s := defaults
	s.Hosts = nil
	if err := decode(node, &s); err != nil {
		return ServicePolicy{}, err
	}
	for i, host := range s.Hosts {
		s.Hosts[i] = strings.ToLower(host)
	}
	if len(s.Failover) == 0 || (s.Locality != balance.Local && !written(node, "failover")) {
		s.Failover = nil // none, or those of the defaults
	}
	for _, c := range s.checks() {
		if !c.ok {
			return ServicePolicy{}, fmt.Errorf("line %d: %s %s", lineOf(node, c.path), c.path, c.want)
		}
	}
	if s.Locality != balance.Local && len(s.Failover) > 0 && written(node, "failover") {
		return ServicePolicy{}, fmt.Errorf("line %d: failover goes with locality: local only: the other modes send to all regions", lineOf(node, "failover"))
	}
	if s.Locality == balance.Exact && s.LoadBalancing == "least_request" {
		return ServicePolicy{}, fmt.Errorf("line %d: locality: exact needs load_balancing: round_robin or random: least_request gives no exact shares", lineOf(node, "locality"))
	}
	if err := s.checkRoutes(node); err != nil {
		return ServicePolicy{}, err
	}
	if err := s.together(node); err != nil {
		return ServicePolicy{}, err
	}
	for _, m := range s.meaningless() {
		if written(node, m.path) {
			return ServicePolicy{}, fmt.Errorf("line %d: %s%s", lineOf(node, m.path), m.path, m.want)
		}
	}
	return s, nil
}

// written tells whether a dotted path below node stands in the file.
func written(node ast.Node, path string) bool { return find(node, path) != nil }

// lineOf is the line of a dotted path below node, or of node itself where the
// path is not written out.
func lineOf(node ast.Node, path string) int {
	if found := find(node, path); found != nil {
		return line(found)
	}
	return line(node)
}

func find(node ast.Node, path string) ast.Node {
	p, err := yaml.PathString("$." + path)
	if err != nil {
		return nil
	}
	found, err := p.FilterNode(node)
	if err != nil {
		return nil
	}
	return found
}

// distinctPorts guards that each port is taken by one service, or by the ingress.
func (p Policy) distinctPorts(nodes map[string]ast.Node) error {
	owner := map[uint16]string{p.Ingress.Port: "the ingress of all others"}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		s := p.Services[strings.ToLower(name)]
		if s.Protocol != TCP {
			continue
		}
		if first, taken := owner[s.Listen]; taken {
			return fmt.Errorf("line %d: service %s: port %d is taken by %s", lineOf(nodes[name], "listen"), name, s.Listen, first)
		}
		owner[s.Listen] = "service " + name
	}
	return nil
}

// distinctHosts guards the one rule that spans services: each domain belongs
// to one of them.
func (p Policy) distinctHosts(nodes map[string]ast.Node) error {
	owner := make(map[string]string)
	for name := range nodes {
		owner[strings.ToLower(name)] = name
	}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		for i, host := range p.Services[strings.ToLower(name)].Hosts {
			if host == strings.ToLower(name) {
				continue // it has that one anyway
			}
			if first, taken := owner[host]; taken {
				return fmt.Errorf("line %d: service %s: the host %s belongs to service %s already",
					lineOf(nodes[name], fmt.Sprintf("hosts[%d]", i)), name, host, first)
			}
			owner[host] = name
		}
	}
	return nil
}
