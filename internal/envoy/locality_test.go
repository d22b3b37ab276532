package envoy

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/tailxds/tailxds/internal/balance"
	"github.com/tailxds/tailxds/internal/policy"
)

func TestCheckPolicy_impossibleCombinations_areRefused(t *testing.T) {
	for text, want := range map[string]string{
		"defaults: {locality: nearby}":                               "line 1: defaults.locality: must be weighted, exact, nearest or local",
		"defaults: {failover: [east]}":                               "line 1: defaults.failover: goes with locality: local only",
		"services:\n  a: {locality: local, failover: [east, east]}":  "line 2: services.a.failover: must name each region once",
		"services:\n  a: {locality: local, failover: [East Coast]}":  "line 2: services.a.failover: must be names of regions",
		"defaults: {locality: exact, load_balancing: least_request}": "least_request gives no exact shares",
	} {
		if _, err := policy.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	p := mustParse(t, "defaults: {locality: local, failover: [east]}\nservices: {a: {locality: exact}}")
	if p.For("a").Failover != nil || !slices.Equal(p.For("b").Failover, []string{"east"}) {
		t.Errorf("a %v, b %v", p.For("a").Failover, p.For("b").Failover)
	}
}

// While one endpoint of a priority is healthy, Envoy's arithmetic does not panic, up
// to the documented bound; and the factor is the policy's wherever it decides about
// anything else.
func TestOverprovisioning_oneHealthy_noPanicWithinTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]balance.Mode{balance.Weighted, balance.Exact, balance.Nearest, balance.Local}).Draw(t, "mode")
		p := policy.Default().Defaults
		p.Locality, p.OverprovisioningFactor = mode, rapid.Uint32Range(100, 200).Draw(t, "factor")
		var localities []*endpoint.LocalityLbEndpoints
		count := make(map[uint32]uint32) // by priority
		priority := uint32(0)
		for range rapid.IntRange(1, 3).Draw(t, "localities") {
			n := rapid.IntRange(1, 250).Draw(t, "endpoints")
			localities = append(localities, &endpoint.LocalityLbEndpoints{Priority: priority, LbEndpoints: make([]*endpoint.LbEndpoint, n)})
			count[priority] += uint32(n)
			if rapid.Bool().Draw(t, "next priority") {
				priority++
			}
		}
		got := overprovisioning(p, localities)
		factor := got.GetOverprovisioningFactor().GetValue()
		decides := len(count) > 1 || mode == balance.Weighted && len(localities) > 1
		for _, n := range count {
			available := min(100, factor/n) // of the priority, if nobody else is healthy
			panics := available < 100 && 100/float64(n) < panicThreshold
			if want := decides && n > 100; panics != want {
				t.Errorf("%d endpoints in a priority of %d: panics %t, want %t", n, len(count), panics, want)
			}
		}
		want := p.OverprovisioningFactor
		if mode == balance.Local {
			want = localFactor
		}
		if decides && (factor != want || got.GetWeightedPriorityHealth() != (mode == balance.Local)) {
			t.Errorf("%v, want a factor of %d", got, want)
		}
	})
}
