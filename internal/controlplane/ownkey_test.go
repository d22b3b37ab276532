package controlplane_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"tailscale.com/tstest/integration/testcontrol"

	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
)

// The control plane tells when its own key expires, and nothing of one that
// never does.
func TestMetrics_ownKeyExpiry_isExposed(t *testing.T) {
	s := controlplanetest.StartCoordination(t, func(*testcontrol.Server) {})
	dir := t.TempDir()
	c := controlplanetest.Start(t, dir, controlplanetest.Joiner(dir, s.HTTPTestServer.URL))
	const metric = "\ntailxds_own_key_expiry_timestamp_seconds "
	page := func() string {
		_, text := c.Do(http.MethodGet, "/metrics")
		return text
	}
	c.Await("its metrics", func() bool { return strings.Contains(page(), "tailxds_xds_streams 0") })
	if text := page(); strings.Contains(text, metric) {
		t.Errorf("a key that never expires expires:\n%s", text)
	}
	node := s.AllNodes()[0]
	node.KeyExpiry = time.Now().Add(5 * 24 * time.Hour).Truncate(time.Second)
	s.UpdateNode(node)
	c.Await("the expiry of its key", func() bool {
		return strings.Contains(page(), metric+fmt.Sprintf("%g\n", float64(node.KeyExpiry.Unix())))
	})
}
