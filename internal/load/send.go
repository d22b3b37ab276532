package load

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// maxBody is how much of an answer counts as its text, in bytes.
const maxBody = 64 << 10

// newClient keeps at most one connection a worker, and uses no proxy: what is
// measured is the named address.
func newClient(opts Options) (client *http.Client, closeIdle func()) {
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: opts.Timeout}).DialContext,
		TLSHandshakeTimeout: opts.Timeout,
		MaxIdleConns:        opts.Concurrency,
		MaxIdleConnsPerHost: opts.Concurrency,
		MaxConnsPerHost:     opts.Concurrency,
	}
	if opts.dial != nil {
		transport.DialContext = opts.dial
	}
	return &http.Client{Transport: transport, Timeout: opts.Timeout}, transport.CloseIdleConnections
}

// outcome is one request's end: an answer, or the reason why there is none, and
// how long that took.
type outcome struct {
	answer, reason string
	took           time.Duration
}

func send(ctx context.Context, client *http.Client, target string) outcome {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return outcome{reason: oneLine(err.Error())}
	}
	resp, err := client.Do(req)
	if err != nil {
		return outcome{reason: oneLine(reason(err))}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return outcome{reason: oneLine("reading the answer: " + reason(err))}
	}
	text := oneLine(string(body))
	if resp.StatusCode/100 != 2 {
		return outcome{reason: oneLine(strings.TrimSuffix(resp.Status+": "+text, ": "))}
	}
	return outcome{answer: text}
}

// reason takes off what differs from request to request, as the URL and the
// local port do, so that equal failures are counted as one.
func reason(err error) string {
	var ue *url.Error
	if errors.As(err, &ue) {
		if ue.Timeout() {
			return "timed out"
		}
		err = ue.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op != "dial" {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// maxLine is how much of a text the report shows, in characters.
const maxLine = 200

// oneLine keeps each text on one line of the report, and from doing anything to
// the terminal that shows it: it comes from whoever answered.
func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\ufffd"), unicode.IsSpace), " ")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxLine {
		return string(r[:maxLine]) + "…"
	}
	return s
}
