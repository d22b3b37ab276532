package policy

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// A policy file costs no more than some seconds and megabytes, whatever it holds.
// Without bounds half a megabyte of services took 50 s and 2 GB.
func TestParsePolicy_hostileText_boundedWork(t *testing.T) {
	const maxAlloc, maxError = 200 << 20, 20_000
	fill := func(head, each string) string {
		var b strings.Builder
		b.WriteString(head)
		for i := 0; b.Len() < 250_000; i++ {
			fmt.Fprintf(&b, each, i)
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"services":       fill("services:\n", "  s%d: {}\n"),
		"faulty":         fill("services:\n", "  s%d: {retries: 100, timeout: x, hosts: [s1], protocol: y}\n"),
		"unknown keys":   fill("", "k%d: 1\n"),
		"twice the same": fill("services:\n", "  s: {} # %d\n"),
		"hosts":          fill("services:\n  s:\n    hosts:\n", "    - h%d.example.com\n"),
		"routes":         fill("services:\n  s:\n    routes:\n", "    - {path: /a%d, service: s}\n"),
		"sources":        fill("ingress:\n  allow:\n", "  - 10.0.0.0/8 # %d\n"),
		"values":         "[" + strings.Repeat("{},", 100_000) + "]",
		"size":           strings.Repeat("#", 2<<20),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse([]byte(text))
		runtime.ReadMemStats(&after)
		if alloc := after.TotalAlloc - before.TotalAlloc; err == nil || len(err.Error()) > maxError || alloc > maxAlloc {
			t.Errorf("%s: %d MB allocated, %.200v", name, alloc>>20, err)
		}
	}
}

func TestParsePolicy_asManyServicesAsAllowed_isTaken(t *testing.T) {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range maxServices {
		fmt.Fprintf(&b, "  s%d: {retries: 2, timeout: 5s, health_check: {path: /x}}\n", i)
	}
	if p, err := Parse([]byte(b.String())); err != nil || len(p.Services) != maxServices {
		t.Errorf("%d services: %v", len(p.Services), err)
	}
}
