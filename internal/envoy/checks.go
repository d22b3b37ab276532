package envoy

import (
	"time"
)

// With as many Envoys as servers, checks grow with the square of their number.
// Where the policy leaves the interval to the control plane, it grows with the
// Envoys instead, so that a server is asked no more than so often however many
// they are. Between checks, retries and the ejection of servers that fail real
// requests carry on.
const (
	// mostChecks is how often a second one server is checked, by all Envoys
	// together.
	mostChecks = 50
	// oftenest and seldomest bound the interval; the second is where a check
	// would find nothing out any more.
	oftenest  = time.Second
	seldomest = time.Hour
)

// checkEvery is the interval for so many Envoys. It goes in powers of two, since
// a changed interval is a changed cluster for every Envoy, and grows shorter than
// the last only once they are half as many as that would bear.
func checkEvery(envoys int, last time.Duration) time.Duration {
	every := oftenest
	for every < seldomest && float64(envoys) > mostChecks*every.Seconds() {
		every *= 2
	}
	if every < last && float64(envoys) > mostChecks*last.Seconds()/4 {
		return last
	}
	return min(every, seldomest)
}

// Checks are what Envoys are told where the policy leaves the interval of health
// checks to the control plane.
type Checks struct {
	// Envoys is how many are reckoned with: the devices that serve, each of which
	// may have one, or those that are connected, if they are more.
	Envoys int
	// Every is the interval between two checks of a server by one Envoy.
	Every time.Duration
}

// next are the checks for other numbers. The devices are what two control planes
// agree on, whoever is connected to which.
func (c Checks) next(devices, connected int) Checks {
	n := max(devices, connected)
	return Checks{n, checkEvery(n, c.Every)}
}
