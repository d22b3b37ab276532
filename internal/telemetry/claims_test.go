package telemetry

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Without a tailnet an Envoy's region is its own claim, and one address must not
// fill what is kept by region.
func TestExport_manyRegionsOfOneAddress_fewCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.SetPublished(published("s", "west"))
		r.who.Known, r.who.Region = false, ""
		send := func(address int, region string) {
			r.who.Address = addressOf(address)
			r.send((&export{node: "n", region: region}).endpoint("s", at(1).String(), true, 10, 0, 0))
		}
		for i := range 10 * maxRegionClaims {
			send(1, fmt.Sprintf("made-up-%d", i))
		}
		if got := r.byRegion(); len(got) != maxRegionClaims {
			t.Fatalf("one address made up %d regions, want at most %d", len(got), maxRegionClaims)
		}
		send(2, "east")
		if got := r.byRegion(); got["east"] == 0 {
			t.Errorf("another address does not count: %v", got)
		}
		time.Sleep(forgetAfter + time.Second)
		send(1, "west")
		if got := r.byRegion(); got["west"] == 0 {
			t.Errorf("claims are never forgotten: %v", got)
		}
	})
}
