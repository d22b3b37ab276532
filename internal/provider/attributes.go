package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tailxds/tailxds/internal/topology"
)

// Posture attributes cost one request a device, and no list of them exists.
// So only devices with one of our tags are looked up; each again at the
// earliest after minAttributeAge; and after the first list, which is complete, at
// most maxAttributeReads of them a list, the longest unread first.
const (
	minAttributeAge      = 15 * time.Second
	maxAttributeReads    = 64
	maxAttributeRequests = 4
	// deniedRetryInterval is when to ask again whether the credential may read attributes.
	deniedRetryInterval = 10 * time.Minute
	// maxAttributeProbes is how many devices are looked up, a list, on an API that has
	// answered for none yet. A 404 is about one device, unless all of them get it.
	maxAttributeProbes = 3
)

// attributes reads the custom posture attributes of devices, and keeps them
// between lists.
type attributes struct {
	api      *api
	prefix   string                      // of our tags
	byDevice map[string]deviceAttributes // by device ID
	// supported is true once the API has answered, and deniedAt is when the credential
	// was refused last.
	supported bool
	deniedAt  time.Time
	// probed counts the devices that were probed; logged is true once the log says
	// that attributes can't be read.
	probed int
	logged bool
}

// deviceAttributes is what one device's attributes were when they were last read.
type deviceAttributes struct {
	at     time.Time // zero if an earlier process read them
	values map[string]attribute
}

type attribute struct {
	value   string
	expires time.Time // zero means never
}

// newAttributes starts with the values that an earlier process read, so that none
// is lost, and no drained server serves, while they can't be read.
func newAttributes(a *api, tagPrefix string, last []topology.Device) *attributes {
	known := make(map[string]deviceAttributes)
	for _, d := range last {
		if len(d.Attributes) == 0 {
			continue
		}
		r := deviceAttributes{values: make(map[string]attribute)}
		for name, value := range d.Attributes {
			r.values[name] = attribute{value: value}
		}
		known[d.ID] = r
	}
	return &attributes{api: a, prefix: tagPrefix, byDevice: known}
}

// add sets the attributes of the devices that have one of our tags: the current
// ones, or the last known.
func (a *attributes) add(ctx context.Context, devices []topology.Device, now time.Time) error {
	ours := slices.DeleteFunc(ids(devices), func(i int) bool { return !topology.Tagged(devices[i].Tags, a.prefix) })
	a.retain(devices, ours)
	due := a.due(devices, ours, now)
	if !a.supported {
		var err error
		if due, err = a.probe(ctx, due, now); err != nil {
			return err
		}
	}
	if err := a.read(ctx, due, now); err != nil {
		return err
	}
	for _, i := range ours {
		devices[i].Attributes = a.byDevice[devices[i].ID].current(now)
	}
	return nil
}

func ids(devices []topology.Device) []int {
	all := make([]int, len(devices))
	for i := range all {
		all[i] = i
	}
	return all
}

// retain drops the attributes of devices that are no longer looked up.
func (a *attributes) retain(devices []topology.Device, ours []int) {
	listed := make(map[string]bool, len(ours))
	for _, i := range ours {
		listed[devices[i].ID] = true
	}
	for id := range a.byDevice {
		if !listed[id] {
			delete(a.byDevice, id)
		}
	}
}

// due returns the IDs to look up now: all that were never read, then the oldest.
func (a *attributes) due(devices []topology.Device, ours []int, now time.Time) []string {
	var fresh, again []string
	for _, i := range ours {
		id := devices[i].ID
		switch r, ok := a.byDevice[id]; {
		case !ok || r.at.IsZero():
			fresh = append(fresh, id)
		case !now.Before(r.at.Add(minAttributeAge)):
			again = append(again, id)
		}
	}
	slices.SortStableFunc(again, func(x, y string) int { return a.byDevice[x].at.Compare(a.byDevice[y].at) })
	return append(fresh, again[:min(len(again), maxAttributeReads)]...)
}

// probe finds out whether there are attributes to read: an API may have none
// (headscale), or a credential may lack their scope. It returns the devices that are
// still to be read; none if the API answers for none.
func (a *attributes) probe(ctx context.Context, due []string, now time.Time) ([]string, error) {
	if !a.deniedAt.IsZero() && now.Before(a.deniedAt.Add(deniedRetryInterval)) {
		return nil, nil
	}
	for range min(maxAttributeProbes, len(due)) {
		id := due[a.probed%len(due)] // not the same ones at each list
		a.probed++
		r, err := a.one(ctx, id, now)
		var refused *apiError
		switch {
		case errors.As(err, &refused) && refused.Is(errDenied):
			a.deniedAt = now
			a.logUnreadable(refused)
			return nil, nil
		case errors.As(err, &refused) && refused.status == http.StatusNotFound:
			a.logUnreadable(refused)
		case err != nil:
			return nil, err
		default:
			a.supported, a.deniedAt, a.logged = true, time.Time{}, false
			a.byDevice[id] = r
			return slices.DeleteFunc(due, func(other string) bool { return other == id }), nil
		}
	}
	return nil, nil
}

// logUnreadable logs once that attributes can't be read.
func (a *attributes) logUnreadable(err error) {
	if a.logged {
		return
	}
	a.logged = true
	a.api.log.Info("not reading posture attributes: the API does not serve them, or the credential lacks scope devices:posture_attributes:read",
		"error", err.Error(), "kept", len(a.byDevice))
}

func (a *attributes) read(ctx context.Context, due []string, now time.Time) error {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxAttributeRequests)
	for _, id := range due {
		group.Go(func() error {
			r, err := a.one(ctx, id, now)
			var gone *apiError
			if errors.As(err, &gone) && gone.status == http.StatusNotFound {
				return nil // removed since the list was made: the next one lacks it; what is known stays
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			a.byDevice[id] = r
			return nil
		})
	}
	return group.Wait()
}

func (a *attributes) one(ctx context.Context, id string, now time.Time) (deviceAttributes, error) {
	read := deviceAttributes{at: now, values: map[string]attribute{}}
	err := a.api.get(ctx, func(r io.Reader) error { return read.decode(r) }, "api/v2/device", id, "attributes")
	return read, err
}

func (r *deviceAttributes) decode(body io.Reader) error {
	var doc struct {
		Attributes *map[string]any         `json:"attributes"`
		Expiries   map[string]optionalTime `json:"expiries"`
	}
	if err := decodeWhole(body, &doc); err != nil {
		return err
	}
	if doc.Attributes == nil {
		return errors.New(`unknown shape: the answer has no "attributes"`)
	}
	for key, value := range *doc.Attributes {
		name, ours := topology.AttributeKey(key)
		if !ours {
			continue
		}
		attr := attribute{value: fmt.Sprint(value)}
		if at := doc.Expiries[key].orNever(); at != nil {
			attr.expires = *at
		}
		r.values[name] = attr
	}
	return nil
}

// current returns the attributes that have not expired.
func (r deviceAttributes) current(now time.Time) map[string]string {
	var current map[string]string
	for name, a := range r.values {
		if !a.expires.IsZero() && !now.Before(a.expires) {
			continue
		}
		if current == nil {
			current = make(map[string]string, len(r.values))
		}
		current[name] = a.value
	}
	return current
}
