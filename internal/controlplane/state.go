package controlplane

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/store"
	"github.com/tailxds/tailxds/internal/topology"
)

// stateVersion changes when an older document can no longer be read.
const stateVersion = 1

// stateKey is the document's name in the node's state store.
const stateKey = "tailxds-memory"

// savedState is the document that outlives the process: what was published,
// what it was made of, and by which policy.
type savedState struct {
	Version int           `json:"version"`
	Memory  *guard.Memory `json:"memory"`
	// Devices are those of the last list that are endpoints.
	Devices *[]topology.Device `json:"devices"`
	// Words are the drains and restorations.
	Words []drain.Record `json:"words,omitempty"`
	// Policy is the text of the last good policy file.
	Policy string `json:"policy,omitempty"`
}

// document is the text of it. Nothing in it is changed any more, so that it can be
// written down at any time.
func (r savedState) document() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write down what was published: %w", err)
	}
	return text, nil
}

// loadState reads what was remembered. What cannot be read or understood is set
// aside: it must never stop a start. Lost says what an operator must know then.
func loadState(s store.Store, log *slog.Logger) (kept savedState, lost string) {
	nothing := savedState{Version: stateVersion, Memory: &guard.Memory{}, Devices: &[]topology.Device{}}
	document, err := s.Load()
	if err == nil && document == nil {
		return nothing, ""
	}
	if err == nil {
		kept, err = decodeState(document)
	}
	if err == nil {
		return kept, ""
	}
	aside, asideErr := s.Quarantine()
	log.Error("the saved state cannot be read; starting without it, so drains from before are lost", "store", s.String(), "error", err, "aside", aside, "aside_error", asideErr)
	lost = "the saved state cannot be read, so drains and held endpoints from before the start are lost"
	if aside != "" && asideErr == nil {
		lost += "; it is kept as " + aside
	}
	return nothing, lost + ": drain again what must not serve, then run `tailxds accept`"
}

// decodeState passes over what only a later version of this program knows:
// who rolls back loses no more than that.
func decodeState(document []byte) (savedState, error) {
	var kept savedState
	d := json.NewDecoder(bytes.NewReader(document))
	if err := d.Decode(&kept); err != nil {
		return kept, fmt.Errorf("decode: %w", err)
	}
	switch {
	case kept.Version != stateVersion:
		return kept, fmt.Errorf("it is of version %d, and this program reads %d", kept.Version, stateVersion)
	case d.More():
		return kept, errors.New("something follows the document")
	case kept.Memory == nil || kept.Devices == nil:
		return kept, errors.New("it is cut short: memory or devices are missing")
	}
	if err := kept.Memory.Check(); err != nil {
		return kept, fmt.Errorf("check: %w", err)
	}
	for _, d := range *kept.Devices {
		if d.ID == "" {
			return kept, errors.New("a device has no ID")
		}
	}
	for _, w := range kept.Words {
		if err := w.Check(); err != nil {
			return kept, fmt.Errorf("check: %w", err)
		}
	}
	return kept, nil
}

// What is kept is no older than this where only times changed: a busy tailnet
// must wear out neither a disk nor an API server. While the clock of a loss runs
// it is kept sooner, so that a restart costs the clock little.
const (
	saveWithin     = time.Minute
	saveLossWithin = 10 * time.Second
)

// stateWriter saves the state when it changed.
type stateWriter struct {
	writer *store.Writer
	last   savedState
	at     time.Time
}

// savedState returns the state to save now.
func (c *ControlPlane) savedState(devices []topology.Device) savedState {
	m := c.memory
	next := savedState{Version: stateVersion, Memory: &m, Devices: new(mentionedDevices(m, devices)), Words: c.drains.Records()}
	if c.good != nil {
		next.Policy = c.good.text
	}
	return next
}

// save saves the state, if that is due. The channel gets
// nil once it is saved, or the error. Only the loop calls it.
func (k *stateWriter) save(next savedState, now time.Time) <-chan error {
	kept := make(chan error, 1)
	within := saveWithin
	if next.Memory.LossPending() {
		within = saveLossWithin
	}
	if now.Sub(k.at) < within && k.last.Memory != nil && equalExceptTimes(k.last, next) {
		kept <- nil
		return kept
	}
	k.writer.Save(next.document, kept)
	k.last, k.at = next, now
	return kept
}

// mentionedDevices returns the devices that a memory mentions.
func mentionedDevices(m guard.Memory, devices []topology.Device) []topology.Device {
	named := make(map[string]bool)
	for _, s := range m.Services {
		for _, endpoints := range [][]topology.Endpoint{s.Published, s.LastDescribed, s.RecentlyRemoved} {
			for _, e := range endpoints {
				named[e.Device] = true
			}
		}
	}
	kept := []topology.Device{}
	for _, d := range devices {
		if named[d.ID] {
			kept = append(kept, d)
		}
	}
	return kept
}

func equalExceptTimes(a, b savedState) bool {
	return a.Policy == b.Policy && a.Memory.EqualExceptTimes(*b.Memory) && provider.Same(*a.Devices, *b.Devices) &&
		drain.NewSet(a.Words).Equal(drain.NewSet(b.Words))
}
