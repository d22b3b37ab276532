package policy

import (
	"errors"
	"maps"
	"time"
)

// CheckedEvery is the policy with an interval wherever it leaves that open.
func (p Policy) CheckedEvery(every time.Duration) Policy {
	fill := func(s Service) Service {
		if s.HealthCheck.Interval == AutoInterval {
			s.HealthCheck.Interval = Interval(every)
		}
		return s
	}
	p.Defaults = fill(p.Defaults)
	p.Services = maps.Clone(p.Services)
	for name, s := range p.Services {
		p.Services[name] = fill(s)
	}
	return p
}

// Interval is how often an Envoy checks a server, or [AutoInterval].
type Interval time.Duration

const wantInterval = "must be auto, or from 100ms to 1h in whole milliseconds"

// AutoInterval leaves it to the control plane: see [xds.Checks].
const AutoInterval Interval = 0

// String is auto, or a duration.
func (i Interval) String() string {
	if i == AutoInterval {
		return Auto
	}
	return Duration(i).String()
}

// UnmarshalText reads auto, or a duration.
func (i *Interval) UnmarshalText(text []byte) error {
	if string(text) == Auto {
		*i = AutoInterval
		return nil
	}
	var d Duration
	if err := d.UnmarshalText(text); err != nil || d == 0 {
		return errors.New(wantInterval)
	}
	*i = Interval(d)
	return nil
}
