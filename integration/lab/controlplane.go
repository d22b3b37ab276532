package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tailxds/tailxds/integration/engine"
	"github.com/tailxds/tailxds/internal/api"
)

// Status asks the control plane, as an operator does.
func (l *Lab) Status(ctx context.Context) (api.Status, error) {
	output, err := engine.Exec(ctx, l.Container("control-plane"), "tailxds", "status", "--json")
	if err != nil {
		return api.Status{}, err
	}
	var status api.Status
	if err := json.Unmarshal([]byte(output), &status); err != nil {
		return api.Status{}, fmt.Errorf("reading the control plane's status: %w", err)
	}
	if status.Provider == nil {
		return api.Status{}, errors.New("the control plane has not asked its provider yet")
	}
	return status, nil
}
