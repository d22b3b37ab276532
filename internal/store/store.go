// Package store keeps one document over restarts: what the control plane must
// remember so that no restart costs an endpoint. It lies in a file, or where
// the node's key lies if that outlives the file: a Kubernetes Secret.
package store

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/google/renameio/v2"
	"tailscale.com/ipn"
)

// Store keeps one document. A document is replaced whole or not at all.
type Store interface {
	// Load returns the document; nil without an error if there is none.
	Load() ([]byte, error)
	// Save replaces the document.
	Save(document []byte) error
	// SetAside keeps a document that makes no sense out of the way, and says
	// where it is; empty if it is left to be replaced.
	SetAside() (string, error)
	// String names the place, for people.
	String() string
}

// File keeps the document in a file that only its owner can read.
type File string

// Load implements [Store].
func (f File) Load() ([]byte, error) {
	document, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return document, err // says "open PATH: …" already
}

// Save implements [Store].
func (f File) Save(document []byte) error {
	if err := renameio.WriteFile(string(f), document, 0o600, renameio.WithStaticPermissions(0o600)); err != nil {
		return fmt.Errorf("write %s: %w", f, err)
	}
	return nil
}

// SetAside implements [Store].
func (f File) SetAside() (string, error) {
	aside := string(f) + ".corrupt"
	return aside, os.Rename(string(f), aside)
}

// String implements [Store].
func (f File) String() string { return string(f) }

// limit is how much of a document Kubernetes takes: a Secret holds 1 MiB, and
// the node's key is there, too.
// https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size
const limit = 900 << 10

// Node keeps the document beside the node's key, compressed.
type Node struct {
	Store ipn.StateStore
	Key   ipn.StateKey
}

// Load implements [Store].
func (n Node) Load() ([]byte, error) {
	packed, err := n.Store.ReadState(n.Key)
	if errors.Is(err, ipn.ErrStateNotExist) || (err == nil && len(packed) == 0) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read %s: %w", n, err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", n, err)
	}
	document, err := io.ReadAll(io.LimitReader(r, 1<<30))
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", n, err)
	}
	return document, nil
}

// Save implements [Store].
func (n Node) Save(document []byte) error {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(document); err != nil {
		return fmt.Errorf("pack %s: %w", n, err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("pack %s: %w", n, err)
	}
	if packed.Len() > limit {
		return fmt.Errorf("write %s: %d bytes are more than a Secret holds; give --state-dir a volume and leave --state-store out", n, packed.Len())
	}
	if err := n.Store.WriteState(n.Key, packed.Bytes()); err != nil {
		return fmt.Errorf("write %s: %w", n, err)
	}
	return nil
}

// SetAside implements [Store]. A Secret has no room for two.
func (Node) SetAside() (string, error) { return "", nil }

// String implements [Store].
func (n Node) String() string { return fmt.Sprintf("%s in the node's state store", n.Key) }

// apart is the least time from one document to the next: what changes many times
// a second must cost neither disk nor processor as often.
const apart = 250 * time.Millisecond

// Writer saves documents one after the other, the newest first: a slow disk or
// API delays nobody, and costs only documents that were outdated. It encodes them,
// too, so that those cost nothing.
type Writer struct {
	store Store
	log   *slog.Logger
	next  chan pending
}

// Document is the text to save, once it is asked for.
type Document func() ([]byte, error)

// pending is a document that is to be saved, and who waits for that.
type pending struct {
	document Document
	saved    []chan<- error
}

// NewWriter returns a writer to a store. It writes while Run runs.
func NewWriter(s Store, log *slog.Logger) *Writer {
	return &Writer{store: s, log: log, next: make(chan pending, 1)}
}

// Save hands over a document, which is asked for its text later and elsewhere; it
// never blocks. Only one goroutine may call it. Each channel of saved, which must
// have room, is told once this document or a newer one is saved, or why it could
// not be.
func (w *Writer) Save(document Document, saved ...chan<- error) {
	next := pending{document, saved}
	select {
	case outdated := <-w.next:
		next.saved = append(outdated.saved, saved...)
	default:
	}
	w.next <- next
}

// Run saves what it is given until ctx ends, and then what is left. A document
// that can't be saved is a warning, and tried again with the next.
func (w *Writer) Run(ctx context.Context) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	failing := false
	for ctx.Err() == nil {
		select {
		case next := <-w.next:
			failing = w.save(next, failing)
		case <-ctx.Done():
		}
		pause.Reset(apart)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
	select {
	case next := <-w.next:
		w.save(next, failing)
	default:
	}
	return nil
}

// save tells of a failure once, and when it is over.
func (w *Writer) save(next pending, failing bool) bool {
	document, err := next.document()
	if err == nil {
		err = w.store.Save(document)
	}
	for _, c := range next.saved {
		c <- err
	}
	switch {
	case err != nil && !failing:
		w.log.Warn("what was published can't be kept; a restart would know less of what served", "store", w.store.String(), "error", err)
	case err == nil && failing:
		w.log.Info("what was published is kept again", "store", w.store.String())
	}
	return err != nil
}
