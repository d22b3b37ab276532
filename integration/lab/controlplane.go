package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tailxds/tailxds/integration/engine"
)

// Source is what the control plane says of where its devices come from.
type Source struct {
	Provider string    `json:"provider"`
	LastGood time.Time `json:"lastGood"`
	Stale    bool      `json:"stale"`
	Failures int       `json:"failures"`
	Denied   bool      `json:"denied"`
	LinkDown bool      `json:"linkDown"`
	Error    string    `json:"error"`
}

// Status is the control plane's own account.
type Status struct {
	Source Source            `json:"provider"`
	Envoys []json.RawMessage `json:"envoys"` // one a connected Envoy
	// Problems are what was ignored, or what witnesses disagree on.
	Problems []Problem `json:"problems"`
	// Changes are what happened of late, the newest first.
	Changes []Change `json:"changes"`
	// Services are what is balanced.
	Services []struct {
		Idle []Idle `json:"idle"`
	} `json:"services"`
}

// Problem is one of the control plane's problems.
type Problem struct {
	Name    string `json:"name"`
	Subject string `json:"subject"`
	Reason  string `json:"reason"`
}

// Change is one thing that happened.
type Change struct {
	ID   int    `json:"id"`
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// Idle is an endpoint that gets no new requests, and why.
type Idle struct {
	Name  string `json:"name"`
	State string `json:"state"`
}

// Status asks the control plane, as an operator does.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	output, err := engine.Exec(ctx, l.Container("control-plane"), "tailxds", "status", "--json")
	if err != nil {
		return Status{}, err
	}
	var status Status
	if err := json.Unmarshal([]byte(output), &status); err != nil {
		return Status{}, fmt.Errorf("reading the control plane's status: %w", err)
	}
	return status, nil
}
