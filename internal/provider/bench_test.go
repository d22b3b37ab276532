package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// large is the size that must not hurt.
const large = 10_000

// answerOf is a list of n devices with the fields that its API sends.
func answerOf(name string, n int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `{%q:[`, apis()[name])
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		ip := fmt.Sprintf("100.%d.%d.%d", 64+i>>16, i>>8&255, i&255)
		if name == Headscale {
			fmt.Fprintf(&b, `{"id":"%d","machineKey":"mkey:%064d","nodeKey":"nodekey:%064d","discoKey":"discokey:%064d","ipAddresses":[%q,"fd7a:115c:a1e0::%x"],`+
				`"name":"server-%d","user":{"id":"1","name":"ops","createdAt":"2026-01-01T00:00:00Z"},"lastSeen":"2026-11-23T12:00:00.123456789Z","expiry":null,`+
				`"preAuthKey":null,"createdAt":"2026-01-01T00:00:00Z","registerMethod":"REGISTER_METHOD_AUTH_KEY","givenName":"server-%d","online":true,`+
				`"approvedRoutes":[],"availableRoutes":[],"subnetRoutes":[],"tags":["tag:weight-1","tag:service-s%d","tag:region-west"]}`, i, i, i, i, ip, i, i, i, i%100)
			continue
		}
		fmt.Fprintf(&b, `{"addresses":[%q,"fd7a:115c:a1e0::%x"],"id":"%d","nodeId":"n%dCNTRL","user":"ops@example.com","name":"server-%d.tail-scale.ts.net",`+
			`"hostname":"server-%d","clientVersion":"1.102.5-t0123456789-gabcdef","updateAvailable":false,"os":"linux","created":"2026-01-01T00:00:00Z",`+
			`"connectedToControl":true,"lastSeen":"2026-11-23T12:00:00Z","expires":"2027-05-23T12:00:00Z","keyExpiryDisabled":false,"authorized":true,`+
			`"isExternal":false,"machineKey":"mkey:%064d","nodeKey":"nodekey:%064d","blocksIncomingConnections":false,"tags":["tag:server","tag:owner-s%d"],`+
			`"tailnetLockError":"","tailnetLockKey":"nlpub:%064d"}`, ip, i, i, i, i, i, i, i, i%100, i)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// served answers every request with the same document.
func served(body []byte) transport {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(bytes.NewReader(body)), Request: r,
		}, nil
	}
}

func openLarge(tb testing.TB, name string, body []byte) Source {
	src, _, err := Open(Config{Provider: name, APIURL: "https://hs.example", APIToken: "key", Transport: served(body), Log: quiet()})
	if err != nil {
		tb.Fatal(err)
	}
	return src
}

// bare decodes the same fields of the same document with encoding/json alone.
func bare(tb testing.TB, name string, body []byte) {
	var err error
	if name == Headscale {
		var all struct{ Nodes []headscaleNode }
		err = json.Unmarshal(body, &all)
	} else {
		var all struct{ Devices []tailscaleDevice }
		err = json.Unmarshal(body, &all)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// ratio times ours and the bare thing in turns, so that whatever else the
// machine does slows both, and reports ours over bare.
func ratio(b *testing.B, ours, bare func()) {
	var o, r time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		bare()
		middle := time.Now()
		ours()
		r, o = r+middle.Sub(start), o+time.Since(middle)
	}
	b.ReportMetric(float64(o)/float64(r), "x-bare")
	b.ReportMetric(1000*o.Seconds()/float64(b.N), "ms")
}

// BenchmarkList_tenThousandDevices lists 10,000 devices beside bare JSON decoding.
func BenchmarkList_tenThousandDevices(b *testing.B) {
	for name := range apis() {
		b.Run(name, func(b *testing.B) {
			body := answerOf(name, large)
			src := openLarge(b, name, body)
			b.SetBytes(int64(len(body)))
			ratio(b, func() {
				if devices, err := src.List(b.Context()); err != nil || len(devices) != large {
					b.Fatal(len(devices), err)
				}
			}, func() { bare(b, name, body) })
		})
	}
}

// A large list is read in memory that its devices need, not its document.
func TestList_tenThousandDevices_keepsLittle(t *testing.T) {
	for name := range apis() {
		body := answerOf(name, large)
		src := openLarge(t, name, body)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		devices, err := src.List(t.Context())
		runtime.GC()
		runtime.ReadMemStats(&after)
		if err != nil || len(devices) != large {
			t.Fatalf("%s: %d devices, %v", name, len(devices), err)
		}
		kept := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		if perDevice := kept / large; perDevice > 1024 {
			t.Errorf("%s: %d bytes kept for a device, of a document with %d", name, perDevice, len(body)/large)
		}
		runtime.KeepAlive(devices)
		runtime.KeepAlive(body)
	}
}

// One device more than fits is too many: nothing of the list is used.
func TestList_oneByteTooMany_isAnError(t *testing.T) {
	body := answerOf(Headscale, 1000)
	open := func(limit int) Source {
		src, _, err := Open(Config{
			Provider: Headscale, APIURL: "https://hs.example", APIToken: "key",
			Transport: served(body), MaxBytes: int64(limit), Log: quiet(),
		})
		if err != nil {
			t.Fatal(err)
		}
		return src
	}
	if devices, err := open(len(body)).List(t.Context()); err != nil || len(devices) != 1000 {
		t.Errorf("just fits: %d, %v", len(devices), err)
	}
	if devices, err := open(len(body) - 1).List(t.Context()); err == nil || devices != nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a byte too many: %d, %v", len(devices), err)
	}
}
