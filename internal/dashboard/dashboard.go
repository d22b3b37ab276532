// Package dashboard serves the live page. Its files are plain HTML, CSS and
// JavaScript modules: the browser runs what is in web/, so there is nothing to
// build. What it shows, who may see it and who may act arrive as functions.
package dashboard

import (
	"context"
	"net/http"
	"time"
)

// Source is what the page shows and what can be done on it. All fields are required.
type Source struct {
	// Views returns the current view of each of some services, once a second while
	// pages are open on them. For an unknown name it returns another service's; names
	// of the same service share one view, which is encoded once.
	Views func(services []string) []*View
	// Preview returns the expected shares after an action.
	Preview func(Action) Preview
	// Accept accepts what is held of a service.
	Accept func(ctx context.Context, by, service string) error
	// Drain drains a device for a while, or until it is restored if that is 0.
	Drain func(ctx context.Context, by, device string, during time.Duration) error
	// Restore ends the operator's drain of a device.
	Restore func(ctx context.Context, by, device string) error
}

// View is a service at one moment.
type View struct {
	Snapshot Snapshot
	Tick     Tick // by position in the Snapshot
	History  History
}

// Dashboard is the page, kept up to date in all browsers.
type Dashboard struct {
	source Source
	files  assets
	hub    *hub
}

// New prepares the page. Nothing moves on it before [Dashboard.Run].
func New(s Source) *Dashboard {
	files := loadAssets()
	return &Dashboard{source: s, files: files, hub: newHub(s.Views, files.hash)}
}

// Run keeps open pages up to date until ctx ends, and then ends their streams.
func (d *Dashboard) Run(ctx context.Context) error { return d.hub.run(ctx) }

// Changed makes open pages show a change at once rather than within a second.
func (d *Dashboard) Changed() { d.hub.changed() }

// contentSecurityPolicy lets the page load its own files and talk to its own server, and
// nothing else. Trusted Types make any use of innerHTML throw.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Handler serves the page to those whom the door lets in:
//
//	GET  /            the page
//	GET  /a/          its files
//	GET  /live        a stream of events, of ?service=
//	GET  /preview     what an act would do to the shares
//	POST /act/accept  {"service"}
//	POST /act/drain   {"device", "minutes"}; 0 is until restored
//	POST /act/restore {"device"}
func (d *Dashboard) Handler(door Authorizer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", d.files.index())
	mux.Handle("GET /a/{hash}/{file}", d.files)
	mux.Handle("GET /live", d.handleLive(door))
	mux.HandleFunc("GET /preview", d.handlePreview)
	mux.HandleFunc("POST /act/accept", d.handleAction(func(ctx context.Context, by string, a Action) error {
		return d.source.Accept(ctx, by, a.Service)
	}))
	mux.HandleFunc("POST /act/drain", d.handleAction(func(ctx context.Context, by string, a Action) error {
		return d.source.Drain(ctx, by, a.Device, time.Duration(a.Minutes)*time.Minute)
	}))
	mux.HandleFunc("POST /act/restore", d.handleAction(func(ctx context.Context, by string, a Action) error {
		return d.source.Restore(ctx, by, a.Device)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store") // but for the files
		door.Admit(mux).ServeHTTP(w, r)
	})
}
