package netmap

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"
)

// policyInterval is how often the node is asked whether its packet filter, its share
// of the policy, was replaced. Since 1.102 a filter that comes without peers raises
// no event on the bus; but it is counted.
const policyInterval = 300 * time.Millisecond

// policyWatch notices that the tailnet's policy changed.
type policyWatch struct {
	// version counts the times that the policy may have changed.
	version atomic.Uint64
	filters atomic.Pointer[string] // the last count of filters

	mu   sync.Mutex
	last string // the last policy, as JSON
}

// counted stores a count of filters, and reports whether it differs from the last.
func (p *policyWatch) counted(count string) bool {
	last := p.filters.Swap(&count)
	return last == nil || *last != count
}

// changed reads the policy, and reports whether it differs from the last one, or
// can't be read. The version rises after that, so that a reader who sees the new
// version reads at least this policy.
func (p *policyWatch) changed(read func() (packetFilter, error)) bool {
	p.mu.Lock() // what is read later is compared later
	defer p.mu.Unlock()
	var text []byte // as JSON, equal policies look the same however the node wrote them
	now, err := read()
	if err == nil {
		text, err = json.Marshal(now)
	}
	if err == nil && string(text) == p.last {
		return false
	}
	p.last = string(text)
	p.version.Add(1)
	return true
}
