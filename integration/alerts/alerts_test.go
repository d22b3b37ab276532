package alerts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func rulesOf(t *testing.T, text string) Rules {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func firing(t *testing.T, r Rules, page string) []string {
	t.Helper()
	all, err := r.Firing(t.Context(), page)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What is evaluated here must fire and be silent as it does in Prometheus.
func TestFiring_conditions_statesFollow(t *testing.T) {
	r := rulesOf(t, `
groups:
  - name: some
    rules:
      - {alert: Down, expr: up == 0, for: 1m}
      - {alert: Full, expr: sum by (disk) (used) > 9, for: 5m}
      - {alert: Fast, expr: 'rate(requests_total[1m]) > 0'}
      # True at first, and not for as long as it waits.
      - {alert: Soon, expr: at - time() > 60, for: 2m}
`)
	soon := fmt.Sprintf("at %d\n", time.Now().Unix())
	for _, c := range []struct {
		page string
		want []string
	}{
		{"", []string{"Down{}"}},
		{"used{disk=\"a\",part=\"1\"} 5\nused{disk=\"a\",part=\"2\"} 5\nused{disk=\"b\"} 9\n", []string{`Full{disk="a"}`}},
		{"requests_total 7\n", nil}, // a page that always says the same counts nothing
		{soon, nil},
	} {
		if got := firing(t, r, c.page); !slices.Equal(got, c.want) {
			t.Errorf("of %q fire %v, want %v", c.page, got, c.want)
		}
	}
	if _, err := r.Firing(t.Context(), "no page of metrics"); err == nil {
		t.Error("nonsense is taken for metrics")
	}
}

func TestLoad_malformedRules_isError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rules.yaml")
	for _, text := range []string{"groups: [{name: a, rules: [{alert: A, expr: 'sum('}]}]", "groups: [{name: a, rules: [{alarm: A, expr: up}]}]"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
	if _, err := Load(path + ".missing"); err == nil {
		t.Error("a file that is not there was taken")
	}
}

// The control plane's node: no machine without a tailnet has one. What the control
// plane says of it is asserted by its own tests.
func TestRules_linkDown_fires(t *testing.T) {
	r, err := Load("../../deploy/monitoring/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := firing(t, r, "tailxds_coordination_link_up 0\n"); !slices.Equal(got, []string{"TailxdsLinkDown{}"}) {
		t.Errorf("with a link that is down fire %v", got)
	}
	if got := firing(t, r, "tailxds_coordination_link_up 1\n"); len(got) > 0 {
		t.Errorf("with a link that is up fire %v", got)
	}
}

// The control plane's own key: no machine without a tailnet has one. What the
// control plane says of it is held by a test of cmd/tailxds.
func TestRules_ownKeyExpires_fires(t *testing.T) {
	r, err := Load("../../deploy/monitoring/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	page := func(in time.Duration) string {
		return fmt.Sprintf("tailxds_own_key_expiry_timestamp_seconds %d\n", time.Now().Add(in).Unix())
	}
	if got := firing(t, r, page(13*24*time.Hour)); !slices.Equal(got, []string{"TailxdsOwnKeyExpires{}"}) {
		t.Errorf("thirteen days before, %v fire", got)
	}
	if got := firing(t, r, page(15*24*time.Hour)); len(got) > 0 {
		t.Errorf("fifteen days before, %v fire", got)
	}
}
