package provider

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
)

// survives checks what must hold of every device that a source lets through:
// it has an ID, says never as nil, and Build takes it.
func survives(t *testing.T, devices []topology.Device, err error) {
	t.Helper()
	if err != nil {
		if len(err.Error()) == 0 || strings.Contains(err.Error(), "%!") {
			t.Fatalf("an error without words: %q", err)
		}
		return
	}
	for _, d := range devices {
		if d.ID == "" {
			t.Fatalf("no ID: %+v", d)
		}
		if d.Expires != nil && d.Expires.Year() <= 1 {
			t.Fatalf("never is %v", d.Expires)
		}
		for _, g := range d.Grants {
			if len(g) == 0 {
				t.Fatalf("an empty grant: %+v", d)
			}
		}
	}
	topology.Build(devices, topology.Rules{DefaultService: "server", DefaultPort: 8080, Now: time.Unix(1e9, 0)})
	if _, err := json.Marshal(devices); err != nil {
		t.Fatalf("can't be kept on disk: %v", err)
	}
}

func FuzzHeadscale_nodes(f *testing.F) {
	f.Add(headscaleNodes)
	f.Add(`{"nodes":null}`)
	f.Add(`{"nodes":[{"id":1e400,"expiry":"10000-01-01T00:00:00Z"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var devices []topology.Device
		err := decodeList(strings.NewReader(text), "nodes", func(n headscaleNode) error {
			d, err := n.device()
			devices = append(devices, d)
			return err
		})
		survives(t, devices, err)
	})
}

func FuzzTailscale_devices(f *testing.F) {
	f.Add(`{"devices":[{"id":"1","nodeId":"n1","name":"a.b.ts.net","hostname":"h","addresses":["100.64.0.1"],"tags":["tag:weight-2"],` +
		`"authorized":true,"connectedToControl":true,"expires":"2027-01-01T00:00:00Z","keyExpiryDisabled":false}]}`)
	f.Add(`{"devices":[{"id":7,"expires":"","connectedToControl":null}],"next":""}`)
	f.Fuzz(func(t *testing.T, text string) {
		var devices []topology.Device
		err := decodeList(strings.NewReader(text), "devices", func(d tailscaleDevice) error {
			if d.id() != "" {
				devices = append(devices, d.device())
			}
			return nil
		})
		survives(t, devices, err)
	})
}

func FuzzAttributes_answer(f *testing.F) {
	f.Add(`{"attributes":{"custom:tailxds-weight":0,"custom:tailxds-service":["a"]},"expiries":{"custom:tailxds-weight":"2027-01-01T00:00:00Z"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		r := deviceAttributes{values: map[string]attribute{}}
		if err := r.decode(strings.NewReader(text)); err != nil {
			return
		}
		survives(t, []topology.Device{{ID: "1", Addresses: []string{"100.64.0.1"}, Attributes: r.current(time.Unix(1e9, 0))}}, nil)
	})
}

func FuzzFile_devices(f *testing.F) {
	f.Add("- {id: a, tags: [tag:weight-1], grants: [{weight: 2}, null, [1, {x: .inf}]]}\n", false)
	f.Add(`[{"id":"a","online":false,"expires":"0001-01-01T00:00:00Z","grants":["x",{"weight":1e999}]}]`, true)
	f.Add("- &a {id: a}\n- *a\n- <<: *a\n", false)
	f.Fuzz(func(t *testing.T, text string, strict bool) {
		devices, err := ParseDevices([]byte(text), strict)
		survives(t, devices, err)
	})
}
