package dashboard

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
)

// maxMinutes bounds for how long a device can be drained: a year.
const maxMinutes = 366 * 24 * 60

// handleAction is what an operator asks for. The door has let the viewer in; here it is
// asked anew whether they may act, for each request.
func (d *Dashboard) handleAction(do func(ctx context.Context, by string, a Action) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := viewerOf(r.Context())
		if v.Role != RoleOperate {
			http.Error(w, errNotOperator, http.StatusForbidden)
			return
		}
		// Another site's form could send a body, but none of this type.
		if r.Header.Get("Content-Type") != "application/json" {
			http.Error(w, "only application/json is read", http.StatusUnsupportedMediaType)
			return
		}
		var ask Action
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&ask); err != nil {
			http.Error(w, "read what is asked for: "+err.Error(), http.StatusBadRequest)
			return
		}
		if ask.Minutes < 0 || ask.Minutes > maxMinutes {
			http.Error(w, "minutes: from 1 to "+strconv.Itoa(maxMinutes)+", or 0 for until it is restored", http.StatusBadRequest)
			return
		}
		if err := do(r.Context(), v.Name, ask); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// handlePreview says what the shares would be after an act.
func (d *Dashboard) handlePreview(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(d.source.Preview(Action{
		Kind: ActionKind(q.Get("act")), Service: q.Get("service"), Device: q.Get("device"),
	})) // the client went away: nobody to tell
}
