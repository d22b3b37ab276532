// Package k8s proves what deploy/ promises: the chart and the manifest as they
// are written, and then the whole system on two clusters that share nothing but
// a tailnet. scripts/k8s-test prepares both and runs these tests.
package k8s

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// repository is where the tested files are, seen from this package's folder.
const repository = "../.."

// program finds helm or kubectl where scripts/k8s-test has built them.
func program(t *testing.T, name string) string {
	t.Helper()
	folder := os.Getenv("K8S_BIN")
	if folder == "" {
		t.Skip("K8S_BIN is not set: run make k8s-test, which builds helm and kubectl first")
	}
	return filepath.Join(folder, name)
}

// result is what a program printed, and how it ended.
type result struct {
	stdout, stderr string
	err            error
}

// execute runs a program to its end, with input on its standard input.
func execute(ctx context.Context, input string, name string, args ...string) result {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, &stdout, &stderr)
	}
	return result{stdout.String(), stderr.String(), err}
}

// cluster is one of the two, as its administrator sees it.
type cluster struct {
	name       string // west or east
	kubeconfig string
	kubectl    string
	helm       string
}

func openCluster(t *testing.T, name, env string) cluster {
	t.Helper()
	kubeconfig := os.Getenv(env)
	if kubeconfig == "" {
		t.Skipf("%s is not set: run make k8s-test, which makes the clusters", env)
	}
	return cluster{name: name, kubeconfig: kubeconfig, kubectl: program(t, "kubectl"), helm: program(t, "helm")}
}

// try runs kubectl and hands back how it ended.
func (c cluster) try(ctx context.Context, input string, args ...string) result {
	return execute(ctx, input, c.kubectl, append([]string{"--kubeconfig", c.kubeconfig}, args...)...)
}

// do runs kubectl and ends the test if that fails.
func (c cluster) do(t *testing.T, args ...string) string {
	t.Helper()
	r := c.try(t.Context(), "", args...)
	if r.err != nil {
		t.Fatalf("%s: %v", c.name, r.err)
	}
	return r.stdout
}

// apply sends objects in YAML to the cluster.
func (c cluster) apply(t *testing.T, objects string, args ...string) {
	t.Helper()
	if r := c.try(t.Context(), objects, append([]string{"apply", "-f", "-"}, args...)...); r.err != nil {
		t.Fatalf("%s: %v", c.name, r.err)
	}
}

// release runs helm and ends the test if that fails.
func (c cluster) release(t *testing.T, args ...string) string {
	t.Helper()
	r := execute(t.Context(), "", c.helm, append([]string{"--kubeconfig", c.kubeconfig}, args...)...)
	if r.err != nil {
		t.Fatalf("%s: %v", c.name, r.err)
	}
	return r.stdout
}

// pod is what the tests need to know of a server's pod.
type pod struct{ name, address string }

type podList struct {
	Items []struct {
		Metadata struct {
			Name              string
			DeletionTimestamp string
		}
		Status struct{ PodIP string }
	}
}

// servers lists the pods of the chart that are not about to end.
func (c cluster) servers(t *testing.T) []pod {
	t.Helper()
	var list podList
	out := c.do(t, "-n", serversNamespace, "get", "pods", "-l", "app="+release, "-o", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("reading %s's pods: %v", c.name, err)
	}
	var pods []pod
	for _, item := range list.Items {
		if item.Metadata.DeletionTimestamp == "" {
			pods = append(pods, pod{item.Metadata.Name, item.Status.PodIP})
		}
	}
	return pods
}

// eventually polls until check returns nil, for things that nobody announces.
func eventually(t *testing.T, within time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, t.Context().Err())
		}
	}
}
