package provider

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
)

// Whatever an API sends within the size that is read, a list keeps little of it.
// 45 MiB of small devices kept 980 MB.
func TestList_hostileAPI_keepsLittle(t *testing.T) {
	const maxKept = 64 << 20
	repeat := func(w io.Writer, size int, begin, each, end string) {
		_, _ = io.WriteString(w, begin)
		each = strings.Repeat(each, 1000)
		for sent := 0; sent < size; sent += len(each) {
			if _, err := io.WriteString(w, each); err != nil {
				return // it was read no further
			}
		}
		_, _ = io.WriteString(w, end)
	}
	for name, test := range map[string]struct{ begin, each, end, want string }{
		"devices":   {`{"nodes":[{"id":0}`, `,{"id":1}`, `]}`, "more than 50000 devices"},
		"tags":      {`{"nodes":[{"id":1,"tags":[""`, `,""`, `]}]}`, "is larger than 65536 bytes"},
		"few tags":  {`{"nodes":[{"id":1}`, `,{"id":1,"tags":[` + strings.Repeat(`"",`, 255) + `""]}`, `]}`, "more than 1000000 tags and addresses"},
		"addresses": {`{"nodes":[{"id":1}`, `,{"id":1,"ipAddresses":[` + strings.Repeat(`"",`, 40) + `""]}`, `]}`, "more than 256 tags or 32 addresses"},
		"unknown":   {`{"other":[{"id":1}`, `,{"id":1}`, `]}`, `no "nodes"`},
		"deep":      {`{"nodes":`, `[`, ``, "exceeded max depth"},
		"endless":   {`{"nodes":[`, strings.Repeat(" ", 5600), ``, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			size := 9 << 20
			if name == "devices" {
				size = 45 << 20
			}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				repeat(w, size, test.begin, test.each, test.end)
			}))
			defer server.Close()
			src, _, err := Open(Config{Provider: Headscale, APIURL: server.URL, APIToken: Secret("x"), Log: quiet(), MaxBytes: int64(size) + 1<<20})
			if err != nil {
				t.Fatal(err)
			}
			kept := heap()
			devices, err := src.List(t.Context())
			kept = heap() - kept
			if err == nil || !strings.Contains(err.Error(), test.want) || len(devices) > 0 {
				t.Errorf("%d devices, %.300v; want %s", len(devices), err, test.want)
			}
			if kept > maxKept {
				t.Errorf("it keeps %d MB", kept>>20)
			}
			runtime.KeepAlive(devices)
			runtime.KeepAlive(src)
		})
	}
}

// As many devices as are read, each with what a device has, cost what they hold.
func TestList_asManyDevicesAsAllowed_isTaken(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"nodes":[`)
		for i := range maxDevices {
			if i > 0 {
				_, _ = io.WriteString(w, ",")
			}
			_, _ = fmt.Fprintf(w, `{"id":"%d","givenName":"d%d","ipAddresses":["100.64.0.1","fd7a::1"],"tags":["tag:a","tag:b"]}`, i, i)
		}
		_, _ = io.WriteString(w, `]}`)
	}))
	defer server.Close()
	src, _, err := Open(Config{Provider: Headscale, APIURL: server.URL, APIToken: Secret("x"), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if devices, err := src.List(t.Context()); err != nil || len(devices) != maxDevices {
		t.Errorf("%d devices, %v", len(devices), err)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
