package k8s

import (
	"fmt"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/shares"
)

// policy is the control plane's, as docs/kubernetes.md has it: requests come from
// pods of the cluster too.
func policy(locality string) string {
	return "ingress: {allow: [tailnet, loopback, 10.0.0.0/8]}\ndefaults: {locality: " + locality + "}\n"
}

// setLocality edits the policy file, and has the kubelet look at it.
func (r *rig) setLocality(t *testing.T, locality string) {
	t.Helper()
	r.west.apply(t, configMap(controlNamespace, "envoy-control-plane-files", map[string]string{
		"ca.crt": r.tailnet.ca, "policy.yaml": policy(locality),
	}))
	// A kubelet looks at a pod's files about once a minute, and when the pod changes.
	r.west.do(t, "-n", controlNamespace, "annotate", "pod", "-l", "app=envoy-control-plane", "--overwrite", "tailxds.test/locality="+locality)
}

// near is where the chart's servers have their region as Envoy's locality: each
// cluster serves itself, and then as much of itself as the weights allow.
func (r *rig) near(t *testing.T) {
	r.setLocality(t, "local")
	for _, c := range []cluster{r.west, r.east} {
		own := shares.Shares{}
		for _, p := range c.servers(t) {
			own[p.name] = 1
		}
		for _, p := range c.servers(t) {
			r.expect(t, c, entry(p), own)
		}
	}
	r.setLocality(t, "nearest")
	r.nearest(t)
	r.setLocality(t, "weighted")
	r.expect(t, r.west, entry(r.west.servers(t)[0]), r.weights(t))
}

// nearest lets a sixth of the requests enter in west, whose weights could serve a
// third. So what enters there can stay, and a fifth of what enters in east has to
// cross.
func (r *rig) nearest(t *testing.T) {
	const inWest, inEast = "20", "100" // a second
	west, east := entry(r.west.servers(t)[0]), entry(r.east.servers(t)[0])
	before := []*steady{r.west.startSteady(t, west, "-rate", inWest), r.east.startSteady(t, east, "-rate", inEast)}
	eventually(t, 2*time.Minute, "what enters in west stays there", func() error {
		if tally := r.west.client(t, west, 20, "-rate", inWest).By(shares.Region); tally.Counts["west"] != 20 {
			return fmt.Errorf("%v", tally.Counts)
		}
		return nil
	})
	for _, s := range before {
		if tally := s.stop(t); tally.Failed > 0 {
			t.Errorf("%d requests failed while the mode changed", tally.Failed)
		}
	}
	// The same again, until it is known what enters where: the control plane smooths
	// what is measured.
	eventually(t, 3*time.Minute, "a fifth of what enters in east crosses", func() error {
		after := r.east.startSteady(t, east, "-rate", inEast)
		stays := r.west.client(t, west, 300, "-rate", inWest)
		crosses := after.stop(t)
		t.Logf("entered in west: %v; in east: %v", stays.By(shares.Region).Counts, crosses.By(shares.Region).Counts)
		if failed := stays.Failed + crosses.Failed; failed > 0 {
			t.Errorf("%d requests failed", failed)
		}
		if err := shares.Check(stays.By(shares.Region), shares.Shares{"west": 1}); err != nil {
			return fmt.Errorf("what enters in west: %w", err)
		}
		if err := shares.Check(crosses.By(shares.Region), shares.Shares{"west": 1, "east": 4}); err != nil {
			return fmt.Errorf("what enters in east: %w", err)
		}
		return nil
	})
}
