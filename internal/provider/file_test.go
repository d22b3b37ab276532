package provider

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tailxds/tailxds/internal/topology"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFile_JSONAndYAML_sayTheSame(t *testing.T) {
	expires := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	want := []topology.Device{
		{
			ID: "n1", Name: "west-1", Addresses: []string{"100.64.0.1"}, Tags: []string{"tag:weight-1", "tag:region-west"}, Online: true,
			Expires: &expires, Grants: rawGrants(`{"service":"hello","weight":2}`), Attributes: map[string]string{"weight": "0"},
		},
		{ID: "2", Name: "east-1"},
	}
	for name, text := range map[string]string{
		"a.json": `[{"id":"n1","name":"west-1","addresses":["100.64.0.1"],"tags":["tag:weight-1","tag:region-west"],
			"expires":"2027-01-01T00:00:00Z","grants":[{"service":"hello","weight":2}],"attributes":{"weight":"0"}},
			{"id":"2","name":"east-1","online":false,"expires":null}]`,
		"b.yaml": `
- id: n1
  name: west-1
  addresses: [100.64.0.1]
  tags:
    - tag:weight-1
    - tag:region-west
  expires: 2027-01-01T00:00:00Z
  grants:
    - {service: hello, weight: 2}
  attributes: {weight: "0"}
# a comment
- {id: "2", name: east-1, online: false, expires: 0001-01-01T00:00:00Z}
`,
		"tabs-without-ending": "[\n\t{\n\t\t\"id\": \"n1\", \"name\": \"west-1\", \"addresses\": [\"100.64.0.1\"], \"online\": true,\n" +
			"\t\t\"tags\": [\"tag:weight-1\", \"tag:region-west\"], \"expires\": \"2027-01-01T01:00:00+01:00\",\n" +
			"\t\t\"grants\": [{\"weight\": 2, \"service\": \"hello\"}], \"attributes\": {\"weight\": \"0\"}\n\t},\n\t{\"id\": \"2\", \"name\": \"east-1\", \"online\": false}\n]\n",
	} {
		path := filepath.Join(t.TempDir(), name)
		write(t, path, text)
		src, provider, err := Open(Config{Devices: path, Log: quiet()})
		if err != nil || provider != File {
			t.Fatal(provider, err)
		}
		got, err := src.List(t.Context())
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

// An address with the prefix length of one address is that address.
func TestParseDevices_addressWithAWholePrefix_isAHost(t *testing.T) {
	got, err := ParseDevices([]byte(`[{"id":"1","addresses":["100.64.0.1/32","fd7a::1/128","10.0.0.0/8"],"unreachable":"it is locked out"}]`), true)
	want := []topology.Device{{ID: "1", Addresses: []string{"100.64.0.1", "fd7a::1", "10.0.0.0/8"}, Unreachable: "it is locked out", Online: true}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

func TestFile_invalid_errorNamesThePlace(t *testing.T) {
	for _, c := range []struct{ name, text, says string }{
		{"empty.json", "", "empty.json:1:1: the file is empty"},
		{"blank.yaml", " \n\n", "blank.yaml:1:1: the file is empty"},
		{"comment.yaml", "# nothing\n", "no list of devices"},
		{"null.json", "null", "no list of devices"},
		{"cut.json", "[\n {\"id\":\"1\"},\n {\"id\"", "cut.json:3:6: unexpected EOF"},
		{"comma.json", "[\n  {\"id\": \"1\",}\n]", "comma.json:2:14: "},
		{"type.json", "[\n  {\"id\": \"1\", \"tags\": \"tag:weight-1\"}\n]", "type.json:2:"},
		{"object.json", "{\"devices\":[]}", "object.json:1:1: "},
		{"two.json", "[]\n[]", "two.json:2:"},
		{"typo.json", "[{\"id\":\"1\",\"tag\":[]}]", "unknown field \"tag\""},
		{"yamlish.json", "- id: n1\n", "yamlish.json:1:"},
		{"noid.yaml", "- {id: a}\n- {name: west-2}\n", "device 2 (west-2): it has no id"},
		{"nulldevice.yaml", "- {id: a}\n-\n", "device 2 (): it has no id"},
		{"typo.yaml", "- id: a\n- id: b\n  tgas: []\n", "typo.yaml:3:3: [1].tgas: there is no such key; did you mean tags?"},
		{"type.yaml", "- id: a\n  tags: tag:weight-1\n", "type.yaml:2:9: "},
		{"online.yaml", "- id: a\n  online: sometimes\n", "online.yaml:2:11: "},
		{"syntax.yaml", "- id: a\n  tags: [a\n", "syntax.yaml:3:1: this is no YAML that can be read: did not find expected ',' or ']' while parsing a flow sequence that begins in line 2"},
		{"faults.yaml", "- {id: a, tags: x}\n- {id: b, online: 3}\n", "faults.yaml:1:17: [0].tags: must be a list, and not \"x\"; 2:19: [1].online: must be true or false, and not \"3\""},
		{"second.yaml", "- id: a\n---\n- id: b\n", "second YAML document"},
		{"object.yaml", "devices: []\n", "object.yaml:1:"},
		{"time.yaml", "- {id: a, expires: tomorrow}\n", "expires: \"tomorrow\" is not a time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), c.name)
			write(t, path, c.text)
			devices, err := ReadDevices(path, 0)
			if err == nil || devices != nil {
				t.Fatalf("taken for %+v", devices)
			}
			if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want %q on one line", err, c.says)
			}
		})
	}
	if _, err := ReadDevices(filepath.Join(t.TempDir(), "none"), 0); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("missing: %v", err)
	}
	path := filepath.Join(t.TempDir(), "large.json")
	write(t, path, "["+strings.Repeat(" ", 5000)+"]")
	if _, err := ReadDevices(path, 5000); err == nil || !strings.Contains(err.Error(), "larger than 5000 bytes") {
		t.Errorf("too large: %v", err)
	}
	if got, err := ReadDevices(path, 5002); err != nil || len(got) != 0 {
		t.Errorf("just fits: %v %v", got, err)
	}
}

// However a file is replaced, it is seen; while it is bad or gone, the last
// good list stays.
func TestFile_replaced_isReadAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "devices.yaml")
	mount := func(name, text string) { // as Kubernetes mounts a ConfigMap
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "devices.yaml"), text)
		if err := os.Symlink(name, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	mount("..1", "[{id: a}]")
	if err := os.Symlink(filepath.Join("..data", "devices.yaml"), path); err != nil {
		t.Fatal(err)
	}
	src, _, err := Open(Config{Devices: path, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	var lists atomic.Int32
	counting := countingFile{src.(*file), &lists}
	bubble(t, counting, Options{Interval: time.Hour}, func(w *watcher) {
		after(time.Second)
		expectIDs(t, w.next(), "a")
		steps := []struct {
			name string
			do   func()
			want string
			bad  bool
		}{
			{"symlink turned", func() { mount("..2", "[{id: b}]") }, "b", false},
			{"renamed over", func() { write(t, path+"~", "[{id: c}]"); mustRename(t, path+"~", path) }, "c", false},
			{"written in place", func() { write(t, path, "[{id: c}, {id: d}]") }, "c d", false},
			{"bad edit", func() { write(t, path, "[{id: c}, {id") }, "", true},
			{"mended", func() { write(t, path, "[{id: e}]") }, "e", false},
			{"removed", func() { mustRename(t, path, path+".away") }, "", true},
			{"back", func() { write(t, path, "[{id: f}]") }, "f", false},
		}
		for _, s := range steps {
			s.do()
			after(pollInterval + settleTime + time.Second)
			expectIDs(t, w.next(), s.want)
			if got := w.Status(); got.Stale != s.bad || s.bad && got.Error == "" {
				t.Errorf("%s: status %+v", s.name, got)
			}
		}
		before := lists.Load()
		after(30 * time.Minute)
		if n := lists.Load() - before; n > 1 {
			t.Errorf("read %d times in half an hour without a change", n)
		}
	})
}

// A YAML list of dashes is a good list wherever it is cut, so nothing of it may
// be believed while it is being written, by whatever pieces.
func TestFile_halfWritten_isNotListed(t *testing.T) {
	const whole = "- {id: a}\n- {id: b}\n- {id: c}\n"
	path := filepath.Join(t.TempDir(), "devices.yaml")
	// The kernel's clock is not the bubble's.
	put := func(text string) {
		write(t, path, text)
		if err := os.Chtimes(path, time.Now(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	put(whole)
	bubble(t, &file{path: path}, Options{Interval: time.Hour}, func(w *watcher) {
		after(settleTime)
		expectIDs(t, w.next(), "a b c")
		for cut := range len(whole) {
			put(whole[:cut])
			after(settleTime - time.Millisecond)
			if got := w.next(); got != nil {
				t.Errorf("cut to %q: %+v is believed", whole[:cut], got)
			}
			put(whole + "- {id: d}\n")
			after(pollInterval + settleTime + time.Millisecond)
			expectIDs(t, w.next(), "a b c d")
			put(whole)
			after(pollInterval + settleTime + time.Millisecond)
			expectIDs(t, w.next(), "a b c")
		}
		if s := w.Status(); s.Error != "" {
			t.Errorf("a file that is being written was called bad: %s", s.Error)
		}
		put(whole[:10])
		after(pollInterval + settleTime + time.Millisecond)
		expectIDs(t, w.next(), "a") // it was meant
	})
}

// What has an end that a half would lack, and what is old, is believed at once.
func TestFile_certainlyWhole_isListedAtOnce(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		text string
		age  time.Duration
		once bool
	}{
		"a.json":      {"[{\"id\": \"a\"}]\n", 0, true},
		"flow.yaml":   {"# all of them\n---\n[{id: a},\n {id: b}] # so far\n", 0, true},
		"marked.yaml": {"- id: a\n- id: b\n...\n", 0, true},
		"old.yaml":    {"- id: a\n", time.Minute, true},
		"new.yaml":    {"- id: a\n", settleTime / 2, false},
		"future.yaml": {"- id: a\n", -time.Hour, false},
		"bad.yaml":    {"- id: [\n", 0, false},
		"worse.yaml":  {"- id: [\n", time.Minute, true},
	} {
		path := filepath.Join(t.TempDir(), name)
		write(t, path, c.text)
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(now)) // bubbles begin in the year 2000
			if err := os.Chtimes(path, now, now.Add(-c.age)); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			devices, err := (&file{path: path}).List(t.Context())
			if took := time.Since(start); (took == 0) != c.once || (err != nil) != strings.Contains(c.text, "[\n") {
				t.Errorf("%s: %v, %v after %s", name, devices, err, took)
			}
		})
	}
}

// A file that never comes to rest is an error in the end, and never a list.
func TestFile_writtenWithoutPause_isAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices.yaml")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				write(t, path, strings.Repeat("- id: a\n", i%9+1))
				sleep(ctx, settleTime/2)
			}
		}()
		synctest.Wait()
		if devices, err := (&file{path: path}).List(ctx); err == nil || !strings.Contains(err.Error(), "is being written") {
			t.Errorf("got %v, %v", devices, err)
		}
	})
}

type countingFile struct {
	*file
	lists *atomic.Int32
}

func (f countingFile) List(ctx context.Context) ([]topology.Device, error) {
	f.lists.Add(1)
	return f.file.List(ctx)
}

func rawGrants(objects ...string) []json.RawMessage {
	var grants []json.RawMessage
	for _, o := range objects {
		grants = append(grants, json.RawMessage(o))
	}
	return grants
}

func mustRename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// A list that stays is read at each look, and parsed once.
func TestFileList_sameText_parsedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices.yaml")
	write(t, path, "[{id: a, online: true}]")
	f := &file{path: path}
	list := func(want string, parses int) {
		t.Helper()
		devices, err := f.List(t.Context())
		if err != nil || len(devices) != 1 || devices[0].ID != want || !devices[0].Online || f.last.parses != parses {
			t.Fatalf("%+v, %v, parsed %d times; want %s, %d", devices, err, f.last.parses, want, parses)
		}
		devices[0].Online = false // as whoever lists may do
	}
	list("a", 1)
	list("a", 1)
	at := time.Now().Add(-time.Hour)
	for _, id := range []string{"b", "c"} { // same size, same time
		write(t, path, "[{id: "+id+", online: true}]")
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	list("c", 2)
	write(t, path, "[")
	if _, err := f.List(t.Context()); err == nil {
		t.Error("half a list is taken")
	}
	write(t, path, "[{id: c, online: true}]")
	list("c", 4)
}

func TestParseDevices_tooLongAList_isRefused(t *testing.T) {
	many := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(`{"id":"a,]\""},`, n), ",") + "]" }
	if devices, err := ParseDevices([]byte(many(maxDevices)), true); err != nil || len(devices) != maxDevices {
		t.Errorf("%d devices: %v", len(devices), err)
	}
	if _, err := ParseDevices([]byte(many(maxDevices+1)), true); !errors.Is(err, errTooManyDevices) {
		t.Error(err)
	}
	if _, err := ParseDevices([]byte(strings.Repeat("- {}\n", 400_000)), false); err == nil || !strings.Contains(err.Error(), "more than 500000 values") {
		t.Error(err)
	}
}
