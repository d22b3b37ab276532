package main

import (
	"fmt"
	"log"
	"net/http"
	"sync/atomic"
)

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
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
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
