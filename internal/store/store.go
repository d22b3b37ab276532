// Package store keeps one document over restarts: what the control plane must
// remember so that no restart costs an endpoint. It lies in a file, or where
// the node's key lies if that outlives the file: a Kubernetes Secret.
package store

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/google/renameio/v2"
	"tailscale.com/ipn"
)

// Store keeps one document. A document is replaced whole or not at all.
type Store interface {
	// Load returns the document; nil without an error if there is none.
	Load() ([]byte, error)
	// Save replaces the document.
	Save(document []byte) error
	// Quarantine moves an invalid document out of the way, and returns where it is;
	// empty if the next one replaces it.
	Quarantine() (string, error)
	// String names the place in messages.
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

// Quarantine implements [Store].
func (f File) Quarantine() (string, error) {
	aside := string(f) + ".corrupt"
	return aside, os.Rename(string(f), aside)
}

// String implements [Store].
func (f File) String() string { return string(f) }

// maxSecretBytes is how much of a document fits into Kubernetes: a Secret holds 1
// MiB, and the node's key is in it, too.
// https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size
const maxSecretBytes = 900 << 10

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
	if packed.Len() > maxSecretBytes {
		return fmt.Errorf("write %s: %d bytes are more than a Secret holds; give --state-dir a volume and leave --state-store out", n, packed.Len())
	}
	if err := n.Store.WriteState(n.Key, packed.Bytes()); err != nil {
		return fmt.Errorf("write %s: %w", n, err)
	}
	return nil
}

// Quarantine implements [Store]. A Secret has no room for two.
func (Node) Quarantine() (string, error) { return "", nil }

// String implements [Store].
func (n Node) String() string { return fmt.Sprintf("%s in the node's state store", n.Key) }
