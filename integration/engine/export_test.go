package engine

import (
	"context"
	"path/filepath"
)

// LockPath is where the run's lock lies.
func (r *Run) LockPath() string { return filepath.Join(lockDir(), r.ID) }

// Sweep is what Start does about dead runs.
func Sweep(ctx context.Context) error { return sweep(ctx) }
