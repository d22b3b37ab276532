package main

import (
	"fmt"
	"log"
	"net/http"
	"sync/atomic"
	"time"
)

// longestWait is well within the server's time to write an answer.
const longestWait = 8 * time.Second

// newHandler serves what the balancer and people see. Only /healthz tells
// health: the front page goes on answering, so that whoever still gets there
// is served.
func newHandler(host, region string, logger *log.Logger) http.Handler {
	if region == "" {
		region = "unknown"
	}
	var unhealthy atomic.Bool
	set := func(to bool, word string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			unhealthy.Store(to)
			logger.Print("Set to " + word)
			fmt.Fprintf(w, "[%s] Set to %s\n", host, word)
		}
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if err := wait(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "Hello from %s! in %s\n", host, region)
	})
	mux.HandleFunc("GET /unhealthy", set(true, "unhealthy"))
	mux.HandleFunc("GET /healthy", set(false, "healthy"))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if unhealthy.Load() {
			http.Error(w, "unhealthy", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "healthy")
	})
	return mux
}

// wait is for those who want to see what becomes of a slow request: ?wait=3s.
func wait(r *http.Request) error {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > longestWait {
		return fmt.Errorf("wait=%s must be a duration from 0s to %v, such as 3s", text, longestWait)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
	return nil
}
