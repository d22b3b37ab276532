// Package policytest draws policy files for tests.
package policytest

import (
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

// Draw returns a policy file of values near the edges, some of them beyond.
func Draw(t *rapid.T) string {
	name := rapid.SampledFrom([]string{"a", "b", "c", "server", "web", "A", "a-b", "a_b"})
	host := rapid.SampledFrom([]string{"a", "b", "server", "web", "a.io", "*.io", "*.a.io", "b.io", "a.*", "*", "A.io", "-.io", "é.io", "127.0.0.1"})
	duration := rapid.SampledFrom([]string{"0", "1ns", "10ms", "100ms", "1s", "1m", "1h", "24h", "99999h", "-1s"})
	number := rapid.SampledFrom([]string{"0", "1", "2", "10", "100", "140", "10000", "4294967295", "4294967296", "-1"})
	fields := map[string]*rapid.Generator[string]{
		"hosts":                   rapid.Map(rapid.SliceOfN(host, 0, 3), func(h []string) string { return "['" + strings.Join(h, "', '") + "']" }),
		"protocol":                rapid.SampledFrom([]string{"http1", "http2", "grpc", "tcp"}),
		"load_balancing":          rapid.SampledFrom([]string{"round_robin", "least_request", "random"}),
		"timeout":                 duration,
		"connect_timeout":         duration,
		"retries":                 number,
		"overprovisioning_factor": number,
		"limits":                  rapid.Map(number, func(n string) string { return "{connections: " + n + "}" }),
		"health_check":            rapid.Map(duration, func(d string) string { return "{interval: " + d + "}" }),
		"outlier_detection":       rapid.Map(duration, func(d string) string { return "{base_ejection_time: " + d + "}" }),
	}
	keys := slices.Sorted(maps.Keys(fields))
	service := func() string {
		var all []string
		for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 0, 3, rapid.ID[string]).Draw(t, "keys") {
			all = append(all, key+": "+fields[key].Draw(t, key))
		}
		return "{" + strings.Join(all, ", ") + "}"
	}
	text := "services:\n"
	for _, n := range rapid.SliceOfNDistinct(name, 1, 4, rapid.ID[string]).Draw(t, "services") {
		text += "  " + n + ": " + service() + "\n"
	}
	if rapid.Bool().Draw(t, "ingress") {
		source := rapid.SampledFrom([]string{"tailnet", "loopback", "10.0.0.0/8", "0.0.0.0/0", "'::/0'", "10.0.0.1", "10.0.0.1/8", "all"})
		text += "ingress: {allow: [" + strings.Join(rapid.SliceOfN(source, 0, 3).Draw(t, "allow"), ", ") + "]}\n"
	}
	return text
}
