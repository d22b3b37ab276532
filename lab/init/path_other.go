//go:build !linux

package main

import (
	"context"
	"errors"
)

// install is for the lab's containers, which are Linux wherever they run.
func (h hindrance) install(context.Context) (undo func() error, err error) {
	return nil, errors.New("packets can be hindered on Linux only")
}
