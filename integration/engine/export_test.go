package engine

import "path/filepath"

// LockPath is where the run's lock lies.
func (r *Run) LockPath() string { return filepath.Join(lockDir(), r.ID) }
