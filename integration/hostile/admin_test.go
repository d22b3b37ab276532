package hostile_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailxds/tailxds/integration/hostile"
)

// adminClient asks the admin port from an address of loopback.
func adminClient(from string) *http.Client {
	dialer := hostile.From(from)
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
}

// post posts a body, and returns the status; 0 if there was none.
func post(ctx context.Context, client *http.Client, to string, body io.Reader) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, body)
	if err != nil {
		return 0, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

// proposal is a body of /diff with the text of a policy file.
func proposal(t *testing.T, policy string) string {
	t.Helper()
	text, err := json.Marshal(map[string]string{"policy": policy})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// services is the policy of so many services.
func services(n int) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range n {
		fmt.Fprintf(&b, "  s%d: {}\n", i)
	}
	return b.String()
}

// One request of 64 MiB of empty devices took 5.4 GB.
func TestDiff_hugeBody_costsLittle(t *testing.T) {
	c := start(t, hostile.Options{})
	client := adminClient("127.0.0.1")
	cost := c.Measure(func() {
		for range 5 {
			body := io.MultiReader(strings.NewReader(`{"devices":[{}`), strings.NewReader(strings.Repeat(",{}", 20<<20)), strings.NewReader("]}"))
			if code, err := post(t.Context(), client, "http://"+c.Admin+"/diff", body); err == nil && code != http.StatusRequestEntityTooLarge {
				t.Errorf("status %d", code)
			}
			if code, err := post(t.Context(), client, "http://"+c.Admin+"/diff", strings.NewReader(`{"devices":[{}`+strings.Repeat(",{}", 300_000)+`]}`)); err != nil || code != http.StatusUnprocessableEntity {
				t.Errorf("within the size: status %d, %v", code, err)
			}
		}
	})
	cost.Check(t, hostile.Bound{Memory: 96 << 20, CPU: 5 * time.Second})
}

// 2 MiB of YAML stopped the loop for 5 s. While files are compared, operators are
// answered, and one file is compared at a time.
func TestDiff_costlyPolicies_delayNoOperator(t *testing.T) {
	c := start(t, hostile.Options{})
	body := proposal(t, services(1_000))
	ctx, cancel := context.WithCancel(t.Context())
	var compared, refused atomic.Int32
	var all sync.WaitGroup
	cost := c.Measure(func() {
		for n := range 8 {
			all.Go(func() {
				client := adminClient(fmt.Sprintf("127.1.0.%d", n+1))
				for ctx.Err() == nil {
					switch code, _ := post(ctx, client, "http://"+c.Admin+"/diff", strings.NewReader(body)); code {
					case http.StatusOK:
						compared.Add(1)
					case http.StatusServiceUnavailable:
						refused.Add(1)
					}
				}
			})
		}
		c.Await("a comparison", func() error {
			if compared.Load() == 0 {
				return fmt.Errorf("%d compared", compared.Load())
			}
			return nil
		})
		operator := adminClient("127.0.0.1")
		for range 5 {
			for _, command := range []string{"drain", "restore"} {
				began := time.Now()
				code, err := post(t.Context(), operator, "http://"+c.Admin+"/"+command+"?device=a&user=op", nil)
				if took := time.Since(began); err != nil || code != http.StatusOK || took > 3*time.Second {
					t.Errorf("%s: status %d, %v, after %v", command, code, err, took)
				}
			}
		}
		cancel()
		all.Wait()
	})
	t.Logf("%d compared, %d refused", compared.Load(), refused.Load())
	cost.Check(t, hostile.Bound{Memory: 256 << 20, CPU: time.Minute})
}

// Where nothing is edited, a large policy file costs nothing: it was parsed and
// built four times a second.
func TestPolicyFile_idle_costsNothing(t *testing.T) {
	c := start(t, hostile.Options{Policy: services(500)})
	cost := c.Measure(func() { time.Sleep(3 * time.Second) }) // that nothing happens can't be awaited
	cost.Check(t, hostile.Bound{Memory: 64 << 20, CPU: 400 * time.Millisecond})
}

// 64 invented services cost 63 % of a core, and took all places there were.
func TestLivePage_inventedServices_costLittleAndLeaveRoom(t *testing.T) {
	c := start(t, hostile.Options{Policy: services(200)})
	live := func(from, service string) (*bufio.Scanner, int) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+c.Admin+"/live?service="+url.QueryEscape(service), nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := adminClient(from).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = answer.Body.Close() })
		return bufio.NewScanner(answer.Body), answer.StatusCode
	}
	cost := c.Measure(func() {
		served := 0
		for n := range 100 {
			if events, code := live("127.1.0.1", fmt.Sprint("invented", n)); code == http.StatusOK {
				served++
				go func() {
					for events.Scan() {
					}
				}()
			}
		}
		if served != 64 {
			t.Errorf("one viewer has %d pages", served)
		}
		events, code := live("127.1.0.2", "server")
		if code != http.StatusOK {
			t.Fatalf("another viewer is told %d", code)
		}
		for ticks := 0; ticks < 4 && events.Scan(); { // four seconds
			if events.Text() == "event: tick" {
				ticks++
			}
		}
	})
	cost.Check(t, hostile.Bound{Memory: 64 << 20, CPU: time.Second})
}

// Connections that ask for nothing are bounded, and others are answered.
func TestAdmin_idleConnections_leaveRoomForOthers(t *testing.T) {
	c := start(t, hostile.Options{})
	cost := c.Measure(func() {
		closed := make(chan struct{}, 2_000)
		for range 1_000 {
			conn, err := hostile.From("127.1.0.1").DialContext(t.Context(), "tcp", c.Admin)
			if err != nil {
				closed <- struct{}{}
				continue
			}
			t.Cleanup(func() { _ = conn.Close() })
			go func(conn net.Conn) {
				if _, err := conn.Read(make([]byte, 1)); err != nil {
					closed <- struct{}{}
				}
			}(conn)
		}
		for range 700 {
			<-closed
		}
		if _, err := c.Get("/readyz"); err != nil {
			t.Errorf("others are not answered: %v", err)
		}
	})
	cost.Check(t, hostile.Bound{Memory: 64 << 20, CPU: 3 * time.Second})
}
