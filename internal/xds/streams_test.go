package xds

import (
	"log/slog"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tailxds/tailxds/internal/envoy"
)

// Without a tailnet, a stream is in the first region that its Envoy names, and stays
// there; what is handed on says so, whatever a request says.
func TestStreams_region_isThatOfTheFirstRequest(t *testing.T) {
	s := newStreams(newTypeTable(envoy.Types()), slog.New(slog.DiscardHandler))
	w := s.newCallbacks(true)
	if err := w.OnDeltaStreamOpen(t.Context(), 1, ""); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		says   string
		nobody bool // says nothing of itself
		region string
		claims string
	}{
		{"", false, "", ""},
		{"", true, "", ""},
		{"west", false, "west", ""},
		{"", true, "west", ""},
		{"east", false, "west", "east"},
		{"west", false, "west", ""},
	} {
		r := &discovery.DeltaDiscoveryRequest{TypeUrl: Eds}
		if !step.nobody {
			r.Node = &core.Node{
				Id: "n", Locality: &core.Locality{Region: step.says},
				UserAgentVersionType: &core.Node_UserAgentVersion{UserAgentVersion: "1.40.0"},
			}
		}
		if err := w.OnStreamDeltaRequest(1, r); err != nil {
			t.Fatal(err)
		}
		now := s.list()[0]
		if got := r.GetNode().GetLocality().GetRegion(); got != step.region || now.Region != step.region || now.Claims != step.claims {
			t.Errorf("it says %q: handed on as of %q, listed as of %q, which claims %q; want %q and %q", step.says, got, now.Region, now.Claims, step.region, step.claims)
		}
		if now.Node != "n" || now.Envoy != "1.40.0" || len(now.Types) != 0 {
			t.Errorf("listed as %+v", now)
		}
	}
	w.OnDeltaStreamClosed(1, nil)
	if all := s.list(); len(all) != 0 {
		t.Errorf("listed after its end: %+v", all)
	}
}
