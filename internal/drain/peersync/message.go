package peersync

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/tailxds/tailxds/internal/drain"
	"github.com/tailxds/tailxds/internal/yamldoc"
)

// Bounds of an answer, beside [drain.MaxRecords].
const (
	maxBytes     = 2 << 20
	maxConnected = 10_000
	maxVersion   = 200
)

// message is a control plane's answer to a poll.
type message struct {
	// Version identifies Drains and Connected: see [versionOf].
	Version string         `json:"version"`
	Drains  []drain.Record `json:"drains"`
	// Connected are the addresses of the devices whose Envoys are connected.
	Connected []netip.Addr `json:"connected,omitempty"`
}

// versionOf returns a hash of the drains, a dash, and a hash of who is connected.
func versionOf(drains []drain.Record, connected []netip.Addr) (string, error) {
	text, err := json.Marshal(drains)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.8x-%.8x", sha256.Sum256(text), sha256.Sum256(fmt.Append(nil, connected))), nil
}

// sameDrains reports whether two versions have the same drains.
func sameDrains(a, b string) bool {
	a, _, _ = strings.Cut(a, "-")
	b, _, _ = strings.Cut(b, "-")
	return a == b
}

// get requests a peer's message.
func get(ctx context.Context, client *http.Client, name, version string) (message, error) {
	u := url.URL{Scheme: "http", Host: name, Path: Path, RawQuery: url.Values{"version": {version}}.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return message{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		var cause *url.Error
		if errors.As(err, &cause) {
			err = cause.Err // without the URL
		}
		return message{}, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBytes+1))
	switch {
	case err != nil:
		return message{}, fmt.Errorf("read the answer: %w", err)
	case response.StatusCode != http.StatusOK:
		return message{}, fmt.Errorf("it answers %s: %.200q", response.Status, body)
	case len(body) > maxBytes:
		return message{}, fmt.Errorf("its answer is longer than %d bytes", maxBytes)
	}
	return decode(body, time.Now())
}

// decode reads a message, or refuses it as a whole.
func decode(body []byte, now time.Time) (message, error) {
	var raw struct {
		Version           string
		Drains, Connected json.RawMessage
	}
	if err := json.Unmarshal(body, &raw); err != nil {
		return message{}, fmt.Errorf("invalid answer: %w", err)
	}
	if raw.Version == "" || len(raw.Version) > maxVersion {
		return message{}, errors.New("invalid answer: it has no version; run the same version of tailxds on both")
	}
	drains, err := yamldoc.List[drain.Record](raw.Drains, drain.MaxRecords)
	if err != nil {
		return message{}, fmt.Errorf("invalid answer: drains: %w", err)
	}
	connected, err := yamldoc.List[netip.Addr](raw.Connected, maxConnected)
	if err != nil {
		return message{}, fmt.Errorf("invalid answer: connected: %w", err)
	}
	for i := range drains {
		if err := errors.Join(drains[i].Check(), drains[i].CheckDates(now)); err != nil {
			return message{}, err
		}
		drains[i].MissingSince = time.Time{}
	}
	return message{raw.Version, drains, connected}, nil
}
