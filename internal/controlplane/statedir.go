package controlplane

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tailxds/tailxds/internal/api"
	"github.com/tailxds/tailxds/internal/store"
)

// lock keeps a second control plane out of a state directory: two with one node
// key would take turns in throwing each other off the tailnet. The kernel gives
// it back however the process ends.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w (give a writable one with --state-dir)", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		_ = f.Close()
		return nil, fmt.Errorf("the state directory %s is in use by another control plane: stop it, or give this one its own with --state-dir", dir)
	}
	// On a file system without locks, a second control plane is not kept out.
	return func() { _ = f.Close() }, nil
}

// stateDir makes the state directory, for its owner only.
func (c Config) stateDir() (string, error) {
	dir := c.StateDir
	if dir == "" {
		base := os.Getenv("XDG_STATE_HOME")
		if base == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("find the state directory: %w (give one with --state-dir)", err)
			}
			base = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(base, "tailxds")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the state directory: %w (give a writable one with --state-dir)", err)
	}
	return dir, nil
}

// writeAddresses replaces the file that [api.ReadAddresses] reads.
func writeAddresses(stateDir string, a api.Addresses) error {
	text, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode the addresses: %w", err)
	}
	return store.File(filepath.Join(stateDir, api.AddressesFile)).Save(append(text, '\n'))
}
