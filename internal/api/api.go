// Package api is the HTTP for people and machines: health, readiness,
// status and metrics. It has no authentication, so it listens on loopback
// by default, and what changes anything is for loopback only.
package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Sources are what the pages show. All of them are required.
type Sources struct {
	// Ready reports whether resources are served, and in a sentence how good
	// they are.
	Ready func() (ready bool, detail string)
	// Status is the document of /status.
	Status func() any
	// Traffic is the document of /traffic.
	Traffic func() any
	// History is the document of /history, of one service.
	History func(service string) (any, error)
	// Explain is the document of /explain: why each endpoint of a service or a
	// device is what it is, as the Envoys of another device see it, or as all do.
	// Both may be empty.
	Explain func(of, from string) (any, error)
	// Doctor is the document of /doctor.
	Doctor func(ctx context.Context) any
	// Diff answers POST /diff: see [DiffHandler].
	Diff http.Handler
	// Accept lets through what is held of a service, or of all if it is empty.
	Accept func(ctx context.Context, service string) error
	// Drain gives a device no new requests, for a time or without an end if that
	// is 0; Restore takes that back. Device is a name, ID or address, and user
	// what the command says of who runs it. The answer is for people.
	Drain   func(ctx context.Context, device string, long time.Duration, user string) (string, error)
	Restore func(ctx context.Context, device, user string) (string, error)
	// Page serves the live page, from / down.
	Page http.Handler
	// Metrics serves /metrics.
	Metrics http.Handler
	// Hosts are names under which the pages answer, besides localhost and IP
	// addresses. It may be nil.
	Hosts []string
}

// Handler routes the pages:
//
//	GET  /healthz  200 while the process lives
//	GET  /readyz   200 once resources are served, else 503; says how old they are
//	GET  /status   everything known, as JSON
//	GET  /doctor   what `tailxds doctor` judges by, as JSON
//	GET  /traffic  who sends what to whom, and what was to be expected, as JSON
//	GET  /history  the last 15 minutes of the traffic of ?service=, as JSON
//	GET  /explain  why ?of= (a service or a device) is what it is, seen ?from= a device
//	GET  /metrics  Prometheus
//	GET  /         the live page, which asks for itself who may operate
//
// and for loopback only:
//
//	POST /diff     what would change with another policy or other devices, as JSON
//	POST /accept   let through what is held, of ?service= or all
//	POST /drain    give ?device= no new requests, ?for= a time
//	POST /restore  take that back
func Handler(s Sources) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ready, detail := s.Ready()
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprintln(w, detail)
	})
	mux.HandleFunc("GET /status", document(func(context.Context) any { return s.Status() }))
	mux.HandleFunc("GET /traffic", document(func(context.Context) any { return s.Traffic() }))
	mux.HandleFunc("GET /history", answer(func(q url.Values) (any, error) { return s.History(q.Get("service")) }))
	mux.HandleFunc("GET /explain", answer(func(q url.Values) (any, error) { return s.Explain(q.Get("of"), q.Get("from")) }))
	mux.HandleFunc("GET /doctor", document(s.Doctor))
	mux.HandleFunc("POST /diff", func(w http.ResponseWriter, r *http.Request) {
		if !fromLoopback(r) {
			http.Error(w, "only from this machine, or by the live page's port for devices that may operate: run `tailxds diff` beside the control plane", http.StatusForbidden)
			return
		}
		s.Diff.ServeHTTP(w, r)
	})
	mux.Handle("GET /metrics", s.Metrics)
	for _, path := range []string{"GET /{$}", "GET /a/", "GET /live", "GET /preview", "POST /act/"} {
		mux.Handle(path, s.Page)
	}
	operate := func(command string, do func(ctx context.Context, ask url.Values) (string, error)) {
		mux.HandleFunc("POST /"+command, func(w http.ResponseWriter, r *http.Request) {
			if !fromLoopback(r) {
				http.Error(w, "only from this machine: run `tailxds "+command+"` beside the control plane", http.StatusForbidden)
				return
			}
			text, err := do(r.Context(), r.URL.Query())
			if err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
				return
			}
			_, _ = fmt.Fprintln(w, text)
		})
	}
	operate("accept", func(ctx context.Context, ask url.Values) (string, error) {
		return "accepted: the held device list is applied", s.Accept(ctx, ask.Get("service"))
	})
	operate("drain", func(ctx context.Context, ask url.Values) (string, error) {
		var long time.Duration
		if text := ask.Get("for"); text != "" {
			var err error
			if long, err = time.ParseDuration(text); err != nil || long <= 0 {
				return "", fmt.Errorf("for is %q: it must be a duration, such as 30m", text)
			}
		}
		device, err := deviceOf(ask, "drain")
		if err != nil {
			return "", err
		}
		return s.Drain(ctx, device, long, ask.Get("user"))
	})
	operate("restore", func(ctx context.Context, ask url.Values) (string, error) {
		device, err := deviceOf(ask, "restore")
		if err != nil {
			return "", err
		}
		return s.Restore(ctx, device, ask.Get("user"))
	})
	// A page open in somebody's browser must not be able to post here.
	return knownHost(s.Hosts, http.NewCrossOriginProtection().Handler(mux))
}

// deviceOf returns the device that a command names. An empty name is an error,
// and never a device that has no name.
func deviceOf(ask url.Values, command string) (string, error) {
	device := ask.Get("device")
	if strings.TrimSpace(device) == "" {
		return "", fmt.Errorf("%s needs a device: tailxds %s DEVICE", command, command)
	}
	return device, nil
}

// document prints what of returns as JSON.
func document(of func(context.Context) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(of(r.Context())) // the client went away
	}
}

// answer is [document] for what may not be there.
func answer(of func(url.Values) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		what, err := of(r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		document(func(context.Context) any { return what })(w, r)
	}
}

// knownHost answers only for hosts that no other site can claim: a page of
// another site could point its own name at this address, and read what is said
// here (DNS rebinding). A literal address is no name.
func knownHost(names []string, next http.Handler) http.Handler {
	known := map[string]bool{"localhost": true}
	for _, name := range names {
		known[hostName(name)] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostName(r.Host)
		if _, err := netip.ParseAddr(host); err != nil && !known[host] {
			http.Error(w, "these pages do not answer under this name: ask by an IP address or localhost, or give the name with --admin-host", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostName is a host without port, brackets and a last dot, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

func fromLoopback(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback()
}
