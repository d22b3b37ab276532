package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// maxProposal bounds the body of /diff, in bytes: a policy file of the largest
	// size that is read, or some 5,000 devices.
	maxProposal = 1 << 20
	// diffWait is how long a request for /diff waits for the one before it.
	diffWait = 5 * time.Second
)

// DiffHandler serves what would change with what a request's body says. It compares one
// at a time, since each costs as much as a publication: a caller that asks meanwhile
// waits for at most 5 s, unread, and gets 503 then. What it reads is bounded. It
// does not decide who may ask.
func DiffHandler(compare func(ctx context.Context, body io.Reader) (any, error)) http.Handler {
	free := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		patience := time.NewTimer(diffWait)
		defer patience.Stop()
		select {
		case free <- struct{}{}:
			defer func() { <-free }()
		case <-patience.C:
			http.Error(w, "another diff is running: run it again", http.StatusServiceUnavailable)
			return
		case <-r.Context().Done():
			return
		}
		what, err := compare(r.Context(), http.MaxBytesReader(w, r.Body, maxProposal))
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			http.Error(w, fmt.Sprintf("the files to compare are larger than %d bytes together", large.Limit), http.StatusRequestEntityTooLarge)
		case err != nil:
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		default:
			document(func(context.Context) any { return what })(w, r)
		}
	})
}
