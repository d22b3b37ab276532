package harness

import (
	"errors"
	"strings"
	"time"
)

// Slow has all that comes to the host from others be on its way for a while
// longer, by lab-init, the lab's program for that.
func (h *Host) Slow(labInit string, by time.Duration, from ...*Host) {
	r := h.rig
	r.t.Helper()
	args := []string{"path", "slow", by.String()}
	for _, other := range from {
		args = append(args, other.V4.String())
	}
	p, err := h.start(false, h.Name+"-path", labInit, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Await("the path to "+h.Name+" is slow", func() error {
		if !strings.Contains(p.logTail(), "in force") {
			return errors.New("not yet: " + p.logTail())
		}
		return nil
	})
}
