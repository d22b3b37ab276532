package store

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// minWriteInterval is the least time between two writes: what changes many times a
	// second must cost neither disk nor CPU as often.
	minWriteInterval = 250 * time.Millisecond
	// A document that cannot be saved is retried after minRetry, and then ever later
	// up to maxRetry.
	minRetry = time.Second
	maxRetry = 30 * time.Second
)

// Writer saves documents in the background, always the newest: a slow disk or API
// delays no caller and skips only outdated documents. It also encodes them, so that
// outdated ones cost nothing.
type Writer struct {
	store Store
	log   *slog.Logger
	next  chan writeRequest

	mu     sync.Mutex
	failed Failure
}

// Failure is why the last document could not be saved, and since when saving fails.
// The zero value is none.
type Failure struct {
	Err   error
	Since time.Time
}

// Document encodes a document when it is saved.
type Document func() ([]byte, error)

// writeRequest is a document to save, and the channels that wait for it.
type writeRequest struct {
	document Document
	saved    []chan<- error
}

// NewWriter returns a writer to a store. It writes while [Writer.Run] runs.
func NewWriter(s Store, log *slog.Logger) *Writer {
	return &Writer{store: s, log: log, next: make(chan writeRequest, 1)}
}

// Failure returns why documents cannot be saved now.
func (w *Writer) Failure() Failure {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// Save queues a document and never blocks. Only one goroutine may call it. Each
// channel of saved, which must have room, gets nil once this document or a newer one
// is saved, or the error of the first try.
func (w *Writer) Save(document Document, saved ...chan<- error) {
	next := writeRequest{document, saved}
	select {
	case outdated := <-w.next:
		next.saved = append(outdated.saved, saved...)
	default:
	}
	w.next <- next
}

// Run saves queued documents until ctx ends, and then the last one. A document that
// cannot be saved is logged and retried until it or a newer one is saved.
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

// save reports whether a document was saved. It logs the first failure, and the
// recovery.
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
