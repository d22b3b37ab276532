package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Label marks whatever a test creates outside a compose project. Its value is
	// the run's ID.
	Label = "dev.tailxds.test"

	// projectLabel is what compose itself puts on all it creates.
	projectLabel = "com.docker.compose.project"

	// orphanAge is when something is swept although nobody here knows its run:
	// longer than any run takes.
	orphanAge = 3 * time.Hour
)

// runID finds the run in a project's, image's or label's name.
var runID = regexp.MustCompile(`^tailxds-test-[0-9a-f]{8}`)

// Run is one test process. All it creates carries its ID, so that two runs side
// by side never meet, and whatever a killed run left can be told from what a
// living one is using: a living run holds the lock on its file.
type Run struct {
	ID   string
	lock *os.File
}

// lockDir holds one file a run on this machine.
func lockDir() string { return filepath.Join(os.TempDir(), "tailxds-test") }

// Start names a new run and removes what dead runs left behind.
func Start(ctx context.Context) (*Run, error) {
	if err := os.MkdirAll(lockDir(), 0o700); err != nil {
		return nil, fmt.Errorf("making a place for locks: %w", err)
	}
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails, says its documentation
	run := &Run{ID: "tailxds-test-" + hex.EncodeToString(random)}
	lock, err := tryLock(run.ID, os.O_CREATE, unix.LOCK_EX)
	if err != nil {
		return nil, fmt.Errorf("locking the run's file: %w", err)
	}
	run.lock = lock
	if err := sweep(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("sweeping up after dead runs: %w", err), run.Close())
	}
	return run, nil
}

// Project is the name of a compose project of this run.
func (r *Run) Project(name string) string { return r.ID + "-" + name }

// Labels are what a container, network or volume of this run must carry.
func (r *Run) Labels() map[string]string { return map[string]string{Label: r.ID} }

// Close releases the run's lock. What still carries its ID is then left over.
func (r *Run) Close() error {
	err := os.Remove(r.lock.Name())
	return errors.Join(err, r.lock.Close())
}

// Clean removes everything whose name or label starts with the prefix, which is
// the run's ID or one of its projects.
func (r *Run) Clean(ctx context.Context, prefix string) error {
	if !strings.HasPrefix(prefix, r.ID) {
		return fmt.Errorf("%s is not of run %s", prefix, r.ID)
	}
	return removeAll(ctx, func(name string) bool { return strings.HasPrefix(name, prefix) })
}

// Leftovers lists what still exists of this run.
func (r *Run) Leftovers(ctx context.Context) ([]string, error) {
	things, err := list(ctx, func(name string) bool { return strings.HasPrefix(name, r.ID) })
	var names []string
	for _, thing := range things {
		names = append(names, thing.kind+" "+thing.name)
	}
	return names, err
}

// tryLock takes the run's lock, or fails at once if its process is alive.
func tryLock(id string, flags, how int) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(lockDir(), id), flags|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// sweep removes what dead runs of this machine left, and what is so old that
// its run must be dead wherever it was.
func sweep(ctx context.Context) error {
	all, err := list(ctx, func(name string) bool { return runID.MatchString(name) })
	if err != nil {
		return err
	}
	var dead []string
	for _, thing := range all {
		id := runID.FindString(thing.name)
		if !slices.Contains(dead, id) && isDead(id, thing.age) {
			dead = append(dead, id)
		}
	}
	return each(dead, func(id string) error {
		if err := removeAll(ctx, func(name string) bool { return strings.HasPrefix(name, id) }); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(lockDir(), id)); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
}

// isDead reports whether nobody can be using what the run made. A run that looks
// at a dead one holds it by a shared lock, so that others which look meanwhile
// do not take it for living.
func isDead(id string, age time.Duration) bool {
	lock, err := tryLock(id, 0, unix.LOCK_SH)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return age > orphanAge
	case err != nil:
		return false
	}
	_ = lock.Close() // only read; closing releases the lock
	return true
}
