package k8s

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/shares"
)

var clientNumber atomic.Int64

// clientPod is the lab's client in a pod. The processor limit keeps the load
// steady: on a small machine it must not starve what it tests.
func clientPod(name string, args ...string) string {
	image := "tailxds/client:dev"
	if i := os.Getenv("K8S_CLIENT_IMAGE"); i != "" {
		image = i
	}
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod",
		"metadata": {"name": %q, "namespace": %q, "labels": {"app": "client"}},
		"spec": {"restartPolicy": "Never", "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 10,
		"containers": [{"name": "client", "image": %q, "imagePullPolicy": "IfNotPresent", "args": ["%s"],
		"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}]}}`,
		name, serversNamespace, image, strings.Join(args, `","`))
}

// client sends n requests from inside the cluster and returns what answered.
func (c cluster) client(t *testing.T, url string, n int, flags ...string) shares.Tally {
	t.Helper()
	name := fmt.Sprintf("client-%d", clientNumber.Add(1))
	c.apply(t, clientPod(name, append(flags, url, fmt.Sprint(n))...))
	eventually(t, 2*time.Minute, name+" in "+c.name+" ends", func() error {
		phase := c.do(t, "-n", serversNamespace, "get", "pod", name, "-o", "jsonpath={.status.phase}")
		if phase != "Succeeded" && phase != "Failed" {
			return fmt.Errorf("it is %s", phase)
		}
		return nil
	})
	tally := parse(t, c.do(t, "-n", serversNamespace, "logs", name))
	c.do(t, "-n", serversNamespace, "delete", "pod", name, "--wait=false")
	return tally
}

// get asks once, and returns what was answered.
func (c cluster) get(t *testing.T, url string) string {
	t.Helper()
	for answer := range c.client(t, url, 1).Counts {
		return answer
	}
	t.Fatalf("%s: %s did not answer", c.name, url)
	return ""
}

// parse reads what the client printed. A pod's log holds standard error too:
// the reasons of failures, which are shown, and that it was stopped.
func parse(t *testing.T, log string) shares.Tally {
	t.Helper()
	var report []string
	for line := range strings.Lines(log) {
		switch {
		case strings.HasPrefix(line, "client: "):
		case strings.Contains(line, " × "):
			t.Logf("the client says: %s", strings.TrimSpace(line))
		default:
			report = append(report, line)
		}
	}
	tally, err := shares.Parse(strings.Join(report, ""))
	if err != nil {
		t.Fatalf("reading the client's report: %v\n%s", err, log)
	}
	return tally
}

// steady is a client that goes on until it is stopped.
type steady struct {
	cluster cluster
	name    string
	logs    *exec.Cmd
	log     strings.Builder
}

// startSteady returns when the client is under way.
func (c cluster) startSteady(t *testing.T, url string, flags ...string) *steady {
	t.Helper()
	s := &steady{cluster: c, name: fmt.Sprintf("steady-%d", clientNumber.Add(1))}
	c.apply(t, clientPod(s.name, append(flags, url, "100000000")...))
	c.do(t, "-n", serversNamespace, "wait", "pod", s.name, "--for=condition=Ready", "--timeout=60s")
	// Its report comes when it is told to stop, and a deleted pod has no log.
	s.logs = exec.CommandContext(context.WithoutCancel(t.Context()), c.kubectl, "--kubeconfig", c.kubeconfig,
		"-n", serversNamespace, "logs", "--follow", s.name)
	s.logs.Stdout = &s.log
	if err := s.logs.Start(); err != nil {
		t.Fatalf("following %s: %v", s.name, err)
	}
	t.Cleanup(func() { _ = s.logs.Process.Kill() }) // it has ended, unless the test failed before stop
	return s
}

// stop ends the client and returns what it counted.
func (s *steady) stop(t *testing.T) shares.Tally {
	t.Helper()
	s.cluster.do(t, "-n", serversNamespace, "delete", "pod", s.name)
	if err := s.logs.Wait(); err != nil {
		t.Fatalf("following %s: %v\n%s", s.name, err, s.log.String())
	}
	return parse(t, s.log.String())
}

// underLoad does something while requests flow, and fails if one of them does.
func (c cluster) underLoad(t *testing.T, url string, do func()) {
	t.Helper()
	// Few connections, kept alive, cling to an Envoy each: the hardest case for a drain.
	s := c.startSteady(t, url, "-concurrency", "4")
	do()
	tally := s.stop(t)
	t.Logf("%d answered, %d failed", tally.Answered(), tally.Failed)
	if tally.Failed > 0 {
		t.Errorf("%d of %d requests failed", tally.Failed, tally.Answered()+tally.Failed)
	}
	if tally.Answered() < 1000 {
		t.Errorf("only %d requests were answered: that is no load", tally.Answered())
	}
}
