package grpcclients

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tailxds/tailxds/integration/shares"
)

const anyMethod = "/acme.Shop/Get"

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
func TestClients(t *testing.T) {
	w := newWorld(t)
	w.serve("a", "tag:service-hello", "tag:weight-1", "tag:region-west")
	w.serve("b", "tag:service-hello", "tag:weight-1", "tag:region-west")
	w.serve("c", "tag:service-hello", "tag:weight-2", "tag:region-east")
	w.serve("routed-1", "tag:service-routed")
	w.serve("plain-1", "tag:service-plain")
	w.serve("near", "tag:service-loaded", "tag:region-west")
	w.serve("far", "tag:service-loaded", "tag:region-east")
	w.serve("first", "tag:service-backup", "tag:region-west", "tag:priority-0")
	w.serve("second", "tag:service-backup", "tag:region-west", "tag:priority-1")
	w.run(policy)
	w.connect("west", "go", "python", "node", "java")

	w.step("shares_weights_exact", func() { w.follow(shares.Shares{"a": 1, "b": 1, "c": 2}, 0, func() {}) })
	w.step("weight_changed_sharesFollow", func() {
		w.follow(shares.Shares{"a": 3, "b": 1, "c": 2}, 0, func() { w.tag("a", "tag:weight-", "tag:weight-3") })
	})
	w.step("server_drained_noCall", func() {
		w.follow(shares.Shares{"a": 3, "b": 1}, 0, func() { w.tailxds("drain", "c") })
		w.follow(shares.Shares{"a": 3, "b": 1, "c": 2}, 0, func() { w.tailxds("restore", "c") })
	})
	w.step("server_removed_noCall", func() {
		var b device
		w.follow(shares.Shares{"a": 3, "c": 2}, 0, func() { b = w.unlist("b") })
		w.follow(shares.Shares{"a": 3, "b": 1, "c": 2}, 0, func() { w.list(b) })
	})
	w.step("controlPlane_killed_callsGoOn", func() {
		w.follow(shares.Shares{"a": 3, "b": 1, "c": 2}, 0, w.kill)
		w.follow(shares.Shares{"a": 1, "b": 1, "c": 2}, 0, func() {
			w.run(policy)
			w.tag("a", "tag:weight-", "tag:weight-1")
		})
	})
	// The call that it was just answering is the application's to repeat.
	w.step("server_killed_othersTakeOver", func() {
		w.follow(shares.Shares{"a": 1, "c": 2}, 1, w.servers["b"].Stop)
	})

	w.step("ruleToUnreachable_freshClient_onlyMatchedCallsFail", w.rules)
	w.step("byLoad_severalPriorities_firstThenNext", w.byLoad)
	w.step("nothing_rejected", w.rejectedNothing)
}

// answers orders calls and compares who answers them; by no name are those that fail
// with UNAVAILABLE.
func answers(c *Client, o Order, want map[string]int) error {
	for _, n := range want {
		o.Calls += n
	}
	o.Method, o.Timeout = cmpOr(o.Method, anyMethod), 20
	a, err := c.Do(o)
	if err != nil {
		return err
	}
	got := maps.Clone(a.Counts)
	for reason, n := range a.Errors {
		if code, _, _ := strings.Cut(reason, ": "); !strings.EqualFold(code, "unavailable") {
			return fmt.Errorf("%+v: %s", o, reason)
		}
		got[""] += n
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("%+v: answered by %v, want %v; errors: %v", o, got, want, a.Errors)
	}
	return nil
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// rules has each client find a service whose rules name what gRPC can't reach.
func (w *world) rules() {
	const n = 20
	w.each(func(c *Client) error {
		to := func(name string) map[string]string { return map[string]string{"x-to": name} }
		return errors.Join(
			answers(c, Order{Target: "routed", Fresh: true}, map[string]int{"routed-1": n}),
			answers(c, Order{Target: "routed", Headers: to("unknown")}, map[string]int{"": n}),
			answers(c, Order{Target: "routed", Headers: to("plain")}, map[string]int{"": n}),
			answers(c, Order{Target: "routed", Headers: to("idle")}, map[string]int{"": n}),
			answers(c, Order{Target: "routed", Headers: to("else")}, map[string]int{"routed-1": n}),
			answers(c, Order{Target: "routed", Method: "/acme.shop/beta"}, map[string]int{"routed-1": n}), // paths have a case
		)
	})
	status, err := w.page("/status")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, want := range []string{"no device serves nobody", "plain has protocol: http1"} {
		if !strings.Contains(status, want) {
			w.t.Errorf("/status has no problem with %q: %s", want, status)
		}
	}
	// A service that comes has its calls, without a new client.
	w.serve("nobody-1", "tag:service-nobody")
	w.each(func(c *Client) error {
		return answers(c, Order{Target: "routed", Headers: map[string]string{"x-to": "unknown"}}, map[string]int{"": n}) // by the policy it speaks no gRPC
	})
}

// byLoad has each client find services that are balanced by load, with the same
// region's name, or none, at several priorities.
func (w *world) byLoad() {
	const n = 50
	w.each(func(c *Client) error {
		return errors.Join(
			answers(c, Order{Target: "loaded", Fresh: true}, map[string]int{"near": n}),
			answers(c, Order{Target: "backup", Fresh: true}, map[string]int{"first": n}),
		)
	})
	w.servers["near"].Stop()
	w.servers["first"].Stop()
	w.await("the next priority takes over", func() error {
		errs := make(chan error, 2*len(w.clients))
		w.each(func(c *Client) error {
			errs <- errors.Join(answers(c, Order{Target: "loaded"}, map[string]int{"far": n}), answers(c, Order{Target: "backup"}, map[string]int{"second": n}))
			return nil
		})
		close(errs)
		return errors.Join(slices.Collect(func(yield func(error) bool) {
			for err := range errs {
				if !yield(err) {
					return
				}
			}
		})...)
	})
}

// rejectedNothing looks whether a client rejected what it was sent.
func (w *world) rejectedNothing() {
	metrics, err := w.page("/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	acks := 0
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "tailxds_xds_events_total") && strings.Contains(line, `result="nack"`) && !strings.HasSuffix(line, " 0\n") {
			w.t.Errorf("rejected: %s", line)
		}
		if strings.HasPrefix(line, "tailxds_xds_events_total") && strings.Contains(line, `result="ack"`) {
			acks++
		}
	}
	if acks == 0 {
		w.t.Errorf("no client accepted anything: %s", metrics)
	}
}
