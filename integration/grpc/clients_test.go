package grpcclients

import (
	"cmp"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/harness"
	"github.com/tailxds/tailxds/integration/shares"
)

const policy = `
services:
  hello: {protocol: grpc}
  routed:
    protocol: grpc
    routes:
    - {headers: {x-to: unknown}, service: nobody}
    - {headers: {x-to: plain}, service: plain}
    - {headers: {x-to: idle}, service: idle}
    - {path: /acme.Shop/Beta, service: hello}
  plain: {protocol: http1}
  idle: {protocol: grpc}
  loaded: {protocol: grpc, load_balancing: client_side_weighted_round_robin, locality: local}
  backup: {protocol: grpc, load_balancing: client_side_weighted_round_robin}
`

// gRPC clients of four languages, each a process that calls through all of this.
func TestGRPCClients_eachLanguage_balances(t *testing.T) {
	w := newWorld(t, policy)
	w.serve("a", "tag:service-hello", "tag:weight-1", "tag:region-west")
	w.serve("b", "tag:service-hello", "tag:weight-1", "tag:region-west")
	w.serve("c", "tag:service-hello", "tag:weight-2", "tag:region-east")
	w.serve("routed-1", "tag:service-routed")
	w.serve("plain-1", "tag:service-plain")
	w.serve("near", "tag:service-loaded", "tag:region-west")
	w.serve("far", "tag:service-loaded", "tag:region-east")
	w.serve("first", "tag:service-backup", "tag:region-west", "tag:priority-0")
	w.serve("second", "tag:service-backup", "tag:region-west", "tag:priority-1")
	w.control.Start()
	w.connect("west", "go", "python", "node", "java")

	w.Step("shares_weights_exact", func() { w.follow(shares.Shares{"a": 1, "b": 1, "c": 2}, 0, func() {}) })
	w.Step("weight_changed_sharesFollow", func() {
		w.follow(shares.Shares{"a": 3, "b": 1, "c": 2}, 0, func() { w.tag("a", "tag:weight-", "tag:weight-3") })
	})
	w.Step("server_drained_noCall", func() {
		w.follow(shares.Shares{"a": 3, "b": 1}, 0, func() { w.control.Operate("drain", "c") })
		w.follow(shares.Shares{"a": 3, "b": 1, "c": 2}, 0, func() { w.control.Operate("restore", "c") })
	})
	w.Step("server_removed_noCall", func() {
		var b harness.Device
		w.follow(shares.Shares{"a": 3, "c": 2}, 0, func() { b = w.unlist("b") })
		w.follow(shares.Shares{"a": 3, "b": 1, "c": 2}, 0, func() { w.list(b) })
	})
	w.Step("controlPlane_killed_callsGoOn", func() {
		w.follow(shares.Shares{"a": 3, "b": 1, "c": 2}, 0, w.control.Stop)
		w.follow(shares.Shares{"a": 1, "b": 1, "c": 2}, 0, func() {
			w.control.Start()
			w.tag("a", "tag:weight-", "tag:weight-1")
		})
	})
	// The call that it was just answering is the application's to repeat.
	w.Step("server_killed_othersTakeOver", func() {
		w.follow(shares.Shares{"a": 1, "c": 2}, 1, w.servers["b"].Stop)
	})

	w.Step("ruleToUnreachable_freshClient_onlyMatchedCallsFail", w.rules)
	w.Step("byLoad_severalPriorities_firstThenNext", w.byLoad)
	w.Step("nothing_rejected", w.rejectedNothing)
}

// expectation is an order, and who is to answer how many of its calls; by no name are
// those that are to fail with UNAVAILABLE.
type expectation struct {
	Order
	want map[string]int
}

// holds has a client carry out orders up to the first that goes wrong.
func holds(c *Client, all ...expectation) error {
	for _, e := range all {
		o := e.Order
		for _, n := range e.want {
			o.Calls += n
		}
		o.Method, o.Timeout, o.Within = cmp.Or(o.Method, anyMethod), 5, 10
		if o.Fresh {
			o.Timeout = 60 // it learns all of the control plane first
		}
		a, err := c.Do(o)
		if err != nil {
			return err
		}
		got := maps.Clone(a.Counts)
		for reason, n := range a.Errors {
			if code, _, _ := strings.Cut(reason, ": "); strings.EqualFold(code, "unavailable") {
				got[""] += n
			}
		}
		if !maps.Equal(got, e.want) {
			return fmt.Errorf("%+v: answered by %v, want %v; errors: %v", o, got, e.want, a.Errors)
		}
	}
	return nil
}

// rules has each client find a service whose rules name what gRPC can't reach.
func (w *world) rules() {
	fails, answered := map[string]int{"": 10}, map[string]int{"routed-1": 10}
	to := func(name string, want map[string]int) expectation {
		return expectation{Order{Target: "routed", Headers: map[string]string{"x-to": name}}, want}
	}
	w.each(func(c *Client) error {
		return holds(c,
			expectation{Order{Target: "routed", Fresh: true}, map[string]int{"routed-1": 1}},
			to("unknown", fails), to("plain", fails), to("idle", fails), to("else", answered),
			expectation{Order{Target: "routed", Method: "/acme.shop/beta"}, answered}, // paths have a case
		)
	})
	status, err := w.control.Get("/status")
	if err != nil {
		w.T().Fatal(err)
	}
	for _, want := range []string{"no device serves nobody", "plain has protocol: http1"} {
		if !strings.Contains(status, want) {
			w.T().Errorf("/status has no problem with %q: %s", want, status)
		}
	}
	// One that comes is called, by the clients that know it as empty.
	w.serve("idle-1", "tag:service-idle")
	w.each(func(c *Client) error { return holdsSoon(c, to("idle", map[string]int{"idle-1": 10})) })
}

// byLoad has each client find services that are balanced by load, with the same
// region's name, or none, at several priorities.
func (w *world) byLoad() {
	by := func(target, name string, n int) expectation {
		return expectation{Order{Target: target, Fresh: n == 1}, map[string]int{name: n}}
	}
	w.each(func(c *Client) error {
		return holds(c, by("loaded", "near", 1), by("loaded", "near", 50), by("backup", "first", 1), by("backup", "first", 50))
	})
	w.servers["near"].Stop()
	w.servers["first"].Stop()
	w.each(func(c *Client) error { return holdsSoon(c, by("loaded", "far", 50), by("backup", "second", 50)) })
}

// holdsSoon is holds of what may take its time.
func holdsSoon(c *Client, all ...expectation) error {
	deadline := time.Now().Add(patience / 2)
	for {
		err := holds(c, all...)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// rejectedNothing looks whether a client rejected what it was sent.
func (w *world) rejectedNothing() {
	metrics, err := w.control.Get("/metrics")
	if err != nil {
		w.T().Fatal(err)
	}
	acks := 0
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "tailxds_xds_events_total") && strings.Contains(line, `result="nack"`) && !strings.HasSuffix(line, " 0\n") {
			w.T().Errorf("rejected: %s", line)
		}
		if strings.HasPrefix(line, "tailxds_xds_events_total") && strings.Contains(line, `result="ack"`) {
			acks++
		}
	}
	if acks == 0 {
		w.T().Errorf("no client accepted anything: %s", metrics)
	}
}
