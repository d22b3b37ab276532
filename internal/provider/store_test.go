package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tailxds/tailxds/internal/topology"
)

func TestStartsWithTheListOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices.json")
	expires := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	devices := fleet(3)
	devices[0].Expires = &expires
	devices[1].Grants = []json.RawMessage{[]byte(`{"service":"hello","weight":2}`), []byte(`"not an object"`)}
	devices[2].Attributes = map[string]string{"weight": "0"}
	opts := Options{StateFile: path, Provider: Headscale}
	watched(t, &script{devices: devices}, opts, func(*Watcher) { after(time.Second) })
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("kept as %v, %v", info, err)
	}
	hour := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(path, hour, hour); err != nil {
		t.Fatal(err)
	}

	src := &script{err: errors.New("connection refused")}
	watched(t, src, opts, func(w *Watcher) {
		after(time.Minute)
		if diff := cmp.Diff(devices, next(w)); diff != "" {
			t.Error(diff)
		}
		if s := w.Status(); !s.Stale || !s.LastGood.Equal(hour) || s.Devices != 3 {
			t.Errorf("status %+v", s)
		}
		// A first answer that lacks most is held against the list on disk.
		src.answer(nil, nil)
		after(30 * time.Second)
		if got := next(w); got != nil || w.Status().Held == nil {
			t.Errorf("after a restart, an empty answer counts: %v", got)
		}
	})
}

// Another source has other IDs for the same devices; its list is no loss.
func TestListOnDiskOfAnotherSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices.json")
	watched(t, &script{devices: fleet(3)}, Options{StateFile: path, Provider: Headscale}, func(*Watcher) { after(time.Second) })
	src := &script{err: errors.New("not yet")}
	watched(t, src, Options{StateFile: path, Provider: Tailscale}, func(w *Watcher) {
		after(0)
		expectIDs(t, next(w), "1 2 3")
		src.answer([]topology.Device{{ID: "nABC", Online: true}}, nil)
		after(time.Minute)
		expectIDs(t, next(w), "nABC")
	})
}

func TestCorruptFileIsSetAside(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "cut": `{"version":1,"provider":"headscale","devices":[{"id":"1"`, "not JSON": "\x00\x01",
		"of a later version": `{"version":2,"devices":[]}`, "something behind": `{"version":1,"devices":[]}x`, "of another shape": `[]`,
		"bad device": `{"version":1,"devices":[{"id":7}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "devices.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			opts := Options{StateFile: path, Log: slog.New(slog.NewTextHandler(&log, nil))}
			watched(t, &script{devices: fleet(2)}, opts, func(w *Watcher) {
				after(time.Second)
				expectIDs(t, next(w), "1 2")
			})
			if !strings.Contains(log.String(), "set aside") || strings.Count(log.String(), "level=WARN") != 1 {
				t.Errorf("log:\n%s", &log)
			}
			if aside, err := os.ReadFile(path + ".corrupt"); err != nil || string(aside) != text {
				t.Errorf("aside is %q, %v", aside, err)
			}
			if list, _ := (store{path, "", quiet()}).load(); list == nil || len(list.Devices) != 2 {
				t.Errorf("not replaced: %+v", list)
			}
		})
	}
}

// Without a place to write, the control plane works and says so.
func TestUnwritableDisk(t *testing.T) {
	var log bytes.Buffer
	opts := Options{StateFile: filepath.Join(t.TempDir(), "missing", "devices.json"), Log: slog.New(slog.NewTextHandler(&log, nil))}
	watched(t, &script{devices: fleet(2)}, opts, func(w *Watcher) {
		after(time.Second)
		expectIDs(t, next(w), "1 2")
	})
	if !strings.Contains(log.String(), "can't be kept on disk") {
		t.Errorf("log:\n%s", &log)
	}
}

// The file's time tells when the list was last confirmed, without a rewrite.
func TestConfirmedListGetsYounger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices.json")
	var first, last os.FileInfo
	watched(t, &script{devices: fleet(2)}, Options{StateFile: path}, func(*Watcher) {
		after(time.Second)
		first, _ = os.Stat(path)
		after(time.Hour)
		last, _ = os.Stat(path)
	})
	if !os.SameFile(first, last) || last.ModTime().Equal(first.ModTime()) {
		t.Errorf("first %v, last %v, same file %v", first.ModTime(), last.ModTime(), os.SameFile(first, last))
	}
}
