package integration_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// theTailnetDecidesWhoSeesThePage asks for the live page from the laptop, to whom
// the lab's policy grants it, and once more when the policy does no longer.
func theTailnetDecidesWhoSeesThePage(ctx context.Context, t *testing.T, w *walk) {
	page := func() (string, error) {
		return w.Probe.Get(ctx, w.Container("laptop"), "http://tsnet-dynamic-eds.tailnet.lab/")
	}
	if seen, err := page(); err != nil || !strings.Contains(seen, "<title>tailxds</title>") {
		t.Fatalf("the laptop gets %.200q, %v", seen, err)
	}

	path := filepath.Join(w.config, "policy.hujson")
	policy, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const capability = `"app": {"tailxds.dev/cap/admin": [{"role": "operate"}]},`
	nobody := strings.Replace(string(policy), capability, "", 1)
	if nobody == string(policy) {
		t.Fatalf("%s does not grant the page to the laptop by %s", path, capability)
	}
	w.setPolicy(ctx, t, path, nobody)
	await(ctx, t, func() error {
		seen, err := page()
		switch {
		case err == nil:
			return fmt.Errorf("whom the policy grants nothing gets %.200q", seen)
		case !strings.Contains(err.Error(), "must grant tailxds.dev/cap/admin"):
			return err
		}
		return nil
	})
	w.setPolicy(ctx, t, path, string(policy))
	await(ctx, t, func() error {
		_, err := page()
		return err
	})
}
