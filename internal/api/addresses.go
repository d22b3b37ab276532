package api

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// AddressesFile is the name of the file in the state directory that holds [Addresses].
const AddressesFile = "addresses.json"

// Addresses are the host:port pairs that a control plane listens on. It writes them when it
// listens, because with port 0 the kernel chooses, and removes them when it ends.
type Addresses struct {
	Admin string `json:"admin"`
	// XDS is empty until xDS is served.
	XDS string `json:"xds,omitempty"`
}

// ReadAddresses reads the addresses of the control plane that runs with a state directory.
// The error wraps [fs.ErrNotExist] if none does.
func ReadAddresses(stateDir string) (Addresses, error) {
	text, err := os.ReadFile(filepath.Join(stateDir, AddressesFile))
	if err != nil {
		return Addresses{}, fmt.Errorf("read the addresses of the control plane: %w", err)
	}
	var a Addresses
	if err := json.Unmarshal(text, &a); err != nil {
		return Addresses{}, fmt.Errorf("read the addresses in %s: %w", AddressesFile, err)
	}
	return a, nil
}
