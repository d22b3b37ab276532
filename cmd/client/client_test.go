package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func call(ctx context.Context, terminal bool, args ...string) (code int, stdout, stderr string) {
	var out, errOut strings.Builder
	code = run(ctx, args, &out, &errOut, terminal)
	return code, out.String(), errOut.String()
}

// twoServers answers as two servers of weight 1 would.
func twoServers(t *testing.T) string {
	t.Helper()
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "Hello from west-%d! in west\n", n.Add(1)%2+1)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

const evenly = "Hello from west-1! in west: 50.0% (10)\nHello from west-2! in west: 50.0% (10)\nFailed: 0\n"

func TestRun_result_goesToStdout(t *testing.T) {
	code, out, errOut := call(t.Context(), false, twoServers(t), "20")
	if code != exitOK || out != evenly || errOut != "" {
		t.Errorf("exit %d, stdout\n%sstderr %q", code, out, errOut)
	}
}

func TestRun_terminal_showsProgressAndClearsIt(t *testing.T) {
	code, out, errOut := call(t.Context(), true, twoServers(t), "20")
	if code != exitOK || out != evenly {
		t.Errorf("exit %d, stdout\n%s", code, out)
	}
	if !strings.Contains(errOut, "\r20 of 20, 0 failed") || !strings.HasSuffix(errOut, "\r"+strings.Repeat(" ", len("20 of 20, 0 failed"))+"\r") {
		t.Errorf("stderr = %q, want progress that is wiped in the end", errOut)
	}
}

func TestRun_failures_areCountedAndExplained(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no healthy upstream", http.StatusServiceUnavailable)
	}))
	defer srv.Close()
	code, out, errOut := call(t.Context(), false, srv.URL, "5")
	if code != exitFailed || out != "Failed: 5\n" || errOut != "5 × 503 Service Unavailable: no healthy upstream\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errOut)
	}
}

func TestRun_interrupted_exits130(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code, out, errOut := call(ctx, false, twoServers(t), "20")
	if code != exitInterrupted || !strings.HasSuffix(out, "Failed: 0\n") || !strings.Contains(errOut, "stopped after") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errOut)
	}
}

func TestRun_invalidArguments_sayHow(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "write it like: client http://"},
		{[]string{"http://west-1/", "many"}, exitUsage, `"many" is not a number`},
		{[]string{"west-1:10000", "5"}, exitUsage, "write it like http://"},
		{[]string{"http://west-1/", "0"}, exitUsage, "must be 1 or more"},
		{[]string{"http://west-1/"}, exitUsage, "not 1 arguments"},
		{[]string{"-duration", "1s"}, exitUsage, "not 0 arguments"},
		{[]string{"-duration", "1s", "http://west-1/", "0"}, exitUsage, "must be 1 or more"},
		{[]string{"-rate", "0", "http://west-1/", "5"}, exitUsage, "write it like --rate 500"},
		{[]string{"-rate", "fast", "http://west-1/", "5"}, exitUsage, "write it like --rate 500"},
		{[]string{"-o", "xml", "http://west-1/", "5"}, exitUsage, "write -o json"},
		{[]string{"-expect", "west", "http://west-1/", "5"}, exitUsage, "write it like west=33±5"},
		{[]string{"-fast", "http://west-1/", "5"}, exitUsage, "client -help"},
		{[]string{"-help"}, exitOK, "usage: client [flags] URL [N]"},
	} {
		code, out, errOut := call(t.Context(), false, c.args...)
		if code != c.code || out != "" || !strings.Contains(errOut, c.want) {
			t.Errorf("client %v: exit %d, stdout %q, stderr %q; want exit %d and %q", c.args, code, out, errOut, c.code, c.want)
		}
		if c.code == exitUsage && strings.Count(errOut, "\n") != 1 {
			t.Errorf("client %v: error is not one line: %q", c.args, errOut)
		}
	}
}

func TestRun_expectations_setTheExitStatus(t *testing.T) {
	url := twoServers(t)
	code, out, errOut := call(t.Context(), false, "--expect", "west-1=50±1", "--expect", "west=100+-0", url, "20")
	if code != exitOK || out != evenly || errOut != "" {
		t.Errorf("exit %d, stdout\n%sstderr %q", code, out, errOut)
	}
	code, out, errOut = call(t.Context(), false, "--expect", "west-1=33±5", url, "20")
	if want := "client: west-1 has 50.0% of the answers, and 33±5 was expected\n"; code != exitUnexpected || out != evenly || errOut != want {
		t.Errorf("exit %d, stdout\n%sstderr %q", code, out, errOut)
	}
}

func TestRun_rate_tellsTheLatency(t *testing.T) {
	code, out, errOut := call(t.Context(), false, "--rate", "1000", "--duration", "20ms", twoServers(t))
	if code != exitOK || !strings.HasPrefix(out, evenly+"Latency: p50 ") || strings.Count(out, "\n") != 4 || errOut != "" {
		t.Errorf("exit %d, stdout\n%sstderr %q", code, out, errOut)
	}
}

func TestRun_json_isOneDocument(t *testing.T) {
	code, out, errOut := call(t.Context(), false, "-o", "json", "--expect", "west-1=33±5", twoServers(t), "20")
	var got struct {
		Answered int
		Expected []struct{ OK bool }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err, out)
	}
	if code != exitUnexpected || got.Answered != 20 || len(got.Expected) != 1 || got.Expected[0].OK || errOut == "" {
		t.Errorf("exit %d, %+v, stderr %q", code, got, errOut)
	}
}

func TestProgress_unknownTotal_showsTheCount(t *testing.T) {
	_, _, errOut := call(t.Context(), true, "--duration", "10ms", twoServers(t))
	if !strings.HasPrefix(errOut, "\r1, 0 failed") {
		t.Errorf("stderr = %q", errOut)
	}
}
