package controlplane

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/tailxds/tailxds/internal/guard"
	"github.com/tailxds/tailxds/internal/provider"
	"github.com/tailxds/tailxds/internal/store"
)

// beginning is what a control plane starts from.
type beginning struct {
	store store.Store
	saved savedState
	lost  string // what could not be read of it
	// policy is in force, and good the last policy that was published; nil if none
	// is known.
	policy policyFile
	good   *policyFile
	// list is what was published last; without a provider if that is unknown.
	list guard.List
}

// begin reads the saved state and the policy file, and refuses to start without a
// policy file or a device file that can be read, unless the last good one was
// saved: an Envoy must not lose its routes to a typo.
func begin(ctx context.Context, config Config, kept store.Store, log *slog.Logger) (beginning, error) {
	b := beginning{store: kept}
	b.saved, b.lost = loadState(kept, log)
	if err := b.readPolicy(config.PolicyFile, log); err != nil {
		return b, err
	}
	if len(b.saved.Memory.Services) > 0 {
		b.list = guard.List{Provider: b.saved.Memory.Provider, Devices: *b.saved.Devices, UnhealthyReason: "no list has come since the start"}
		log.Info("serving what was published last until the source answers", "devices", len(b.list.Devices), "from", b.saved.Memory.List)
	}
	return b, b.checkDevices(ctx, config.providerConfig(log))
}

// readPolicy reads the policy file. If that is bad, the last good policy that was
// saved is in force.
func (b *beginning) readPolicy(path string, log *slog.Logger) error {
	file, err := loadPolicy(path)
	last, savedErr := parsePolicy(path, b.saved.Policy)
	if b.saved.Policy == "" || savedErr != nil {
		b.policy = file
		return err
	}
	b.good = &last
	if err != nil {
		log.Error("the policy file is bad, the last good policy that was saved is in force", "error", err)
		file = last
		file.err = err.Error()
	}
	b.policy = file
	return nil
}

// checkDevices checks that the device file can be read, if the source is one and
// no list was saved.
func (b *beginning) checkDevices(ctx context.Context, source provider.Config) error {
	if !source.ReadsFile() || b.list.Provider == provider.File {
		return nil
	}
	if _, err := provider.ReadDevices(source.Devices, source.MaxBytes); err == nil {
		return nil
	}
	src, _, err := provider.Open(provider.Config{Provider: provider.File, Devices: source.Devices, MaxBytes: source.MaxBytes, Log: source.Log})
	if err != nil {
		return err
	}
	if _, err := src.List(ctx); err != nil { // it waits for a file that is being written
		return fmt.Errorf("%w: --devices names the device file", err)
	}
	return nil
}
