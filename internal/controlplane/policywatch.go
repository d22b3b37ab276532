package controlplane

import (
	"bytes"
	"context"
	"os"
	"time"

	"github.com/tailxds/tailxds/internal/policyfile"
)

const (
	// pollInterval is how often the policy file is looked at: an edit acts within a
	// second, with time for Envoys to take it.
	pollInterval = 250 * time.Millisecond
	// rereadInterval is how soon the file is read whatever its information says: file
	// systems may store times to the second or two, and an edit may keep the size.
	rereadInterval = 2 * time.Second
)

// policyWatcher finds out when the text of the policy file changes. Looking
// costs one stat, every two seconds a read, and nothing is parsed but what
// changed.
type policyWatcher struct {
	path string
	info os.FileInfo // of what was read last; nil if there was no file
	at   time.Time   // when that was; zero if it never was
	text []byte
	err  string
}

// look reads the file if it may have changed, and reports whether the text, or the
// error, is another than before. Symbolic links are followed, so that a file that
// Kubernetes swaps is another one.
func (w *policyWatcher) look(now time.Time) (text []byte, changed bool, err error) {
	info, err := os.Stat(w.path)
	if err != nil {
		info = nil // reading it fails likewise, or it was just replaced
	}
	if !w.at.IsZero() && now.Sub(w.at) < rereadInterval && sameInfo(w.info, info) {
		return nil, false, nil
	}
	text, err = policyfile.ReadText(w.path)
	first := w.at.IsZero()
	w.info, w.at = info, now
	var reason string
	if err != nil {
		reason = err.Error()
	}
	if !first && reason == w.err && bytes.Equal(text, w.text) {
		return nil, false, nil
	}
	w.text, w.err = text, reason
	return text, true, err
}

// sameInfo reports whether two looks found the same file.
func sameInfo(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// edit is what became of the policy file: a policy, or why it is bad.
type edit struct {
	policy policyFile
	err    error
}

// watchPolicy hands each edit of the policy file to the loop until ctx ends. It
// parses beside the loop: that takes long for a large file.
func (c *ControlPlane) watchPolicy(ctx context.Context) error {
	if c.config.PolicyFile == "" {
		return nil
	}
	w := policyWatcher{path: c.config.PolicyFile}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if text, changed, err := w.look(time.Now()); changed {
			e := edit{err: err}
			if err == nil {
				e.policy, e.err = parsePolicy(c.config.PolicyFile, string(text))
			}
			select {
			case c.policyEdits <- e:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
