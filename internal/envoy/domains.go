package envoy

import (
	"slices"
	"strings"
)

// domains are those of each service's virtual host. Envoy takes an exact domain
// first, then the longest suffix wildcard (*.example.com), then the longest prefix
// wildcard (shop.*), and * last:
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/route/v3/route_components.proto#config-route-v3-virtualhost
//
// So that a wildcard host of one service does not take the names of the others,
// each service also has its name below each wildcard as an exact domain:
// shop.example.com beside *.example.com.
func domains(in sharedInput) map[string][]string {
	exact, wildcards := claimedHosts(in), wildcardHosts(in)
	all := make(map[string][]string, len(in.services))
	for _, name := range in.services {
		own := []string{name, name + ".*"}
		if name == in.defaultService {
			own = []string{"*"}
		}
		for _, host := range in.policy.For(name).Hosts {
			if exact[host] == name {
				own = append(own, host)
			}
		}
		for _, wildcard := range wildcards {
			below := name + strings.TrimPrefix(wildcard, "*")
			if exact[wildcard] != name && exact[below] == "" {
				own = append(own, below)
			}
		}
		all[name] = own
	}
	return all
}

// claimedHosts are the hosts of the policy and whose they are, but for those that
// are the name of a service: Envoy takes no domain twice, and the name goes first.
func claimedHosts(in sharedInput) map[string]string {
	claimed := make(map[string]string)
	for _, name := range in.services {
		for _, host := range in.policy.For(name).Hosts {
			claimed[host] = name
		}
	}
	for _, name := range in.services {
		delete(claimed, name)
	}
	return claimed
}

// wildcardHosts are the wildcards among the hosts of all services, sorted.
func wildcardHosts(in sharedInput) []string {
	var all []string
	for _, name := range in.services {
		for _, host := range in.policy.For(name).Hosts {
			if strings.HasPrefix(host, "*") {
				all = append(all, host)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
