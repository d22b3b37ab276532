package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// thing is something on the engine that a run made.
type thing struct {
	kind string // container, network, volume or image
	id   string
	name string // the label or name that holds the run's ID
	age  time.Duration
}

// kinds in the order in which they can be removed.
var kinds = [...]string{"container", "network", "volume", "image"}

var removal = map[string][]string{
	"container": {"rm", "--force", "--volumes"},
	"network":   {"network", "rm"},
	"volume":    {"volume", "rm", "--force"},
	"image":     {"rmi", "--force"},
}

// list finds what carries a label, or for an image a name, that match accepts.
func list(ctx context.Context, match func(name string) bool) ([]thing, error) {
	var found []thing
	for _, kind := range kinds {
		output, err := Docker(ctx, listing(kind)...)
		if err != nil {
			return nil, fmt.Errorf("listing each %s: %w", kind, err)
		}
		for _, line := range lines(output) {
			if thing := parseThing(kind, line); match(thing.name) {
				found = append(found, thing)
			}
		}
	}
	return found, nil
}

// listing prints ID, age and name of each thing of a kind, with tabs between.
// Of the two labels a thing carries one at most. Volumes do not say their age.
func listing(kind string) []string {
	labels := fmt.Sprintf("\t{{.Label %q}}{{.Label %q}}", Label, projectLabel)
	switch kind {
	case "container":
		return []string{"ps", "--all", "--format", "{{.ID}}\t{{.CreatedAt}}" + labels}
	case "volume":
		return []string{"volume", "ls", "--format", "{{.Name}}\t" + labels}
	case "image":
		return []string{"image", "ls", "--format", "{{.Repository}}:{{.Tag}}\t{{.CreatedAt}}\t{{.Repository}}"}
	default:
		return []string{kind, "ls", "--format", "{{.ID}}\t{{.CreatedAt}}" + labels}
	}
}

func parseThing(kind, line string) thing {
	fields := strings.SplitN(line, "\t", 3)
	fields = append(fields, "", "")[:3]
	found := thing{kind: kind, id: fields[0], name: fields[2]}
	// What does not say its age in a way we understand counts as new.
	if created, err := time.Parse("2006-01-02 15:04:05 -0700 MST", fields[1]); err == nil {
		found.age = time.Since(created)
	}
	return found
}

// stuckAfter is how long something may refuse to go before that is a failure.
const stuckAfter = 30 * time.Second

// removeAll removes what match accepts, until nothing of it is left. That is
// what counts, not how each removal ended: the test processes that start side by
// side sweep the same leftovers, and the engine itself removes what ran with
// --rm, so what was listed may be gone, or going, when its turn comes.
func removeAll(ctx context.Context, match func(name string) bool) error {
	deadline := time.Now().Add(stuckAfter)
	for {
		err := removeListed(ctx, match)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// removeListed removes what match accepts now, containers first.
func removeListed(ctx context.Context, match func(name string) bool) error {
	things, err := list(ctx, match)
	if err != nil {
		return err
	}
	var errs []error
	for _, kind := range kinds {
		args := removal[kind]
		for _, thing := range things {
			if thing.kind == kind {
				args = append(args[:len(args):len(args)], thing.id)
			}
		}
		if len(args) > len(removal[kind]) {
			_, err := Docker(ctx, args...)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
