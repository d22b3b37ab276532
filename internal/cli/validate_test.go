package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// defaults are the options of serve without any flag.
func defaults() serveOptions {
	var o serveOptions
	serveFlags(newBinder(&cobra.Command{}, nil), &o)
	return o
}

// What people may mean is taken, to the edges. What they can't is in flags.txtar.
func TestCheck_validValues_areTaken(t *testing.T) {
	for name, change := range map[string]func(*serveOptions){
		"the defaults": func(*serveOptions) {},
		"the least": func(o *serveOptions) {
			o.PollInterval, o.HoldFor, o.HoldFraction, o.Rules.OfflineGrace, o.Rules.DrainWindow = 100*time.Millisecond, 0, 0, 0, 0
			o.MaxResponseBytes, o.Port, o.Rules.DefaultPort = 1024, 1, 1
		},
		"the most": func(o *serveOptions) {
			o.PollInterval, o.HoldFor, o.HoldFraction, o.Rules.OfflineGrace, o.Rules.DrainWindow = 24*time.Hour, 24*time.Hour, 1, 24*time.Hour, 720*time.Hour
			o.MaxResponseBytes, o.Port, o.Rules.DefaultPort = 1<<30, 65535, 65535
		},
		"texts": func(o *serveOptions) {
			o.Hostname, o.Tailnet, o.Rules.DefaultService = "Control-Plane-2", "example.com", "hello"
			o.ControlURL, o.APIURL = "http://headscale:8080", "https://[fd7a::1]:8443/base"
			o.Listen, o.Admin, o.AdminHosts = ":18000", "[::1]:0", []string{"tailxds.example.com", "box", "100.64.0.1", "fd7a::1"}
			o.AdvertiseTags, o.Allow, o.StateStore = []string{"tag:control-plane"}, []string{"tag:a_b", "tag:laptop"}, "kube:envoy-control-plane-state-2"
			o.LogLevel, o.LogFormat = "DEBUG", "json"
		},
	} {
		o := defaults()
		change(&o)
		if err := o.check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Another control plane is a host, with or without a port, and needs a tailnet.
func TestCheck_peers_takesHostsOnATailnet(t *testing.T) {
	for value, ok := range map[string]bool{"plane-2": true, "plane-2.example.ts.net:80": true, "100.64.0.1": true, "http://plane-2": false, "plane 2": false, ":80": false} {
		o := defaults()
		o.Peers = []string{value}
		if err := o.check(); (err == nil) != ok {
			t.Errorf("%q: %v", value, err)
		}
		o.Listen = "127.0.0.1:0"
		if err := o.check(); err == nil || !strings.Contains(err.Error(), "--peer (TS_ENVOY_PEER) needs a tailnet") && ok {
			t.Errorf("%q without a tailnet: %v", value, err)
		}
	}
}
