package envoy

import (
	"slices"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/internal/policy"
)

func TestCombinationsThatEnvoyCannotDo(t *testing.T) {
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
