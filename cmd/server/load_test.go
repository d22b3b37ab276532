package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestTheMeterFollowsTheRate(t *testing.T) {
	var m meter
	at := time.Unix(1000, 0)
	var rate float64
	at = at.Add(time.Second)
	for range 300 { // 100 a second for three seconds
		rate = m.count(at)
		at = at.Add(10 * time.Millisecond)
	}
	if rate < 99 || rate > 101 {
		t.Errorf("100 a second are measured as %v", rate)
	}
	for range 20 { // 10 a second for two
		at = at.Add(100 * time.Millisecond)
		rate = m.count(at)
	}
	if rate < 9 || rate > 12 {
		t.Errorf("10 a second are measured as %v", rate)
	}
	if rate = m.count(at.Add(time.Hour)); rate != 1 {
		t.Errorf("after a long time without requests: %v", rate)
	}
}

func TestAnAnswerTellsTheLoad(t *testing.T) {
	now := func() time.Time { return time.Unix(1000, 0) }
	h := reportLoad(200, now, newHandler("a", "", log.New(io.Discard, "", 0)))
	for n := 1; n <= 3; n++ {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		want := fmt.Sprintf("TEXT application_utilization=%g,rps_fractional=%d", float64(n)/200, n)
		if got := w.Header().Get("endpoint-load-metrics"); got != want || !strings.Contains(w.Body.String(), "from a") {
			t.Errorf("got %q and %q, want %q", got, w.Body, want)
		}
	}
}

func TestCapacityMustBeMeant(t *testing.T) {
	for _, text := range []string{"many", "0", "-1", "NaN", "+Inf", "1e999"} {
		env := func(name string) string { return map[string]string{"HOST": "a", "CAPACITY": text}[name] }
		if err := run(context.Background(), nil, env, io.Discard); err == nil || !strings.Contains(err.Error(), "CAPACITY") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if c, err := parseCapacity("2.5"); err != nil || c != 2.5 {
		t.Errorf("2.5: %v, %v", c, err)
	}
	if c, err := parseCapacity(""); err != nil || c != 0 {
		t.Errorf("none: %v, %v", c, err)
	}
}
