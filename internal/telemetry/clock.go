package telemetry

import "time"

// minSetBack is how far the wall clock goes back at least where it was set: calls
// that overtake each other, and a clock that is slewed, differ by less.
const minSetBack = 5 * time.Second

// steadyClock makes a time that never goes back of the wall clock's, which may be
// set back: by one that does, what is remembered would lie in the future, and
// hide what comes until then.
type steadyClock struct {
	latest time.Time     // that the wall clock told
	behind time.Duration // how far it was set back since the start
}

// steady is the time to remember things by.
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

// wall is what the wall clock tells now for a time that was remembered.
func (c *steadyClock) wall(steady time.Time) time.Time { return steady.Add(-c.behind) }
