package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/tailxds/tailxds/internal/controlplane"
	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/topology/topologytest"
)

// compared runs `tailxds diff` against a control plane.
func compared(c *controlplanetest.Control, stdin string, args ...string) (out, trouble string, code int) {
	c.T.Helper()
	var stdout, stderr bytes.Buffer
	root := rootCommand(nil)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs(append([]string{"diff", "--admin", c.Admin}, args...))
	code = exitStatus(&stderr, root.ExecuteContext(c.T.Context()))
	return stdout.String(), stderr.String(), code
}

// What a file would change is told by what the control plane does once it is in
// force, and nothing is changed by asking.
func TestDiff_files_printsChanges(t *testing.T) {
	c := controlplanetest.Trial(t, topologytest.ManyDevices(4))
	c.Write("policy.yaml", "services: {s0: {timeout: 20s}}")
	c.Await("the policy", func() bool { return strings.Contains(c.Log.String(), "policy reloaded") })
	c.Await("the devices", func() bool { return len(c.Status().Services) == 2 })

	if out, trouble, code := compared(c, "", filepath.Join(c.Dir, "policy.yaml"), "--devices", filepath.Join(c.Dir, "devices.json")); code != 0 || out != "nothing would change\n" || trouble != "" {
		t.Errorf("the same: status %d, %q, %q", code, out, trouble)
	}

	policy := "ingress: {port: 80}\ndefaults: {retries: 1}\nservices: {s0: {timeout: 1m, hosts: [a.io]}, new: {routes: [{path: /x, service: s0}]}}\n"
	out, trouble, code := compared(c, policy, "-")
	want := `~ policy of the ingress: port 10000 → 80
~ policy of s0: hosts none → a.io
~ policy of the defaults, new and s0: retries 3 → 1
~ policy of new: routes[0] none → /x → s0
~ policy of s0: timeout 20s → 1m
`
	if diff := cmp.Diff(want, out); diff != "" || code != 1 || trouble != "" {
		t.Errorf("a policy: status %d, %q, -want +got:\n%s", code, trouble, diff)
	}

	devices := topologytest.ManyDevices(5)[1:]
	devices[0].Tags = []string{"tag:service-s0", "tag:weight-7"}
	devices[1].Tags = append(devices[1].Tags, "tag:priority-x")
	out, trouble, code = compared(c, "", "--devices", deviceFile(c, "other.json", devices))
	want = `- d0 is gone from s0; it was serving with weight 1 in west
~ d1 in s0: weight 2 → 7
~ d1 in s0: region west → none
+ d4 came to s0: serving, weight 5 in west
! d2 tag:priority-x: ` // and why
	if !strings.HasPrefix(out, want) || code != 1 || trouble != "" {
		t.Errorf("devices: status %d, %q, -want +got:\n%s", code, trouble, cmp.Diff(want, out))
	}

	// What would be held is told as that.
	out, _, _ = compared(c, "", "--devices", deviceFile(c, "one.json", topologytest.ManyDevices(1)))
	if want := "! d1 is held in s0, though it is missing\n! d2 is held in s0, though it is missing\n! d3 is held in s0, though it is missing\n"; out != want {
		t.Errorf("a loss: -want +got:\n%s", cmp.Diff(want, out))
	}

	for format, read := range map[string]func([]byte, any) error{
		"json": json.Unmarshal, "yaml": func(text []byte, into any) error { return yaml.Load(text, into) },
	} {
		var doc struct{ Changes []map[string]any }
		out, _, code := compared(c, "services: {s0: {timeout: 1m}}", "-", "-o", format)
		want := []map[string]any{{"kind": "policy", "text": "policy of s0: timeout 20s → 1m", "service": "s0", "key": "timeout", "from": "20s", "to": "1m"}}
		if err := read([]byte(out), &doc); err != nil || code != 1 || cmp.Diff(want, doc.Changes) != "" {
			t.Errorf("%s: status %d, %v: %s", format, code, err, out)
		}
	}

	if got := c.Status(); len(got.Held) > 0 || len(got.Problems) > 0 || len(got.Services) != 2 {
		t.Errorf("asking changed something: %+v", got)
	}
	if same, _, code := compared(c, "services: {s0: {timeout: 20s}}", "-"); code != 0 {
		t.Errorf("asking changed something: %s", same)
	}
}

// Files are compared beside the loop, which publishes meanwhile: what the two share
// is never changed. Run it with the race detector.
func TestDiff_whileDevicesChange_sharesNothingThatChanges(t *testing.T) {
	t.Parallel()
	c := controlplanetest.Trial(t, topologytest.ManyDevices(20))
	c.Await("the devices", func() bool { return len(c.Status().Services) == 2 })
	other := deviceFile(c, "other.json", topologytest.ManyDevices(10))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			controlplanetest.Operate(c, []string{"drain", "restore"}[n%2], "device", "d1")
		}
	}()
	for range 20 {
		if _, trouble, code := compared(c, "services: {s0: {timeout: 1m}}", "-", "--devices", other); code != exitDiffers || trouble != "" {
			t.Errorf("status %d, %q", code, trouble)
		}
	}
	close(stop)
	<-stopped
}

func deviceFile(c *controlplanetest.Control, name string, devices []topology.Device) string {
	c.T.Helper()
	text, err := json.Marshal(devices)
	if err != nil {
		c.T.Fatal(err)
	}
	path := filepath.Join(c.Dir, name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		c.T.Fatal(err)
	}
	return path
}

// No error is taken for a difference.
func TestDiff_noAnswer_exitsWithTwo(t *testing.T) {
	c := &controlplanetest.Control{T: t, Dir: t.TempDir(), Admin: "127.0.0.1:1"}
	for name, test := range map[string]struct {
		args  []string
		stdin string
		want  []string
	}{
		"nothing to compare": {nil, "", []string{"needs a policy file"}},
		"too many":           {[]string{"a", "b"}, "", []string{"diff takes one policy file"}},
		"a flag":             {[]string{"--nonesuch"}, "", []string{"--nonesuch"}},
		"an output":          {[]string{"-", "-o", "xml"}, "", []string{"text, json or yaml"}},
		"both at once":       {[]string{"-", "--devices", "-"}, "", []string{"only one"}},
		"no file":            {[]string{filepath.Join(c.Dir, "absent.yaml")}, "", []string{"absent.yaml"}},
		"no devices":         {[]string{"--devices", filepath.Join(c.Dir, "absent.json")}, "", []string{"absent.json"}},
		"faults":             {[]string{"-"}, "services: {a: {retries: 11}}\nx: 1\n", []string{"-:1:25: services.a.retries: must be from 0 to 10\n-:2:1: x: there is no such key", "tailxds: -: 2 faults"}},
		"nobody to ask":      {[]string{"-"}, "", []string{"cannot reach the control plane at 127.0.0.1:1"}},
		"an address":         {[]string{"-", "--admin", "a b"}, "", []string{"--admin"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, trouble, code := compared(c, test.stdin, test.args...)
			if code != 2 || out != "" {
				t.Errorf("status %d, %q", code, out)
			}
			for _, want := range test.want {
				if !strings.Contains(trouble, want) {
					t.Errorf("got %q, want %q", trouble, want)
				}
			}
		})
	}
	old := func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
	refuses := func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no\x1b[2J\nreason", http.StatusUnprocessableEntity)
	}
	file := filepath.Join(c.Dir, "policy.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, answer := range map[string]http.HandlerFunc{
		"is it older than this command?": old, "no\ufffd[2J reason": refuses, "answers /diff with what is not its document": says("{"),
	} {
		_, _, err := asked(t, answer, "diff", file)
		if code := exitStatus(io.Discard, err); code != 2 || !strings.Contains(err.Error(), want) {
			t.Errorf("status %d, %v, want %q", code, err, want)
		}
	}
	bare := controlplanetest.New(t)
	bare.Write("policy.yaml", "")
	bare = bare.Restart(func(o *controlplane.Config) { o.Provider, o.APIURL = "headscale", "http://127.0.0.1:1" })
	if _, trouble, code := compared(bare, "", "-"); code != 2 || !strings.Contains(trouble, "nothing is served yet") {
		t.Errorf("without a list: status %d, %q", code, trouble)
	}
}

func TestExitStatus_errors_haveTheirStatus(t *testing.T) {
	for want, err := range map[int]error{0: nil, 1: errors.New("x"), 2: exitError{2, errors.New("x")}} {
		var said strings.Builder
		if got := exitStatus(&said, err); got != want || (said.String() == "tailxds: x\n") != (err != nil) {
			t.Errorf("%v: %d, %q", err, got, said.String())
		}
	}
	var said strings.Builder
	if got := exitStatus(&said, exitError{Code: 1}); got != 1 || said.String() != "" {
		t.Errorf("a difference: %d, %q", got, said.String())
	}
}
