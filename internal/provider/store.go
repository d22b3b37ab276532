package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/google/renameio/v2"

	"github.com/tailxds/tailxds/internal/topology"
)

// store keeps the last good list on disk, for a start while the source is
// away. The file's modification time is when the list was last confirmed.
type store struct {
	path     string // empty: nothing is kept
	provider string
	log      *slog.Logger
}

// storeVersion changes when an older file can no longer be read.
const storeVersion = 1

type stored struct {
	Version  int               `json:"version"`
	Provider string            `json:"provider"`
	Devices  []topology.Device `json:"devices"`
}

// load reads the list that was kept; nil if there is none. A file that cannot
// be understood is set aside, with a warning: it must never stop a start.
func (s store) load() (list *stored, confirmed time.Time) {
	if s.path == "" {
		return nil, time.Time{}
	}
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}
	}
	if err != nil {
		s.log.Warn("the last good device list can't be read; starting without it", "file", s.path, "error", err)
		return nil, time.Time{}
	}
	list, err = decodeStored(text)
	if err != nil {
		s.setAside(err)
		return nil, time.Time{}
	}
	if info, err := os.Stat(s.path); err == nil {
		confirmed = info.ModTime()
	}
	return list, confirmed
}

func decodeStored(text []byte) (*stored, error) {
	var list stored
	if err := decodeWhole(bytes.NewReader(text), &list); err != nil {
		return nil, err
	}
	if list.Version != storeVersion {
		return nil, fmt.Errorf("it is of version %d, and this program reads %d", list.Version, storeVersion)
	}
	return &list, nil
}

func (s store) setAside(why error) {
	aside := s.path + ".corrupt"
	if err := os.Rename(s.path, aside); err != nil {
		s.log.Warn("the last good device list is corrupt; starting without it", "file", s.path, "error", why, "rename", err)
		return
	}
	s.log.Warn("the last good device list is corrupt; it is set aside, starting without it", "file", s.path, "aside", aside, "error", why)
}

// save replaces the list, whole or not at all.
func (s store) save(devices []topology.Device) {
	if s.path == "" {
		return
	}
	text, err := json.Marshal(stored{storeVersion, s.provider, devices})
	if err == nil {
		err = renameio.WriteFile(s.path, text, 0o600, renameio.WithStaticPermissions(0o600))
	}
	if err != nil {
		s.log.Warn("the last good device list can't be kept on disk; a restart while the source is away would find nothing",
			"file", s.path, "error", err)
	}
}

// confirm notes that the list on disk is still the last good one. A failure
// makes the list look older than it is, no more.
func (s store) confirm(now time.Time) {
	if s.path != "" {
		_ = os.Chtimes(s.path, now, now)
	}
}
