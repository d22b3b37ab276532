package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tailscale.com/ipn/store/mem"
)

func TestLoad_savedDocument_isTheSame(t *testing.T) {
	for name, s := range map[string]Store{
		"file": File(filepath.Join(t.TempDir(), "memory.json")),
		"node": Node{Store: new(mem.Store), Key: "tailxds-memory"},
	} {
		t.Run(name, func(t *testing.T) {
			if document, err := s.Load(); document != nil || err != nil {
				t.Fatalf("before the first: %q, %v", document, err)
			}
			for _, document := range []string{"first", strings.Repeat("a longer one", 1000), "last"} {
				if err := s.Save([]byte(document)); err != nil {
					t.Fatal(err)
				}
				if got, err := s.Load(); string(got) != document || err != nil {
					t.Errorf("got %.20q, %v, want %.20q", got, err, document)
				}
			}
		})
	}
}

func TestFile_savedDocument_isPrivateAndQuarantined(t *testing.T) {
	f := File(filepath.Join(t.TempDir(), "memory.json"))
	if err := f.Save([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(string(f)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	aside, err := f.Quarantine()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(aside); string(text) != "x" || err != nil {
		t.Errorf("set aside: %q, %v", text, err)
	}
	if document, err := f.Load(); document != nil || err != nil {
		t.Errorf("left: %q, %v", document, err)
	}
	if err := File(filepath.Join(t.TempDir(), "no", "such", "place")).Save(nil); err == nil {
		t.Error("saved to nowhere")
	}
}

func TestNode_largeDocument_isRefused(t *testing.T) {
	n := Node{Store: new(mem.Store), Key: "tailxds-memory"}
	noise := make([]byte, maxSecretBytes+1)
	_, _ = rand.Read(noise)
	if err := n.Save(noise); err == nil || !strings.Contains(err.Error(), "give --state-dir a volume") {
		t.Errorf("saved %d bytes: %v", len(noise), err)
	}
	if err := n.Save(bytes.Repeat([]byte("endpoint "), maxSecretBytes)); err != nil {
		t.Errorf("what packs well: %v", err)
	}
	if err := n.Store.WriteState(n.Key, []byte("no gzip")); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Load(); err == nil || !strings.Contains(err.Error(), "unpack") {
		t.Errorf("loaded junk: %v", err)
	}
}

// slow is a store that saves when the test lets it.
type slow struct {
	Store
	let chan error

	mu    sync.Mutex
	saved []string
}

func (s *slow) Save(document []byte) error {
	err := <-s.let
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = append(s.saved, string(document))
	return err
}

func (s *slow) String() string { return "slow" }

func text(s string) Document { return func() ([]byte, error) { return []byte(s), nil } }

func TestWriter_slowStore_savesTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &slow{let: make(chan error, 10)}
		w := NewWriter(s, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		w.Save(text("1"))
		synctest.Wait() // 1 is under way
		for _, document := range []string{"2", "3", "4"} {
			w.Save(text(document))
		}
		s.let <- errors.New("disk full")
		s.let <- errors.New("disk full")
		time.Sleep(minWriteInterval)
		synctest.Wait()
		if strings.Contains(log.String(), "saved again") {
			t.Errorf("it fails still, and the log says:\n%s", log.String())
		}
		w.Save(text("5"))
		s.let <- nil
		time.Sleep(minWriteInterval)
		synctest.Wait()
		cancel()
		s.let <- nil
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := strings.Join(s.saved, " "); got != "1 4 5" {
			t.Errorf("saved %s", got)
		}
		if out := log.String(); strings.Count(out, "disk full") != 1 || strings.Count(out, "saved again") != 1 {
			t.Errorf("the log:\n%s", out)
		}
	})
}

// Whoever waits for a document is told of it, or of a newer one.
func TestWriter_waiters_areToldOnceSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{let: make(chan error)}
		w := NewWriter(s, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = w.Run(ctx) }()
		told := make(chan error, 4)
		w.Save(text("1"), told)
		synctest.Wait() // 1 is under way
		w.Save(text("2"), told)
		w.Save(text("3"))
		w.Save(text("4"), told)
		full := errors.New("disk full")
		for _, c := range []struct {
			says error
			told int
		}{{full, 1}, {nil, 2}} {
			time.Sleep(minWriteInterval)
			synctest.Wait()
			if len(told) > 0 {
				t.Fatal("told before it was saved")
			}
			s.let <- c.says
			synctest.Wait()
			if len(told) != c.told {
				t.Errorf("told %d times, want %d", len(told), c.told)
			}
			for range c.told {
				if err := <-told; !errors.Is(err, c.says) {
					t.Errorf("told %v", err)
				}
			}
		}
		cancel()
	})
}

// What changes all the time is written four times a second, the last of it too,
// and nothing else is even encoded.
func TestWriter_manyChanges_areWrittenFourTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := File(filepath.Join(t.TempDir(), "memory.json"))
		w := NewWriter(f, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		encoded := 0
		for i := range 2000 { // two seconds
			w.Save(func() ([]byte, error) {
				encoded++
				return fmt.Append(nil, i), nil
			})
			synctest.Wait()
			if i == 0 && encoded != 1 {
				t.Error("the first waited")
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(minWriteInterval)
		if got, _ := f.Load(); string(got) != "1999" || encoded != 9 {
			t.Errorf("encoded %d documents, want 9; the last saved is %s", encoded, got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWriter_documentFails_tellsWaiters(t *testing.T) {
	f := File(filepath.Join(t.TempDir(), "memory.json"))
	w := NewWriter(f, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	broken, told := errors.New("no text for that"), make(chan error, 1)
	w.Save(func() ([]byte, error) { return nil, broken }, told)
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-told; !errors.Is(err, broken) {
		t.Errorf("told %v", err)
	}
	if document, err := f.Load(); document != nil || err != nil {
		t.Errorf("saved %q, %v", document, err)
	}
}

func TestWriter_ends_savesWhatIsLeft(t *testing.T) {
	f := File(filepath.Join(t.TempDir(), "memory.json"))
	w := NewWriter(f, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.Save(text("last word"))
	if err := w.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got, _ := f.Load(); string(got) != "last word" {
		t.Errorf("got %q", got)
	}
}

// Without news a document is tried again soon, and ever later, until it is saved.
func TestWriter_failedSave_isRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var full atomic.Bool
		full.Store(true)
		var mu sync.Mutex
		var tries []time.Duration
		s := storeFunc(func(document []byte) error {
			mu.Lock()
			tries = append(tries, time.Since(began).Round(time.Second))
			mu.Unlock()
			if full.Load() {
				return errors.New("disk full")
			}
			if string(document) != "it" {
				t.Errorf("saved %q", document)
			}
			return nil
		})
		w := NewWriter(s, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		w.Save(text("it"))
		time.Sleep(100 * time.Second)
		if f := w.Failure(); f.Err == nil || f.Err.Error() != "disk full" || !f.Since.Equal(began) {
			t.Errorf("it fails, and says %+v", f)
		}
		full.Store(false)
		time.Sleep(maxRetry)
		mu.Lock()
		if got := fmt.Sprint(tries); got != "[0s 1s 3s 7s 15s 31s 1m1s 1m31s 2m1s]" {
			t.Errorf("tried after %s", got)
		}
		mu.Unlock()
		if f := w.Failure(); f != (Failure{}) {
			t.Errorf("it is saved, and says %+v", f)
		}
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		if len(tries) != 9 {
			t.Errorf("it is saved, and tried again: %v", tries)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// storeFunc is a store that saves by a function.
type storeFunc func([]byte) error

func (f storeFunc) Save(document []byte) error { return f(document) }
func (storeFunc) Load() ([]byte, error)        { return nil, nil }
func (storeFunc) Quarantine() (string, error)  { return "", nil }
func (storeFunc) String() string               { return "func" }
