package cli

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"github.com/tailxds/tailxds/internal/controlplane/controlplanetest"
	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/input"
	"github.com/tailxds/tailxds/internal/policyfile"
)

// outcome is what a run of the program left behind.
type outcome struct {
	out, errors string
	code        int
}

// runs runs the program as main does.
func runs(t *testing.T, env environment, args ...string) outcome {
	t.Helper()
	var out, trouble bytes.Buffer
	root := rootCommand(env)
	root.SetOut(&out)
	root.SetErr(&trouble)
	root.SetIn(strings.NewReader(""))
	root.SetArgs(args)
	code := exitStatus(&trouble, root.ExecuteContext(t.Context()))
	return outcome{out.String(), trouble.String(), code}
}

const badText = "a\xff\x1b[2J\nb"

// startPlane starts a control plane with two devices in three services, and returns
// the environment in which commands find it.
func startPlane(t *testing.T) (*controlplanetest.Control, environment) {
	t.Helper()
	c := controlplanetest.New(t)
	c.Write("devices.json", controlplanetest.DeviceList("west-1=tag:service-hello", "east-1=tag:service-shop"))
	c.Write("policy.yaml", "")
	c = controlplanetest.Start(t, c.Dir)
	c.Await("services", func() bool { return len(c.Status().Services) == 3 })
	return c, environment{"TS_ENVOY_ADMIN=" + c.Admin}
}

// Each wrong input ends the program with one line that names what is wrong and
// what would be right, and with a status that scripts see.
func TestCommands_wrongInput_oneLineAndStatus(t *testing.T) {
	c, plane := startPlane(t)

	grpcListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	xdsServer := grpc.NewServer()
	go func() { _ = xdsServer.Serve(grpcListener) }()
	t.Cleanup(xdsServer.Stop)
	xdsPort := grpcListener.Addr().String()

	for name, text := range map[string]string{
		"tab.yaml": "services:\n\thello: {}\n", "tabs.yaml": "- id: \"1\"\n\tname: x\n...\n", "typo.yaml": "services: {hello: {retires: 1}}\n",
		"huge.yaml": strings.Repeat("# padding\n", policyfile.MaxBytes/10+1),
	} {
		c.Write(name, text)
	}
	file := func(name string) string { return filepath.Join(c.Dir, name) }
	long := strings.Repeat("a", 5000)

	for name, test := range map[string]struct {
		env  environment
		args []string
		code int
		want string // the whole error; it begins with it if it ends with …
	}{
		"no device":               {plane, []string{"drain"}, 1, "drain needs a device: tailxds drain DEVICE"},
		"no device to restore":    {plane, []string{"restore"}, 1, "restore needs a device: tailxds restore DEVICE"},
		"no policy file":          {plane, []string{"check"}, 1, "check needs a policy file: tailxds check FILE"},
		"two devices":             {plane, []string{"drain", "a", "b"}, 1, "drain takes one device, and got 2 arguments: tailxds drain DEVICE"},
		"two policy files":        {plane, []string{"diff", "a", "b"}, 2, "diff takes one policy file, and got 2 arguments: tailxds diff [POLICY-FILE]"},
		"an empty device":         {plane, []string{"drain", ""}, 1, "drain got an empty device: tailxds drain DEVICE"},
		"a blank device":          {plane, []string{"restore", " \t"}, 1, "restore got an empty device: tailxds restore DEVICE"},
		"an empty service":        {plane, []string{"accept", ""}, 1, "accept got an empty service: name one, or leave it out: tailxds accept [SERVICE]"},
		"an empty file":           {plane, []string{"check", ""}, 1, "check got an empty policy file: tailxds check FILE"},
		"a long device":           {plane, []string{"drain", long}, 1, "drain got a device of 5000 bytes: it must have at most 253"},
		"a hostile device":        {plane, []string{"drain", badText}, 1, `drain got the device "a\xff\x1b[2J\nb": it must be UTF-8 text`},
		"a hostile file":          {plane, []string{"check", "no\x1b[2J\nsuch"}, 1, "read policy: open no\ufffd[2J such: no such file or directory"},
		"an unknown device":       {plane, []string{"drain", "west-2"}, 1, `no device has the name, ID or address "west-2"; there are west-1 (100.64.0.1, ID 1)`},
		"an argument too many":    {plane, []string{"serve", "x"}, 1, "serve takes no arguments, and got \"x\": see `tailxds serve --help`"},
		"one for a subcommand":    {plane, []string{"completion", "bash", "x"}, 1, "completion bash takes no arguments, and got \"x\": see `tailxds completion bash --help`"},
		"an unknown command":      {plane, []string{"stauts"}, 1, `there is no command "stauts": did you mean "status"?`},
		"one with flags":          {plane, []string{"stauts", "--watch"}, 1, `there is no command "stauts": did you mean "status"?`},
		"one that is far":         {plane, []string{"frobnicate"}, 1, "there is no command \"frobnicate\": see `tailxds --help`"},
		"an empty command":        {plane, []string{""}, 1, "there is no command \"\": see `tailxds --help`"},
		"help of none":            {plane, []string{"help", "stauts"}, 1, `there is no command "stauts": did you mean "status"?`},
		"help below a command":    {plane, []string{"help", "status", "x"}, 1, "status has no commands, and got \"x\": see `tailxds status --help`"},
		"an unknown shell":        {plane, []string{"completion", "bsh"}, 1, `there is no command "bsh": did you mean "bash"?`},
		"an unknown flag":         {plane, []string{"status", "--wacth"}, 1, "there is no flag --wacth: did you mean --watch?"},
		"an unknown letter":       {plane, []string{"status", "-z"}, 1, "there is no flag -z: see `tailxds status --help`"},
		"a flag without value":    {plane, []string{"serve", "--devices"}, 1, "--devices needs a value: see `tailxds serve --help`"},
		"no flag at all":          {plane, []string{"status", "--=x"}, 1, "\"--=x\" is no flag: see `tailxds status --help`"},
		"status of none":          {plane, []string{"status", "helo"}, 1, `there is no service "helo": did you mean "hello"?`},
		"status of one far off":   {plane, []string{"status", "nosuch"}, 1, `there is no service "nosuch": there are hello, server, shop`},
		"status watched":          {plane, []string{"status", "nosuch", "--watch"}, 1, `there is no service "nosuch": there are hello, server, shop`},
		"top of none":             {plane, []string{"top", "nosuch"}, 1, `there is no service "nosuch": there are hello, server, shop`},
		"top of none as JSON":     {plane, []string{"top", "helo", "-o", "json"}, 1, `there is no service "helo": did you mean "hello"?`},
		"accept of none":          {plane, []string{"accept", "shpo"}, 1, `there is no service "shpo": did you mean "shop"?`},
		"nothing is held":         {plane, []string{"accept", "shop"}, 1, `accept: service "shop": nothing is held; there is nothing to accept`},
		"explain of none":         {plane, []string{"explain", "east-2"}, 1, `there is no service or device "east-2": did you mean "east-1"?`},
		"explain from none":       {plane, []string{"explain", "hello", "--from", "nosuch"}, 1, `--from: no device has the name, ID or address "nosuch"; …`},
		"the xDS port":            {nil, []string{"status", "--admin", xdsPort}, 1, xdsPort + " is an xDS port and not the admin port: give the address of the admin pages, by default 127.0.0.1:9090"},
		"the xDS port, watched":   {nil, []string{"status", "--watch", "--admin", xdsPort}, 1, xdsPort + " is an xDS port and not the admin port: …"},
		"the xDS port to drain":   {nil, []string{"drain", "west-1", "--admin", xdsPort}, 1, xdsPort + " is an xDS port and not the admin port: …"},
		"TLS where there is none": {nil, []string{"status", "--admin", "https://" + c.Admin}, 1, "https://" + c.Admin + " speaks HTTP without TLS: give http:// in place of https://"},
		"no control plane":        {nil, []string{"healthcheck", "--admin", "127.0.0.1:1"}, 1, "cannot reach the control plane at 127.0.0.1:1: connection refused: start it, or give the address of its admin pages with --admin"},
		"a bad admin variable":    {environment{"TS_ENVOY_ADMIN=a b"}, []string{"status"}, 1, `--admin (TS_ENVOY_ADMIN) is "a b": it must be a host, host:port or URL, such as 127.0.0.1:9090`},
		"a bad address, watched":  {nil, []string{"top", "--admin", "a b"}, 1, `--admin (TS_ENVOY_ADMIN) is "a b": …`},
		"no directory":            {nil, []string{"bootstrap", "--control-plane", "a", "--output", "/nosuch/x.yaml"}, 1, "write /nosuch/x.yaml: no such file or directory"},
		"a directory":             {nil, []string{"bootstrap", "--control-plane", "a", "--output", c.Dir}, 1, "write " + c.Dir + ": is a directory"},
		"a tab in devices":        {nil, []string{"render", "--devices", file("tabs.yaml")}, 1, "read devices: " + file("tabs.yaml") + ":2:1: a tab stands here: YAML is indented with spaces, so use spaces"},
		"a directory of devices":  {nil, []string{"render", "--devices", c.Dir}, 1, "read devices: read " + c.Dir + ": is a directory"},
		"a type of none":          {nil, []string{"render", "--devices", file("devices.json"), "--only", "endpoint"}, 1, `--only is "endpoint": it must be ` + input.OneOf(envoy.TypeNames()) + `: did you mean "endpoints"?`},
		"an empty type":           {nil, []string{"render", "--devices", file("devices.json"), "--only", ""}, 1, `--only is "": it must be ` + input.OneOf(envoy.TypeNames())},
		"no device file":          {nil, []string{"render"}, 1, "render needs a device file: tailxds render --devices FILE (or - for standard input)"},
		"an output":               {nil, []string{"status", "-o", "jsno"}, 1, `--output is "jsno": it must be table, json or yaml: did you mean "json"?`},
		"a long output":           {nil, []string{"top", "-o", long}, 1, `--output is "` + strings.Repeat("a", input.MaxQuoted) + `…": it must be table, json or yaml`},
		"a hostile output":        {nil, []string{"explain", "-o", badText}, 1, `--output is "a\xff\x1b[2J\nb": it must be text, json or yaml`},
		"a bool":                  {nil, []string{"status", "--watch=maybe"}, 1, `--watch is "maybe": it must be true or false`},
		"a list":                  {nil, []string{"serve", "--allow", `"`}, 1, `--allow is "\"": it must be values with commas between them, and quotes in pairs`},
		"a provider":              {nil, []string{"serve", "--provider", "headscal"}, 1, `--provider is "headscal": it must be auto, netmap, headscale, tailscale or file: did you mean "headscale"?`},
		"a provider's variable":   {environment{"TS_ENVOY_PROVIDER=fil"}, []string{"serve"}, 1, `TS_ENVOY_PROVIDER is "fil": it must be auto, netmap, headscale, tailscale or file: did you mean "file"?`},
		"a port's variable":       {environment{"TS_ENVOY_PORT=" + badText}, []string{"serve"}, 1, `TS_ENVOY_PORT is "a\xff\x1b[2J\nb": it must be a port from 1 to 65535`},
		"a duration's variable":   {environment{"TS_ENVOY_HOLD_FOR=5"}, []string{"serve"}, 1, `TS_ENVOY_HOLD_FOR is "5": it must be a duration, such as 15s or 10m`},
		"a share's variable":      {environment{"TS_ENVOY_HOLD_FRACTION=half"}, []string{"serve"}, 1, `TS_ENVOY_HOLD_FRACTION is "half": it must be a number, such as 0.5`},
		"a level's variable":      {environment{"TS_ENVOY_LOG_LEVEL=wran"}, []string{"serve"}, 1, `TS_ENVOY_LOG_LEVEL is "wran": it must be debug, info, warn or error: did you mean "warn"?`},
		"a switch's variable":     {environment{"TS_ENVOY_PREFER_IPV6=yes"}, []string{"render"}, 1, `TS_ENVOY_PREFER_IPV6 is "yes": it must be true or false`},
		"a size's variable":       {environment{"TS_ENVOY_MAX_RESPONSE_BYTES=1e9"}, []string{"serve"}, 1, `TS_ENVOY_MAX_RESPONSE_BYTES is "1e9": it must be a whole number`},
		"a list's variable":       {environment{`TS_ENVOY_PEER="`}, []string{"serve"}, 1, `TS_ENVOY_PEER is "\"": it must be values with commas between them, and quotes in pairs`},
		"a variable's file":       {environment{"TS_ENVOY_DEVICES=file:/nosuch"}, []string{"render"}, 1, "read the value of TS_ENVOY_DEVICES: open /nosuch: no such file or directory"},
		"an empty host":           {nil, []string{"doctor", "--control-plane", ""}, 1, `--control-plane is "": it must be a host, or host:port, such as tsnet-dynamic-eds:18000`},
		"a host that is none":     {nil, []string{"doctor", "--control-plane", "a b"}, 1, `--control-plane is "a b": it must be a host, …`},
		"a flag of another use":   {plane, []string{"doctor", "--socket", "/x"}, 1, "--socket examines this host: give --control-plane, too"},
		"a time":                  {plane, []string{"drain", "west-1", "--for", "1d"}, 1, `--for is "1d": it must be a duration, such as 15s or 10m`},
		"a URL of a sidecar":      {nil, []string{"drain-at-stop", "--unhealthy-url", "localhost:8080/x"}, 1, `--unhealthy-url is "localhost:8080/x": it must be a URL, such as http://127.0.0.1:8080/unhealthy`},
		"an Envoy of a sidecar":   {nil, []string{"drain-at-stop", "--envoy-admin", "127.0.0.1:9901"}, 1, `--envoy-admin is "127.0.0.1:9901": it must be a URL, …`},
		"no directory for pages":  {nil, []string{"documents"}, 1, "documents needs a directory: tailxds documents DIR"},
	} {
		t.Run(name, func(t *testing.T) {
			got := runs(t, test.env, test.args...)
			if got.code != test.code || got.out != "" {
				t.Errorf("status %d, printed %q", got.code, got.out)
			}
			begin, open := strings.CutSuffix(test.want, "…")
			text, found := strings.CutPrefix(got.errors, "tailxds: ")
			if line, rest, _ := strings.Cut(text, "\n"); !found || rest != "" || !strings.HasPrefix(line, begin) || !open && line != begin {
				t.Errorf("it says\n%q, want\n%q", got.errors, test.want)
			}
			harmless(t, got.errors)
		})
	}

	// A fault has a line of its own, as in a compiler.
	if got := runs(t, nil, "check", file("tab.yaml")); got.code != 1 || got.errors != file("tab.yaml")+":2:1: a tab stands here: YAML is indented with spaces, so use spaces\ntailxds: "+file("tab.yaml")+": 1 fault\n" {
		t.Errorf("a tab in a policy: %+v", got)
	}
	if got := runs(t, nil, "check", file("huge.yaml")); got.code != 1 || got.errors != file("huge.yaml")+":1:1: this is larger than 1048576 bytes\ntailxds: "+file("huge.yaml")+": 1 fault\n" {
		t.Errorf("a huge policy: %+v", got)
	}
	// Several faults have a line each.
	if got := runs(t, nil, "serve", "--port=0", "--hold-for=-1s"); got.code != 1 || strings.Count(got.errors, "\n") != 2 || strings.Count(got.errors, "tailxds: --") != 2 {
		t.Errorf("two settings: %+v", got)
	}
	left, err := filepath.Glob(file(".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if c.Status().Drains != nil && len(c.Status().Drains) > 0 {
		t.Errorf("something was drained: %+v", c.Status().Drains)
	}
}

// One service is shown alone, in each form.
func TestStatus_service_onlyThat(t *testing.T) {
	for _, form := range []string{"table", "json", "yaml"} {
		out, _, err := asked(t, says(strings.Replace(away, `"services": [`, `"services": [{"name": "other", "localities": []}, `, 1)), "status", "other", "-o", form)
		if err != nil || strings.Contains(out, "100.64.0.7:8080") || form != "table" && !strings.Contains(out, "other") {
			t.Errorf("%s: %v of\n%s", form, err, out)
		}
		out, _, err = asked(t, says(away), "status", "server", "-o", form)
		if err != nil || !strings.Contains(out, "west-7") {
			t.Errorf("%s: %v of\n%s", form, err, out)
		}
	}
	const starting = `{"ready": false, "detail": "not ready: joining the tailnet", "degraded": [], "services": []}`
	if out, _, err := asked(t, says(starting), "status", "server"); err == nil || err.Error() != "not ready: joining the tailnet" || !strings.Contains(out, "not ready: joining") {
		t.Errorf("before there are services: %v, %q", err, out)
	}
}

// Other servers are named as such, and not what they print.
func TestAdminClient_otherServer_saysSo(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"Envoy's admin": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "invalid path. admin commands are:\n"+strings.Repeat("  /stats: print\n", 30), http.StatusNotFound)
		},
		"a web page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write([]byte("<html>"))
		},
		"nothing": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
	} {
		if _, _, err := asked(t, answer, "status"); err == nil || !strings.Contains(err.Error(), "is not the admin port of a control plane, it answers ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := asked(t, says("hello"), "status"); err == nil || !strings.Contains(err.Error(), "answers /status with what is not its document") {
		t.Errorf("a text: %v", err)
	}
}

// A file is refused at a start if it can't be read, whichever it is. What was kept
// serves without either.
func TestServe_missingFile_refused(t *testing.T) {
	c := controlplanetest.New(t)
	c.Write("devices.json", controlplanetest.DeviceList("a=tag:weight-1"))
	c.Write("broken.json", "[{")
	c.Write("policy.yaml", "defaults: {retries: 1}\n")
	args := func(devices, policy string) []string {
		return []string{
			"serve", "--provider=file", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--state-dir", filepath.Join(c.Dir, "state"),
			"--devices", filepath.Join(c.Dir, devices), "--config", filepath.Join(c.Dir, policy),
		}
	}
	for name, test := range map[string]struct{ devices, policy, want string }{
		"no devices":     {"absent.json", "policy.yaml", "tailxds: read devices: open " + filepath.Join(c.Dir, "absent.json") + ": no such file or directory: --devices names the device file\n"},
		"broken devices": {"broken.json", "policy.yaml", "tailxds: read devices: " + filepath.Join(c.Dir, "broken.json") + ":1:2: unexpected EOF: --devices names the device file\n"},
		"no policy":      {"devices.json", "absent.yaml", "tailxds: read policy: open " + filepath.Join(c.Dir, "absent.yaml") + ": no such file or directory\n"},
	} {
		if got := runs(t, nil, args(test.devices, test.policy)...); got.code != 1 || !strings.HasSuffix(got.errors, test.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}

	c = controlplanetest.Start(t, c.Dir)
	c.AwaitWeights("a=1")
	for _, name := range []string{"devices.json", "policy.yaml"} {
		if err := os.Remove(filepath.Join(c.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	c.Await("both to be missed", func() bool { s := c.Status(); return s.Policy.Error != "" && s.Provider.Error != "" })
	if got := c.Weights(); got != "a=1" || !c.Status().Ready {
		t.Errorf("both files vanished: %q, %+v", got, c.Status().Detail)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	c = controlplanetest.Start(t, c.Dir)
	c.AwaitWeights("a=1")
}

// Why devices make no resource is on standard error, whatever is printed.
func TestRender_passedOver_reasonsOnStandardError(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "devices.json")
	for name, test := range map[string]struct {
		text, want string
		code       int
	}{
		"none is an endpoint": {controlplanetest.DeviceList("phone=tag:web", "bad=tag:weight-x"), "tailxds: warning: phone is no endpoint: it names neither a weight nor a service: give it a tag such as tag:weight-1, or a grant of tailxds.dev/cap/endpoint\n" +
			"tailxds: warning: bad tag:weight-x: ignored: the value of tag:weight-… must be a whole number from 0 to 1000 in plain digits\n" +
			"tailxds: no endpoint to render: no device of 2 is one\n", 1},
		"there is no device": {"[]", "tailxds: no endpoint to render: the device file lists no devices\n", 1},
		"one is passed over": {controlplanetest.DeviceList("phone=tag:web", "a=tag:weight-1"), "tailxds: warning: phone is no endpoint: …\n", 0},
		"one is drained":     {controlplanetest.DeviceList("a=tag:weight-1", "b=tag:weight-0"), "tailxds: warning: b does not serve server: it is drained\n", 0},
		"all serve":          {controlplanetest.DeviceList("a=tag:weight-1"), "", 0},
	} {
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, only := range []string{"", "clusters"} {
			args := []string{"render", "--devices", file}
			if only != "" {
				args = append(args, "--only", only)
			}
			got := runs(t, nil, args...)
			begin, _, open := strings.Cut(test.want, "…")
			if got.code != test.code || !strings.HasPrefix(got.errors, begin) || !open && got.errors != begin || !strings.Contains(got.out, `"name": "server"`) {
				t.Errorf("%s: status %d, %q", name, got.code, got.errors)
			}
		}
	}
}

// Help shows booleans as they are written.
func TestHelp_booleans_plain(t *testing.T) {
	for _, c := range append(rootCommand(nil).Commands(), rootCommand(nil)) {
		got := runs(t, nil, append(strings.Fields(strings.TrimPrefix(c.CommandPath(), "tailxds")), "--help")...)
		if got.code != 0 || strings.Contains(got.out, "true|false") || !strings.Contains(got.out, "--help ") {
			t.Errorf("%s: status %d of\n%s", c.CommandPath(), got.code, got.out)
		}
	}
	if out := runs(t, nil, "status", "--help").out; !strings.Contains(out, "\n      --watch           draw it anew") || !strings.Contains(out, "\nExit status: 1 if the control plane is not ready") {
		t.Errorf("status: %s", out)
	}
	if runs(t, nil).out != runs(t, nil, "--help").out {
		t.Error("without a command it does not help")
	}
}

// completes is what a shell is offered, and whether it offers files as well.
func completes(t *testing.T, env environment, args ...string) (words []string, directive string) {
	t.Helper()
	got := runs(t, env, append([]string{"__completeNoDesc"}, args...)...)
	lines := strings.Split(strings.TrimSuffix(got.out, "\n"), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1]
}

const (
	anyFile, noFile, endings, onlyDirectories = ":0", ":4", ":8", ":16"
)

func TestCompletion_values_offered(t *testing.T) {
	_, plane := startPlane(t)
	for _, test := range []struct {
		args      string
		want      string
		directive string
	}{
		{"serve --provider ", "auto netmap headscale tailscale file", noFile},
		{"serve --log-level ", "debug info warn error", noFile},
		{"serve --log-format ", "text json", noFile},
		{"serve --devices ", "yaml yml json", endings},
		{"serve --config ", "yaml yml", endings},
		{"serve --state-dir ", "", onlyDirectories},
		{"serve --hostname ", "", noFile},
		{"serve --prefer-ipv6=", "true false", noFile},
		{"render --only ", strings.Join(envoy.TypeNames(), " "), noFile},
		{"bootstrap --output ", "", anyFile},
		{"bootstrap --region ", "", noFile},
		{"status --output ", "table json yaml", noFile},
		{"status -o ", "table json yaml", noFile},
		{"version -o ", "text json", noFile},
		{"status ", "hello server shop", noFile},
		{"status hello ", "", noFile},
		{"top ", "hello server shop", noFile},
		{"accept ", "hello server shop", noFile},
		{"drain ", "west-1 east-1", noFile},
		{"restore ", "west-1 east-1", noFile},
		{"explain ", "hello server shop west-1 east-1", noFile},
		{"explain hello --from ", "west-1 east-1", noFile},
		{"check ", "yaml yml", endings},
		{"check a.yaml ", "", noFile},
		{"diff ", "yaml yml", endings},
		{"serve ", "", noFile},
		{"documents ", "", onlyDirectories},
		{"completion ", "bash fish powershell zsh", noFile},
		{"help st", "status", noFile},
	} {
		args := strings.Split(test.args, " ")
		words, directive := completes(t, plane, args...)
		if got := strings.Join(words, " "); got != test.want || directive != test.directive {
			t.Errorf("%q: %q %s, want %q %s", test.args, got, directive, test.want, test.directive)
		}
	}
	began := time.Now()
	if words, directive := completes(t, environment{"TS_ENVOY_ADMIN=127.0.0.1:1"}, "drain", ""); len(words) > 0 || directive != noFile || time.Since(began) > 10*time.Second {
		t.Errorf("without a control plane: %q %s", words, directive)
	}
}

// No flag and no argument falls back to files, but where files are meant.
func TestCompletion_everyFlag_noStrayFiles(t *testing.T) {
	meant := []string{"bootstrap output", "doctor socket"}
	for _, cmd := range rootCommand(nil).Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if _, directive := completes(t, environment{"TS_ENVOY_ADMIN=127.0.0.1:1"}, cmd.Name(), "--"+f.Name+"="); (directive == anyFile) != slices.Contains(meant, cmd.Name()+" "+f.Name) {
				t.Errorf("%s --%s: %s", cmd.Name(), f.Name, directive)
			}
		})
		if _, directive := completes(t, environment{"TS_ENVOY_ADMIN=127.0.0.1:1"}, cmd.Name(), ""); directive == anyFile {
			t.Errorf("%s: arguments fall back to files", cmd.Name())
		}
	}
}

// A bootstrap replaces a file whole, and is written to what is no file as it is.
func TestBootstrap_output_fileOrStream(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "envoy.yaml")
	for range 2 {
		if got := runs(t, nil, "bootstrap", "--control-plane", "a", "--output", path); got != (outcome{}) {
			t.Fatalf("%+v", got)
		}
	}
	text, err := os.ReadFile(path)
	if want := runs(t, nil, "bootstrap", "--control-plane", "a", "--output", "-").out; err != nil || string(text) != want || !strings.Contains(want, "\nnode:\n") {
		t.Errorf("%v, %q", err, text)
	}
	if got := runs(t, nil, "bootstrap", "--control-plane", "a", "--output", "/dev/null"); got != (outcome{}) {
		t.Errorf("%+v", got)
	}
	if info, err := os.Stat("/dev/null"); err != nil || info.Mode().IsRegular() {
		t.Errorf("a device became a file: %v, %v", info, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
