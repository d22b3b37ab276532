package envoys_test

import (
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/harness"
)

// The more exact host wins, whatever the port, the case and a dot at the end.
func TestHosts_wildcardOfAnotherService_leavesNamesToTheirServices(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var devices []harness.Device
	names := []string{"server", "shop", "web", "app"}
	for _, name := range names {
		devices = append(devices, r.Server(name).Device("tag:service-"+name))
	}
	control := r.ControlPlane(`
services:
  web: {hosts: ["*.example.ts.net", "*.a.example.ts.net", web.example.com]}
  app: {hosts: ["*.ts.net", app.example.com, fixed.example.ts.net]}
`, devices...)
	entry := control.Envoy("entry")
	for _, name := range names {
		entry.AwaitHealthy(name, 1)
	}
	for host, want := range map[string]string{
		"shop": "shop", "shop:10000": "shop", "SHOP": "shop", "shop.": "shop", "shop.:10000": "shop", "shop.anything.else": "shop",
		"shop.example.ts.net": "shop", "Shop.Example.TS.net.:10000": "shop", "shop.a.example.ts.net": "shop", "shop.ts.net": "shop",
		"web.ts.net": "web", "app.example.ts.net": "app", "app.a.example.ts.net": "app",
		"server": "server", "server.example.ts.net": "server", "server.ts.net": "server", "server.x": "server",
		"other.example.ts.net": "web", "shop.b.example.ts.net": "web", "a.example.ts.net": "web", "other.ts.net": "app", "fixed.example.ts.net": "app",
		"web.example.com": "web", "web.example.com.": "web", "APP.example.com": "app", "shop.example.com": "shop",
		"example.ts.net": "app", "ts.net": "server", "example.com": "server", "nobody": "server", "nobody.": "server", "127.0.0.1": "server", "[::1]:10000": "server",
	} {
		if _, body, err := entry.Once(harness.Get(entry.URL(10000), host)); err != nil || !strings.HasPrefix(body, "Hello from "+want+"!") {
			t.Errorf("%s: %q, %v; want %s", host, body, err, want)
		}
	}
	if rejected := control.Rejected(); rejected != "" {
		t.Errorf("Envoy rejected: %s", rejected)
	}
}
