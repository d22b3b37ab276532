package envoy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// under are the routes of a virtual host.
func (n *Resources) under(host string) []*route.Route {
	for _, v := range n.all[rds][IngressListener].(*route.RouteConfiguration).GetVirtualHosts() {
		if v.GetName() == host {
			return v.GetRoutes()
		}
	}
	return nil
}

// goes is where a request goes by Envoy's rules: the first route that matches.
// Drawn is Envoy's number for the request, in millionths.
func goes(routes []*route.Route, path string, headers map[string]string, drawn uint32) *route.Route {
	for _, r := range routes {
		m := r.GetMatch()
		fits := m.GetPrefix() == "/" || m.GetSafeRegex() != nil && regexp.MustCompile("^(?:"+m.GetSafeRegex().GetRegex()+")$").MatchString(path)
		for _, h := range m.GetHeaders() {
			fits = fits && headers[h.GetName()] == h.GetStringMatch().GetExact()
		}
		if f := m.GetRuntimeFraction(); f != nil {
			fits = fits && drawn < f.GetDefaultValue().GetNumerator()
		}
		if fits {
			return r
		}
	}
	return nil
}

const branching = `
services:
  hello:
    timeout: 1s
    routes:
    - {path: /shop/, headers: {X-Beta: "yes"}, service: Shop}
    - {path: /shop, split: {hello: 3, Shop: 1}}
    - {path: /db, service: gone}
    - {path: /none, split: {hello: 1, gone: 1}}
  shop: {protocol: grpc, timeout: 9s, retries: 0, show_endpoint: true}
`

func TestRoutes_severalMatches_firstDecides(t *testing.T) {
	p := mustParse(t, branching)
	top := topologytest.Of(map[string][]string{"d1": {"tag:service-hello"}})
	built := mustBuild(t, top, p, nil)
	routes := built.under("hello")
	beta := map[string]string{"x-beta": "yes", ":method": "GET"}
	for _, test := range []struct {
		path    string
		headers map[string]string
		drawn   uint32
		want    string // a cluster, or a status
	}{
		{"/", beta, 0, "hello"},
		{"/shop", beta, 0, "shop"},
		{"/shop/cart", beta, 999_999, "shop"},
		{"/shopping", beta, 0, "hello"},
		{"/shop", nil, 0, "hello"},
		{"/shop", nil, 749_999, "hello"},
		{"/shop", nil, 750_000, "shop"},
		{"/shop", nil, 999_999, "shop"},
		{"/shop", map[string]string{"x-beta": "no"}, 999_999, "shop"},
		{"/db/x", nil, 0, "503"},
		{"/none", nil, 499_999, "503"}, // gone stands first
		{"/none", nil, 500_000, "hello"},
	} {
		r := goes(routes, test.path, test.headers, test.drawn)
		got := r.GetRoute().GetCluster()
		if d := r.GetDirectResponse(); d != nil {
			got = fmt.Sprint(d.GetStatus())
		}
		if got != test.want {
			t.Errorf("%s %v, drawn %d: goes to %s by %s, want %s", test.path, test.headers, test.drawn, got, r.GetName(), test.want)
		}
	}

	// Each is treated as the service wants it that it goes to.
	shop, own := goes(routes, "/shop", beta, 0), goes(routes, "/", nil, 0)
	if shop.GetRoute().GetTimeout().AsDuration() != 9*time.Second || shop.GetRoute().GetRetryPolicy() != nil || len(shop.GetResponseHeadersToAdd()) != 1 {
		t.Errorf("what goes to shop: %v", shop)
	}
	if own.GetRoute().GetTimeout().AsDuration() != time.Second || own.GetRoute().GetRetryPolicy() == nil || len(own.GetResponseHeadersToAdd()) != 0 {
		t.Errorf("what goes to hello: %v", own)
	}
	// The rules of a service that a rule names are not asked.
	for _, r := range built.under("shop") {
		if r.GetRoute().GetCluster() != "shop" {
			t.Errorf("under shop: %v", r)
		}
	}

	if got := p.Problems(top); len(got) != 1 || got[0].Subject != "routes of hello" || !strings.Contains(got[0].Reason, "no device serves gone") {
		t.Errorf("problems: %v", got)
	}
	if got := p.Problems(topologytest.Of(map[string][]string{"d1": {"tag:service-gone"}})); len(got) != 0 {
		t.Errorf("problems though it is served: %v", got)
	}
}

func TestRoutes_contradictions_areRefused(t *testing.T) {
	rule := func(text string) string {
		return "services:\n  a:\n    routes:\n    - service: b\n    - " + text + "\n"
	}
	many := "services:\n  a:\n    routes:\n" + strings.Repeat("    - service: b\n", 101)
	for name, test := range map[string]struct{ text, line, want string }{
		"no target":       {rule("path: /x"), "line 5", "either service"},
		"two targets":     {rule("{service: b, split: {c: 1}}"), "line 5", "either service"},
		"unknown key":     {rule("{service: b, prefix: /x}"), "5", "prefix"},
		"relative":        {rule("{service: b, path: x}"), "line 5", "must begin with /"},
		"query":           {rule("{service: b, path: '/x?y'}"), "line 5", "without ?, # and"},
		"fragment":        {rule("{service: b, path: '/x#y'}"), "line 5", "without ?, # and"},
		"space":           {rule("{service: b, path: '/x y'}"), "line 5", "visible ASCII"},
		"long path":       {rule("{service: b, path: /" + strings.Repeat("x", 83) + "}"), "line 5", "too long"},
		"deep path":       {rule("{service: b, path: " + strings.Repeat("/x", 13) + "}"), "line 5", "too long"},
		"dot segment":     {rule("{service: b, path: /x/%2e./y}"), "line 5", "no empty segment"},
		"empty segment":   {rule("{service: b, path: /x//y}"), "line 5", "no empty segment"},
		"backslash":       {rule("{service: b, path: '/x\\y'}"), "line 5", "without ?, # and"},
		"half a byte":     {rule("{service: b, path: '/x%2'}"), "line 5", "two hexadecimal digits"},
		"no byte":         {rule("{service: b, path: '/x%zz'}"), "line 5", "two hexadecimal digits"},
		"zero":            {rule("{service: b, path: '/x%00'}"), "line 5", "%00"},
		"header's name":   {rule("service: b\n      headers:\n        ':path': x"), "line 7", "name of a header"},
		"header's value":  {rule("{service: b, headers: {x: \"a\\nb\"}}"), "line 5", "visible ASCII"},
		"empty value":     {rule("{service: b, headers: {x: ''}}"), "line 5", "visible ASCII"},
		"host":            {rule("{service: b, headers: {Host: a.io}}"), "line 5", "what hosts are for"},
		"header twice":    {rule("{service: b, headers: {x: a, X: a}}"), "line 5", "twice"},
		"bad name":        {rule("service: b_c"), "line 5", "b_c"},
		"bad split name":  {rule("split: {b_c: 1}"), "line 5", "b_c"},
		"split of naught": {rule("split: {a: 0, b: 0}"), "line 5", "above 0"},
		"heavy split":     {rule("split: {a: 1, b: 10001}"), "line 5", "from 0 to 10000"},
		"negative split":  {rule("split: {a: 1, b: -1}"), "5", ""},
		"split twice":     {rule("split: {b: 1, B: 1}"), "line 5", "twice"},
		"too many":        {many, "line 4", "at most 100"},
		"connections":     {rule("service: db") + "  db: {protocol: tcp, listen: 5432}\n", "line 5", "takes no requests"},
		"of connections":  {"services:\n  a:\n    protocol: tcp\n    listen: 1\n    routes: [{service: b}]\n", "line 5", "names no path"},
		"for all":         {"defaults:\n  routes: [{service: b}]\n", "line 2", "one service"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.Parse([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.line) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s and %q", err, test.line, test.want)
			}
		})
	}
}

// Whatever the weights, each service gets its share of Envoy's draws to within
// a millionth, one with a weight of 0 gets nothing, and nothing is left over.
func TestRoutes_split_givesShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.MapOfN(rapid.StringMatching("[a-z]{1,3}"), rapid.Uint32Range(0, policy.MaxSplitWeight), 1, policy.MaxTargets).Draw(t, "split")
		var sum uint64
		for _, w := range weights {
			sum += uint64(w)
		}
		if sum == 0 {
			t.Skip("nobody would get anything")
		}
		services, until := policy.RouteRule{Split: weights}.Shares()
		if until[len(until)-1] != policy.Million || !slices.IsSorted(until) {
			t.Fatalf("%v", until)
		}
		got, last := map[string]uint32{}, uint32(0)
		for i, s := range services {
			got[s], last = until[i]-last, until[i]
		}
		for s, w := range weights {
			if want := float64(w) * policy.Million / float64(sum); float64(got[s]) < want-1 || float64(got[s]) > want+1 || (w == 0 && got[s] != 0) {
				t.Errorf("%s gets %d, want %v", s, got[s], want)
			}
		}
	})
}

// A service that a rule names has no resources of its own until somebody serves
// it; then the same rule reaches it.
func TestRoutes_serviceAppears_isReached(t *testing.T) {
	p := mustParse(t, branching)
	devices := map[string][]string{"d1": {"tag:service-hello"}}
	before := mustBuild(t, topologytest.Of(devices), p, nil)
	devices["d2"] = []string{"tag:service-gone"}
	after := mustBuild(t, topologytest.Of(devices), p, before)
	if r := goes(after.under("hello"), "/db", nil, 0); r.GetRoute().GetCluster() != "gone" {
		t.Errorf("goes to %v", r)
	}
	if gone := mustBuild(t, topology.Topology{}, p, after); goes(gone.under("hello"), "/db", nil, 0).GetDirectResponse() == nil {
		t.Error("goes on though nobody serves it")
	}
}

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

func TestRefuseHidden_dotSegmentBesideEncodedSlash_matches(t *testing.T) {
	pattern := regexp.MustCompile("^(?:" + refuseHiddenPaths("x").GetMatch().GetSafeRegex().GetRegex() + ")$")
	for path, want := range map[string]bool{
		"/x%2F..%2Fcart": true, "/x/..%2fcart": true, "/x%5C../cart": true, "/x%2F.": true, "/x%2F%2E%2e%2Fcart": true, "/x%2F.%2Fcart": true,
		"/x%2Fy": false, "/a..b/c": false, "/x/...": false, "/.well-known/x": false, "/x%2F.hidden": false, "/x%2F..y": false, "/": false,
	} {
		if got := pattern.MatchString(path); got != want {
			t.Errorf("%s: %t, want %t", path, got, want)
		}
	}
}
