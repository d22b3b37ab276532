package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// fetchTimeout bounds one request from its start to the last byte of its
// answer, so that a server that hangs or drips costs one missed list.
const fetchTimeout = 30 * time.Second

// errDenied says that the credential was refused. Retrying soon does not help: an
// operator has to act.
var errDenied = errors.New("the credential was refused")

// apiError is an answer that is not a list. Its text holds no secret.
type apiError struct {
	status int
	text   string
	wait   time.Duration // what Retry-After asks for
}

func (e *apiError) Error() string { return e.text }

// RetryAfter is how long the server asks to wait; 0 if it does not ask.
func (e *apiError) RetryAfter() time.Duration { return e.wait }

// Is makes a refused credential an errDenied.
func (e *apiError) Is(target error) bool {
	return target == errDenied && (e.status == http.StatusUnauthorized || e.status == http.StatusForbidden)
}

// credential signs requests to an API.
type credential interface {
	// sign adds the credential to the request and returns the secrets in use,
	// so that they can be kept out of errors.
	sign(ctx context.Context, r *http.Request) (secrets []string, err error)
	// refused takes the Authorization that the API refused, and reports whether
	// another attempt can succeed.
	refused(authorization string) bool
}

// bearer is a fixed API key, sent as a bearer token.
type bearer struct{ key Secret }

func (b bearer) sign(_ context.Context, r *http.Request) ([]string, error) {
	key, err := b.key.Value()
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+key)
	return []string{key}, nil
}

func (bearer) refused(string) bool { return false }

// api reads JSON from one server. It accepts only a whole JSON document of bounded
// size with status 200.
type api struct {
	base *url.URL
	auth credential
	http *http.Client
	max  int64
	log  *slog.Logger
}

func newAPI(cfg Config, baseURL string, auth credential) (*api, error) {
	base, err := parseBase(baseURL)
	if err != nil {
		return nil, err
	}
	return &api{base: base, auth: auth, http: newHTTPClient(cfg), max: cfg.MaxBytes, log: cfg.Log}, nil
}

func newHTTPClient(cfg Config) *http.Client {
	return &http.Client{
		Transport: cfg.Transport,
		Timeout:   fetchTimeout,
		// A redirect is a wrong URL or a login page: following it would send
		// the credential on, or take a page of HTML for a list.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func parseBase(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return nil, errors.New("the API URL must look like https://headscale.example.com; set --api-url")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the API URL must hold no user, query or fragment; give credentials by --api-token or --client-id")
	}
	return u, nil
}

// get requests the JSON document at path and hands its body to read. It renews a
// refused credential and tries once more, where that is possible.
func (a *api) get(ctx context.Context, read func(io.Reader) error, path ...string) error {
	authorization, err := a.try(ctx, read, path)
	if errors.Is(err, errDenied) && a.auth.refused(authorization) {
		_, err = a.try(ctx, read, path)
	}
	return err
}

// try sends one request, and returns the Authorization that it was signed with.
func (a *api) try(ctx context.Context, read func(io.Reader) error, path []string) (authorization string, err error) {
	u := a.base.JoinPath(path...)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", fmt.Errorf("make a request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "tailxds")
	secrets, err := a.auth.sign(ctx, req)
	if err != nil {
		return "", err
	}
	authorization = req.Header.Get("Authorization")
	res, err := a.http.Do(req)
	if err != nil {
		return authorization, transportError(u, err, secrets)
	}
	defer func() { _ = res.Body.Close() }()
	if err := checkAnswer(res, u, secrets); err != nil {
		return authorization, err
	}
	body := &limitedReader{r: res.Body, left: a.max, max: a.max}
	if err := read(body); err != nil {
		return authorization, bodyError(u, err, body, secrets)
	}
	return authorization, nil
}

// transportError names the URL that could not be reached. It keeps only the text of
// the cause, without secrets; a canceled context stays visible.
func transportError(u *url.URL, err error, secrets []string) error {
	var inner *url.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return &redactedError{
		text:  fmt.Sprintf("get %s: %s", u.Redacted(), redact(err.Error(), secrets...)),
		cause: contextCause(err),
	}
}

func bodyError(u *url.URL, err error, body *limitedReader, secrets []string) error {
	if body.over {
		err = fmt.Errorf("the answer is larger than %d bytes; nothing of it is used", body.max)
	} else if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = fmt.Errorf("the answer ended early: %w", err)
	}
	return &redactedError{
		text:  fmt.Sprintf("read %s: %s", u.Redacted(), redact(err.Error(), secrets...)),
		cause: contextCause(err),
	}
}

// redactedError is an error of which only the text is kept, without secrets.
type redactedError struct {
	text  string
	cause error // only ever an error of package context
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.cause }

func contextCause(err error) error {
	for _, known := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return known
		}
	}
	return nil
}

// checkAnswer refuses every answer but JSON with status 200.
func checkAnswer(res *http.Response, u *url.URL, secrets []string) error {
	e := &apiError{status: res.StatusCode}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	where := u.Redacted()
	switch code := res.StatusCode; {
	case code == http.StatusOK && isJSON(kind) && !hasNextPage(res):
		return nil
	case code == http.StatusOK && isJSON(kind):
		e.text = fmt.Sprintf("get %s: its Link header says that there is a further page, and tailxds reads lists of one page only", where)
	case code == http.StatusOK:
		e.text = fmt.Sprintf("get %s: the answer is %q and not JSON; is this the API, or a page before it?", where, kind)
	case code >= 300 && code < 400:
		e.text = fmt.Sprintf("get %s: redirected to %s, which is not followed; set --api-url to the API itself",
			where, redirectTarget(res))
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		e.text = fmt.Sprintf("get %s: %s: the API token or OAuth client is expired, revoked or lacks the scope to list devices%s",
			where, res.Status, serverMessage(res))
	default:
		e.text = fmt.Sprintf("get %s: %s%s", where, res.Status, serverMessage(res))
	}
	if res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable {
		e.retryAfter(res.Header.Get("Retry-After"), time.Now())
	}
	e.text = redact(e.text, secrets...)
	return e
}

func isJSON(kind string) bool {
	return kind == "application/json" || (strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json"))
}

// hasNextPage reports whether a Link header points to a further page.
func hasNextPage(res *http.Response) bool {
	for _, link := range res.Header.Values("Link") {
		link = strings.ToLower(strings.ReplaceAll(link, " ", ""))
		if strings.Contains(link, `rel="next"`) || strings.Contains(link, "rel=next") {
			return true
		}
	}
	return false
}

// redirectTarget returns where a redirect leads, without the query, which may hold a
// one-time login token.
func redirectTarget(res *http.Response) string {
	u, err := res.Location()
	if err != nil {
		return "nowhere"
	}
	u.RawQuery, u.Fragment = "", ""
	return u.Redacted()
}

// serverMessage returns the message of the server's error, on one short line.
func serverMessage(res *http.Response) string {
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if !isJSON(kind) {
		return ""
	}
	var problem struct{ Message, Detail, Title string }
	if json.NewDecoder(io.LimitReader(res.Body, 4<<10)).Decode(&problem) != nil {
		return ""
	}
	for _, text := range []string{problem.Message, problem.Detail, problem.Title} {
		if text = strings.Join(strings.Fields(text), " "); text != "" {
			return ": " + strconv.QuoteToGraphic(truncate(text, 200))
		}
	}
	return ""
}

func truncate(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// maxRetryAfter bounds how long a wrong Retry-After keeps the control plane from
// seeing changes.
const maxRetryAfter = 2 * time.Minute

// retryAfter stores how long the server asks to wait, and adds that to the text.
func (e *apiError) retryAfter(header string, now time.Time) {
	asked := parseRetryAfter(header, now)
	e.wait = min(asked, maxRetryAfter)
	switch {
	case asked > maxRetryAfter:
		e.text += fmt.Sprintf("; the server asks to wait for %s, and tailxds retries after %s", asked.Round(time.Second), maxRetryAfter)
	case asked > 0:
		e.text += fmt.Sprintf("; the server asks to wait for %s", asked.Round(time.Second))
	}
}

// parseRetryAfter parses a Retry-After, which holds seconds or a date.
func parseRetryAfter(header string, now time.Time) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = at.Sub(now)
	}
	return max(wait, 0)
}

// limitedReader reads at most left bytes, and then fails instead of ending, so that
// a cut answer is never taken for a short one.
type limitedReader struct {
	r         io.Reader
	left, max int64
	over      bool
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		// Only a byte beyond the limit is too many.
		var one [1]byte
		n, err := l.r.Read(one[:])
		if n > 0 {
			l.over = true
			return 0, errors.New("answer too large")
		}
		return 0, err
	}
	if int64(len(p)) > l.left {
		p = p[:l.left]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	return n, err
}
