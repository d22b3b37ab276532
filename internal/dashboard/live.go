package dashboard

import (
	"net/http"
	"net/netip"
	"time"
)

const (
	// sendTimeout is how long one event may take to a page.
	sendTimeout = 10 * time.Second
	// recheckInterval is how soon a role that is taken away ends the stream.
	recheckInterval = 2 * time.Second
)

// handleLive streams a service to one page until it goes away, the hub ends, or the
// viewer is no longer let in.
func (d *Dashboard) handleLive(door Authorizer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, _ := netip.ParseAddrPort(r.RemoteAddr) // the zero address counts as one
		p := d.hub.join(r.URL.Query().Get("service"), from.Addr().Unmap())
		if p == nil {
			http.Error(w, "too many pages are open: close one", http.StatusServiceUnavailable)
			return
		}
		defer d.hub.leave(p)
		w.Header().Set("Content-Type", "text/event-stream")
		out := stream{w, http.NewResponseController(w)}
		viewer := viewerOf(r.Context())
		if err := out.open(viewer); err != nil {
			return
		}
		recheck := time.NewTicker(recheckInterval)
		defer recheck.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-d.hub.done:
				return
			case <-recheck.C:
				if now, err := door.Identify(r); err != nil || now != viewer {
					return // the page comes again, and is told who it is now
				}
				continue
			case <-p.wake:
			}
			if err := out.send(p.take()...); err != nil {
				return
			}
		}
	})
}

// stream is an answer that does not end.
type stream struct {
	http.ResponseWriter
	control *http.ResponseController
}

// open says how soon to come again (ms), and to whom the page belongs.
func (s stream) open(v Viewer) error {
	// The server's deadlines are for answers that end.
	if err := s.control.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	hello, err := encodeEvent("viewer", v)
	if err != nil {
		return err
	}
	return s.send([]byte("retry: 1000\n\n"), hello)
}

func (s stream) send(events ...[]byte) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	for _, e := range events {
		if _, err := s.Write(e); err != nil {
			return err
		}
	}
	return s.control.Flush()
}
