package shutdown_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tailxds/tailxds/internal/shutdown"
)

// recorder answers with a status and notes what it was asked.
type recorder struct {
	mu     sync.Mutex
	status int
	asked  []string
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, req.Method+" "+req.URL.Path)
	w.WriteHeader(r.status)
}

func (r *recorder) seen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

func TestRun_envoyAndServer_areToldBeforeTheWait(t *testing.T) {
	asked := &recorder{status: http.StatusOK}
	srv := httptest.NewServer(asked)
	defer srv.Close()

	const wait = 50 * time.Millisecond
	start := time.Now()
	err := shutdown.Run(t.Context(), shutdown.Options{EnvoyAdmin: srv.URL + "/", UnhealthyURL: srv.URL + "/unhealthy", Wait: wait})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < wait {
		t.Errorf("it ended after %v, before the wait of %v", took, wait)
	}
	if want := []string{"POST /healthcheck/fail", "GET /unhealthy"}; !slices.Equal(asked.seen(), want) {
		t.Errorf("asked %q, want %q", asked.seen(), want)
	}
}

func TestRun_nothingListens_waitsAllTheSame(t *testing.T) {
	asked := &recorder{status: http.StatusInternalServerError}
	srv := httptest.NewServer(asked)
	defer srv.Close()
	gone := httptest.NewServer(asked)
	gone.Close()

	const wait = 50 * time.Millisecond
	start := time.Now()
	err := shutdown.Run(t.Context(), shutdown.Options{EnvoyAdmin: gone.URL, UnhealthyURL: srv.URL + "/unhealthy", Wait: wait})
	if err == nil || !strings.Contains(err.Error(), "500") || !strings.Contains(err.Error(), "/healthcheck/fail") {
		t.Errorf("the error must name both faults: %v", err)
	}
	if took := time.Since(start); took < wait {
		t.Errorf("it ended after %v, before the wait of %v", took, wait)
	}
}

func TestRun_contextEnds_endsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := shutdown.Run(ctx, shutdown.Options{Wait: time.Hour})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v, want one that says it was cut short", err)
	}
}

func TestUndo_oneIsAway_tellsTheOther(t *testing.T) {
	asked := &recorder{status: http.StatusOK}
	srv := httptest.NewServer(asked)
	defer srv.Close()
	if err := shutdown.Undo(t.Context(), shutdown.Options{EnvoyAdmin: srv.URL + "/", HealthyURL: srv.URL + "/healthy"}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"POST /healthcheck/ok", "GET /healthy"}; !slices.Equal(asked.seen(), want) {
		t.Errorf("asked %q, want %q", asked.seen(), want)
	}

	// Who is not there yet has nothing to undo; who answers with a fault may have.
	gone := httptest.NewServer(asked)
	gone.Close()
	if err := shutdown.Undo(t.Context(), shutdown.Options{EnvoyAdmin: gone.URL, HealthyURL: gone.URL}); err != nil {
		t.Errorf("nobody is there: %v", err)
	}
	asked.status = http.StatusInternalServerError
	err := shutdown.Undo(t.Context(), shutdown.Options{EnvoyAdmin: gone.URL, HealthyURL: srv.URL + "/healthy"})
	if err == nil || !strings.Contains(err.Error(), "/healthy answered 500") {
		t.Errorf("a fault is said as %v", err)
	}
	if err := shutdown.Undo(t.Context(), shutdown.Options{}); err != nil {
		t.Errorf("nobody is to be told: %v", err)
	}
}
