package main

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// meter measures requests a second, over the last second.
type meter struct {
	mu        sync.Mutex
	began     time.Time // of the second that runs
	last, now float64   // requests in the second before, and in this one
}

// count counts a request and returns the rate. The second before counts for as
// much of it as is not over a second ago.
func (m *meter) count(at time.Time) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch age := at.Sub(m.began); {
	case age >= 2*time.Second:
		m.began, m.last, m.now = at, 0, 0
	case age >= time.Second:
		m.began, m.last, m.now = m.began.Add(time.Second), m.now, 0
	}
	m.now++
	return m.last*(1-at.Sub(m.began).Seconds()) + m.now
}

// reportLoad adds to each answer how loaded the server is (ORCA), as Envoy's
// client_side_weighted_round_robin and gRPC's weighted_round_robin take it:
// https://github.com/grpc/proposal/blob/master/A51-custom-backend-metrics.md
// The load is the measured rate of requests over the capacity.
func reportLoad(capacity float64, now func() time.Time, h http.Handler) http.Handler {
	m := new(meter)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rate := m.count(now())
		w.Header().Set("endpoint-load-metrics", fmt.Sprintf("TEXT application_utilization=%g,rps_fractional=%g", rate/capacity, rate))
		h.ServeHTTP(w, r)
	})
}

// parseCapacity reads CAPACITY; 0 is that nothing is reported.
func parseCapacity(text string) (float64, error) {
	if text == "" {
		return 0, nil
	}
	c, err := strconv.ParseFloat(text, 64)
	if err != nil || !(c > 0) || math.IsInf(c, 0) {
		return 0, fmt.Errorf("CAPACITY=%q must be how many requests a second this server can carry, such as 100", text)
	}
	return c, nil
}
