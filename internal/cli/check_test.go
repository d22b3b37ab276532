package cli

import (
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// defaults are the options of serve without any flag.
func defaults() options {
	var o options
	serveFlags(newBinder(&cobra.Command{}, nil), &o)
	return o
}

// What people may mean is taken, to the edges. What they can't is in flags.txtar.
func TestCheckTakesWhatCanBeMeant(t *testing.T) {
	for name, change := range map[string]func(*options){
		"the defaults": func(*options) {},
		"the least": func(o *options) {
			o.PollInterval, o.HoldFor, o.HoldFraction, o.OfflineGrace, o.DrainWindow = 100*time.Millisecond, 0, 0, 0, 0
			o.MaxResponseBytes, o.Port, o.DefaultPort = 1024, 1, 1
		},
		"the most": func(o *options) {
			o.PollInterval, o.HoldFor, o.HoldFraction, o.OfflineGrace, o.DrainWindow = 24*time.Hour, 24*time.Hour, 1, 24*time.Hour, 720*time.Hour
			o.MaxResponseBytes, o.Port, o.DefaultPort = 1<<30, 65535, 65535
		},
		"texts": func(o *options) {
			o.Hostname, o.Tailnet, o.DefaultService = "Control-Plane-2", "example.com", "hello"
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
