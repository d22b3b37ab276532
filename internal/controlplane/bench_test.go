package controlplane

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/store"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
	"github.com/tailxds/tailxds/internal/xds"
)

// BenchmarkTenThousandDevices measures each part of the way from a document to
// published resources, in one run, beside decoding the document and doing
// nothing with it. Read the parts as multiples of bare-json.
func BenchmarkTenThousandDevices(b *testing.B) {
	devices := topologytest.ManyDevices(10_000)
	document, err := json.Marshal(devices)
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "devices.json")
	if err := os.WriteFile(file, document, 0o600); err != nil {
		b.Fatal(err)
	}
	rules := topology.Rules{DefaultService: "server", DefaultPort: 8080, Now: time.Now()}

	b.Run("bare-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var into []topology.Device
			if err := json.Unmarshal(document, &into); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("list", func(b *testing.B) {
		src, _, err := provider.Open(provider.Config{Provider: provider.File, Devices: file})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if list, err := src.List(b.Context()); err != nil || len(list) != len(devices) {
				b.Fatal(len(list), err)
			}
		}
	})
	b.Run("build", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if t, problems := topology.Build(devices, rules); len(t.Services) != 101 || len(problems) != 0 {
				b.Fatal(len(t.Services), problems)
			}
		}
	})
	b.Run("publish-all", func(b *testing.B) {
		t, _ := topology.Build(devices, rules)
		b.ReportAllocs()
		for b.Loop() {
			publishTo(b, xds.NewServer(xds.Config{Types: envoy.Types()}), t, nil)
		}
	})
	b.Run("publish-one-change", func(b *testing.B) {
		s := xds.NewServer(xds.Config{Types: envoy.Types()})
		var both [2]topology.Topology
		for i := range both {
			devices[0].Tags[1] = fmt.Sprintf("tag:weight-%d", 1+i)
			both[i], _ = topology.Build(devices, rules)
		}
		last := publishTo(b, s, both[1], nil)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			last = publishTo(b, s, both[i%2], last)
		}
	})
}

// BenchmarkOneChange measures what the control plane does when one weight of so
// many devices changes, from the list to what is written down.
func BenchmarkOneChange(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			log := slog.New(slog.DiscardHandler)
			config := Config{Rules: topology.Rules{DefaultService: "server", DefaultPort: 8080}, Provider: provider.File, HoldFraction: 0.5, HoldFor: time.Minute}
			c := newControlPlane(config, emptyBeginning(b, store.File(filepath.Join(b.TempDir(), "memory.json"))), links{watcher: provider.NewWatcher(nil, provider.Options{Provider: provider.File, Log: log})}, log)
			devices := topologytest.ManyDevices(n)
			at := time.Now()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				devices[0].Tags = []string{"tag:service-s0", fmt.Sprintf("tag:weight-%d", 1+i%2), "tag:region-west"}
				at = at.Add(time.Second)
				c.list = guard.List{Provider: provider.File, Devices: devices, At: at, HealthySince: at}
				c.reconcile(at)
			}
		})
	}
}

func publishTo(b *testing.B, s *xds.Server, t topology.Topology, last *envoy.Resources) *envoy.Resources {
	b.Helper()
	next, err := envoy.Build(envoy.Input{Topology: t, Policy: policy.Default(), DefaultService: "server"}, last)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Publish(next); err != nil {
		b.Fatal(err)
	}
	return next
}

// emptyBeginning is that of a first start without a policy file.
func emptyBeginning(tb testing.TB, kept store.Store) beginning {
	tb.Helper()
	b := beginning{store: kept}
	b.saved, b.lost = loadState(kept, slog.New(slog.DiscardHandler))
	if err := b.readPolicy("", slog.New(slog.DiscardHandler)); err != nil {
		tb.Fatal(err)
	}
	return b
}
