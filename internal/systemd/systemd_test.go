package systemd

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A start is over when resources are served, and after half a minute in any
// case; what it waits for is told at once, and each word but once.
func TestReport_readiness_isNotified(t *testing.T) {
	for _, c := range []struct {
		name  string
		ready time.Duration // after the start
		want  []string
	}{
		{"it serves soon", time.Second, []string{"STATUS=not ready: joining", "READY=1", "STATUS=ready", "STOPPING=1"}},
		{"it waits for somebody", time.Minute, []string{"STATUS=not ready: joining", "READY=1", "STATUS=ready", "STOPPING=1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var told []string
				var started time.Duration
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				Report(ctx, func(words ...string) {
					if slices.Contains(words, "READY=1") {
						started = time.Since(began)
					}
					told = append(told, words...)
				}, func() (bool, string) {
					if time.Since(began) < c.ready {
						return false, "not ready: joining"
					}
					return true, "ready"
				})
				if !slices.Equal(told, c.want) {
					t.Errorf("it told %q, want %q", told, c.want)
				}
				if want := min(c.ready, startPatience); started != want {
					t.Errorf("the start was over after %v, want %v", started, want)
				}
			})
		})
	}
}

func TestNotifier_environment_namesTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	tell, err := Notifier()
	if err != nil {
		t.Fatal(err)
	}
	tell("READY=1", "STATUS=ready")
	heard := make([]byte, 100)
	n, _, err := socket.ReadFrom(heard)
	if got := string(heard[:n]); err != nil || got != "READY=1\nSTATUS=ready" {
		t.Errorf("it heard %q, %v", got, err)
	}

	t.Setenv("NOTIFY_SOCKET", "")
	if tell, err = Notifier(); err != nil {
		t.Fatalf("without a supervisor: %v", err)
	}
	tell("READY=1") // to nobody

	// A file is no socket.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", file)
	if tell, err = Notifier(); err == nil {
		t.Error("a file was taken for a supervisor")
	}
	tell("READY=1") // all the same
}
