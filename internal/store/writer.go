package store

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// minWriteInterval is the least time from one document to the next: what changes many times
	// a second must cost neither disk nor processor as often.
	minWriteInterval = 250 * time.Millisecond
	// A document that can't be saved is tried again after minRetry, and ever later up
	// to maxRetry.
	minRetry = time.Second
	maxRetry = 30 * time.Second
)

// Writer saves documents one after the other, the newest first: a slow disk or
// API delays nobody, and costs only documents that were outdated. It encodes them,
// too, so that those cost nothing.
type Writer struct {
	store Store
	log   *slog.Logger
	next  chan writeRequest

	mu     sync.Mutex
	failed Failure
}

// Failure is why the last document could not be saved, and since when none could.
// The zero value is none.
type Failure struct {
	Err   error
	Since time.Time
}

// Document is the text to save, once it is asked for.
type Document func() ([]byte, error)

// writeRequest is a document that is to be saved, and who waits for that.
type writeRequest struct {
	document Document
	saved    []chan<- error
}

// NewWriter returns a writer to a store. It writes while Run runs.
func NewWriter(s Store, log *slog.Logger) *Writer {
	return &Writer{store: s, log: log, next: make(chan writeRequest, 1)}
}

// Failure tells whether documents can't be saved now.
func (w *Writer) Failure() Failure {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// Save hands over a document, which is asked for its text later and elsewhere; it
// never blocks. Only one goroutine may call it. Each channel of saved, which must
// have room, is told once this document or a newer one is saved, or why it could
// not be at the first try.
func (w *Writer) Save(document Document, saved ...chan<- error) {
	next := writeRequest{document, saved}
	select {
	case outdated := <-w.next:
		next.saved = append(outdated.saved, saved...)
	default:
	}
	w.next <- next
}

// Run saves what it is given until ctx ends, and then what is left. A document
// that can't be saved is a warning, and tried again until it or a newer one is.
func (w *Writer) Run(ctx context.Context) error {
	pause, retry := time.NewTimer(0), time.NewTimer(0)
	defer pause.Stop()
	defer retry.Stop()
	retry.Stop()
	var unsaved Document // the last one, if it could not be saved
	wait := minRetry
	save := func(p writeRequest) {
		if w.save(p) {
			unsaved, wait = nil, minRetry
			retry.Stop()
			return
		}
		unsaved = p.document
		retry.Reset(wait)
		wait = min(2*wait, maxRetry)
	}
	for ctx.Err() == nil {
		select {
		case next := <-w.next:
			save(next)
		case <-retry.C:
			save(writeRequest{document: unsaved})
		case <-ctx.Done():
		}
		pause.Reset(minWriteInterval)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
	select {
	case next := <-w.next:
		save(next)
	default:
		if unsaved != nil {
			save(writeRequest{document: unsaved})
		}
	}
	return nil
}

// save tells whether a document is saved. It logs a failure once, and when it is
// over.
func (w *Writer) save(next writeRequest) bool {
	document, err := next.document()
	if err == nil {
		err = w.store.Save(document)
	}
	for _, c := range next.saved {
		c <- err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch was := w.failed; {
	case err != nil && was.Err == nil:
		w.failed = Failure{err, time.Now()}
		w.log.Warn("cannot save state; a restart would lose recent changes", "store", w.store.String(), "error", err)
	case err != nil:
		w.failed.Err = err
	case was.Err != nil:
		w.failed = Failure{}
		w.log.Info("state is saved again", "store", w.store.String())
	}
	return err == nil
}
