package envoy

import (
	"maps"
	"slices"
	"strings"
	"testing"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"pgregory.net/rapid"

	"github.com/tailxds/tailxds/internal/policy"
)

// envoyPicks is the virtual host that Envoy finds for a header Host.
// https://github.com/envoyproxy/envoy/blob/v1.40.0/source/common/router/config_impl.cc (findVirtualHost)
func envoyPicks(config *route.RouteConfiguration, host string) string {
	owner := make(map[string]string)
	for _, v := range config.GetVirtualHosts() {
		for _, d := range v.GetDomains() {
			owner[d] = v.GetName()
		}
	}
	host, _, _ = strings.Cut(strings.ToLower(host), ":")
	if name, ok := owner[host]; ok {
		return name
	}
	longestFirst := slices.SortedFunc(maps.Keys(owner), func(a, b string) int { return len(b) - len(a) })
	for _, d := range longestFirst {
		if suffix, ok := strings.CutPrefix(d, "*"); ok && suffix != "" && len(host) > len(suffix) && strings.HasSuffix(host, suffix) {
			return owner[d]
		}
	}
	for _, d := range longestFirst {
		if prefix, ok := strings.CutSuffix(d, "*"); ok && prefix != "" && len(host) > len(prefix) && strings.HasPrefix(host, prefix) {
			return owner[d]
		}
	}
	return owner["*"]
}

// documented is whose a host is by docs/operations.md.
func documented(in sharedInput, host string) string {
	host, _, _ = strings.Cut(strings.ToLower(host), ":")
	known, claimed := in.known(), make(map[string]string)
	for _, name := range in.services {
		for _, h := range in.policy.For(name).Hosts {
			claimed[h] = name
		}
	}
	if known[host] {
		return host
	}
	if claimed[host] != "" {
		return claimed[host]
	}
	first, rest, _ := strings.Cut(host, ".")
	if claimed["*."+rest] != "" && known[first] {
		return first
	}
	for below := host; ; {
		_, rest, found := strings.Cut(below, ".")
		if !found {
			break
		}
		if name := claimed["*."+rest]; name != "" {
			return name
		}
		below = rest
	}
	if known[first] && rest != "" {
		return first
	}
	if known[in.defaultService] {
		return in.defaultService
	}
	return ""
}

func TestBuildRoutes_anyHosts_goWhereTheDocumentationSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "io", "server"}), 1, 5, rapid.ID[string]).Draw(t, "services")
		slices.Sort(names)
		in := sharedInput{services: names, defaultService: "server", policy: policy.Policy{Defaults: policy.Default().Defaults, Services: make(map[string]policy.Service)}}
		hosts := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"*.io", "*.a.io", "*.b.a.io", "*.a", "a.io", "b.io", "c.a.io", "b", "x", "a.x", "server.io"}), 0, 6, rapid.ID[string]).Draw(t, "hosts")
		for _, h := range hosts {
			name := rapid.SampledFrom(names).Draw(t, h)
			p := in.policy.For(name)
			p.Hosts = append(slices.Clone(p.Hosts), h)
			in.policy.Services[name] = p
		}
		made, err := buildRoutes(in)
		if err != nil {
			t.Fatal(err)
		}
		label := rapid.SampledFrom([]string{"a", "b", "c", "io", "server", "x", "A", "IO"})
		for range 50 {
			host := strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "labels"), ".") + rapid.SampledFrom([]string{"", ":10000"}).Draw(t, "port")
			if got, want := envoyPicks(made[0].(*route.RouteConfiguration), host), documented(in, host); got != want {
				t.Fatalf("%s goes to %q, want %q", host, got, want)
			}
		}
	})
}
