package telemetry

import "time"

// minSetBack is the least step back that counts as the wall clock being set: calls
// that overtake each other, and a slewed clock, differ by less.
const minSetBack = 5 * time.Second

// steadyClock turns the wall clock into a time that never goes back. Were the wall
// clock set back, recorded figures would lie in the future, and hide what comes
// until then.
type steadyClock struct {
	latest time.Time     // that the wall clock told
	behind time.Duration // how far it was set back since the start
}

// steady returns the time to record things by.
func (c *steadyClock) steady(wall time.Time) time.Time {
	wall = wall.Round(0) // else the difference would be that of another clock
	switch back := c.latest.Sub(wall); {
	case back >= minSetBack:
		c.behind += back
		c.latest = wall
	case back < 0:
		c.latest = wall
	}
	return c.latest.Add(c.behind)
}

// wall returns what the wall clock says now for a recorded time.
func (c *steadyClock) wall(steady time.Time) time.Time { return steady.Add(-c.behind) }
