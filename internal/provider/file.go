package provider

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/yamldoc"
)

// pollInterval is how often the file is checked. A check costs one stat, sees a
// file replaced by any means (rename, write, a symlink turned as Kubernetes
// does), and needs no watch that can be lost.
const pollInterval = time.Second

// file lists the devices of a JSON or YAML file.
type file struct {
	path string
	max  int64

	mu   sync.Mutex
	last parsedFile // so that the same text is not parsed again
}

// parsedFile is the result of parsing a text.
type parsedFile struct {
	hash    [sha256.Size]byte
	devices []topology.Device // nil if nothing was parsed, or it failed
	whole   bool
	parses  int // so far
}

func openFile(cfg Config) (Source, error) {
	if cfg.Devices == "" {
		return nil, errors.New("needs a file of devices: give it by --devices")
	}
	return &file{path: cfg.Devices, max: cfg.MaxBytes}, nil
}

// settleTime is how long a file that may be incomplete must stay unchanged before
// it counts.
const settleTime = 2 * time.Second

// List reads the file. While it is being written it may be invalid, or worse, a
// valid and shorter list; so a file that may be incomplete counts once it was
// unchanged for a moment.
func (f *file) List(ctx context.Context) ([]topology.Device, error) {
	for {
		seen := f.stat()
		devices, whole, err := f.read()
		if err != nil {
			err = fmt.Errorf("read devices: %w", err)
		}
		if err != nil && (seen == nil || seen.IsDir()) {
			return nil, err // waiting does not help
		}
		old := seen != nil && time.Since(seen.ModTime()) >= settleTime
		if (whole || old) && sameFile(seen, f.stat()) {
			return devices, err
		}
		sleep(ctx, settleTime)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read devices: %s is being written: %w (write another file and rename it)", f.path, ctx.Err())
		}
		if sameFile(seen, f.stat()) {
			return devices, err
		}
	}
}

// Watch calls wake each time the file was replaced, until ctx is done.
func (f *file) Watch(ctx context.Context, wake func()) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for last := f.stat(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := f.stat(); !sameFile(last, now) {
			last = now
			wake()
		}
	}
}

// stat returns the file's info; nil if there is no file.
func (f *file) stat() os.FileInfo {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil
	}
	return info
}

func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// ReadDevices reads a file of devices: a JSON or YAML list of
// [topology.Device], where "online" left out means true. It reads at most max
// bytes; 0 means 64 MiB. Errors name line and column.
func ReadDevices(path string, max int64) ([]topology.Device, error) {
	devices, _, err := (&file{path: path, max: max}).read()
	return devices, err
}

// read reads the file, and parses it if its text has changed. It also reports
// whether the list is certainly complete.
func (f *file) read() (devices []topology.Device, whole bool, err error) {
	text, err := f.text()
	if err != nil {
		return nil, false, err
	}
	hash := sha256.Sum256(text)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last.devices == nil || f.last.hash != hash {
		f.last.parses++
		f.last.hash, f.last.whole = hash, hasExplicitEnd(text)
		f.last.devices, err = ParseDevices(text, strings.EqualFold(filepath.Ext(f.path), ".json"))
		if err != nil {
			return nil, false, fmt.Errorf("%s:%w", f.path, err)
		}
	}
	return slices.Clone(f.last.devices), f.last.whole, nil // the caller may change them
}

func (f *file) text() ([]byte, error) {
	from, err := os.Open(f.path)
	if err != nil {
		return nil, err // says "open PATH: …" already
	}
	defer func() { _ = from.Close() }()
	body := &limitedReader{r: from, max: cmp.Or(f.max, defaultMaxBytes), left: cmp.Or(f.max, defaultMaxBytes)}
	text, err := io.ReadAll(body)
	if err != nil && body.over {
		return nil, fmt.Errorf("%s is larger than %d bytes", f.path, body.max)
	} else if err != nil {
		return nil, err // says "read PATH: …" already
	}
	return text, nil
}

// hasExplicitEnd reports whether a valid list has an end that an incomplete one would
// lack: JSON's and YAML's bracket, or YAML's mark for the end of a document, "...".
// A YAML list of dashes is a valid list wherever it is cut.
func hasExplicitEnd(text []byte) bool {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if bytes.Equal(bytes.TrimSpace(lines[len(lines)-1]), []byte("...")) {
		return true
	}
	for _, line := range lines {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && !bytes.Equal(line, []byte("---")) {
			return line[0] == '['
		}
	}
	return false
}

// fileDevice is a device as it is written in the file.
type fileDevice struct {
	ID           string            `json:"id" yaml:"id"`
	Name         string            `json:"name" yaml:"name"`
	Addresses    []string          `json:"addresses" yaml:"addresses"`
	Tags         []string          `json:"tags" yaml:"tags"`
	Online       *bool             `json:"online" yaml:"online"`
	OfflineSince *string           `json:"offlineSince" yaml:"offlineSince"` // as /status prints it; the guard sets it anew
	Unreachable  string            `json:"unreachable" yaml:"unreachable"`
	Expires      *string           `json:"expires" yaml:"expires"` // text, since YAML would take a wrong time for none
	Grants       []any             `json:"grants" yaml:"grants"`
	Attributes   map[string]string `json:"attributes" yaml:"attributes"`
}

// ParseDevices reads the text of a file of devices. With strictJSON it may not
// be YAML. Errors begin with line and column, "3:14: …".
func ParseDevices(text []byte, strictJSON bool) ([]topology.Device, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("1:1: the file is empty; for no devices write []")
	}
	var written []fileDevice
	var err error
	if strictJSON || json.Valid(text) {
		err = parseJSON(text, &written)
	} else {
		err = parseYAML(text, &written)
	}
	if err != nil {
		return nil, err
	}
	if len(written) > maxDevices {
		return nil, fmt.Errorf("1:1: %w", errTooManyDevices)
	}
	if written == nil {
		return nil, errors.New("1:1: it holds no list of devices; for no devices write []")
	}
	devices := make([]topology.Device, 0, len(written))
	for i, w := range written {
		d, err := w.device()
		if err != nil {
			return nil, fmt.Errorf(" device %d (%s): %w", i+1, w.Name, err)
		}
		devices = append(devices, d)
	}
	return devices, nil
}

func (w fileDevice) device() (topology.Device, error) {
	if w.ID == "" {
		return topology.Device{}, errors.New("it has no id; give each device one of its own, and keep it")
	}
	d := topology.Device{
		ID: w.ID, Name: w.Name, Addresses: hostAddresses(w.Addresses), Unreachable: w.Unreachable, Tags: w.Tags, Attributes: w.Attributes,
		Online: onlineByDefault(w.Online),
	}
	if w.Expires != nil {
		at, err := time.Parse(time.RFC3339, *w.Expires)
		if err != nil {
			return topology.Device{}, fmt.Errorf("expires: %q is not a time like 2027-01-02T15:04:05Z", *w.Expires)
		}
		d.Expires = optionalTime{at}.orNever()
	}
	for _, grant := range w.Grants {
		raw, err := json.Marshal(grant)
		if err != nil {
			return topology.Device{}, fmt.Errorf("grant: %w", err)
		}
		d.Grants = append(d.Grants, raw)
	}
	return d, nil
}

func parseJSON(text []byte, into *[]fileDevice) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	d.UseNumber()
	if countItems(text) > maxDevices {
		return fmt.Errorf("1:1: %w", errTooManyDevices)
	}
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", position(text, jsonOffset(err, d, len(text))), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: something follows the list of devices", position(text, d.InputOffset()))
	}
	return nil
}

// countItems is how many items the list of a JSON text has, about, before anything
// is built of it.
func countItems(text []byte) int {
	count, depth, quoted := 1, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[', c == '{':
			depth++
		case c == ']', c == '}':
			depth--
		case c == ',' && depth == 1:
			count++
		}
	}
	return count
}

func jsonOffset(err error, d *json.Decoder, end int) int64 {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return syntax.Offset
	case errors.As(err, &kind):
		return kind.Offset
	case errors.Is(err, io.ErrUnexpectedEOF):
		return int64(end)
	default:
		return d.InputOffset()
	}
}

// position is the line and column of a byte, both from 1.
func position(text []byte, offset int64) string {
	before := text[:min(max(offset-1, 0), int64(len(text)))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("%d:%d", line, column)
}

func parseYAML(text []byte, into *[]fileDevice) error {
	list, err := yamldoc.Parse(text)
	if err == nil && !list.Null() {
		list.Read(into)
		err = list.Err()
	}
	var faults yamldoc.Faults
	if !errors.As(err, &faults) {
		return err
	}
	var all []string
	for _, f := range faults {
		all = append(all, fmt.Sprintf("%d:%d: %s", f.Line, f.Column, f.Text()))
	}
	return errors.New(strings.Join(all, "; "))
}
