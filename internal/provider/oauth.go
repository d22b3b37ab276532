package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// oauth signs with an access token that it mints from an OAuth client, an hour
// at a time.
type oauth struct {
	id, secret Secret
	tokenURL   string
	http       *http.Client

	mu    sync.Mutex
	token *oauth2.Token
}

func newOAuth(cfg Config, baseURL string) (*oauth, error) {
	base, err := parseBase(baseURL)
	if err != nil {
		return nil, err
	}
	return &oauth{
		id: cfg.ClientID, secret: cfg.ClientSecret,
		tokenURL: base.JoinPath("api/v2/oauth/token").String(),
		http:     newHTTPClient(cfg),
	}, nil
}

func (o *oauth) sign(ctx context.Context, r *http.Request) ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	secret, err := o.secret.Value()
	if err != nil {
		return nil, err
	}
	if !o.token.Valid() {
		if o.token, err = o.mint(ctx, secret); err != nil {
			return nil, err
		}
	}
	o.token.SetAuthHeader(r)
	return []string{secret, o.token.AccessToken}, nil
}

// refused forgets the token, so that the next request mints another; unless
// another request has done so since.
func (o *oauth) refused(authorization string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.token != nil && authorization == o.token.Type()+" "+o.token.AccessToken {
		o.token = nil
	}
	return authorization != "" // a client that can't even mint is not helped by another try
}

func (o *oauth) mint(ctx context.Context, secret string) (*oauth2.Token, error) {
	id, err := o.id.Value()
	if err != nil {
		return nil, err
	}
	client := clientcredentials.Config{ClientID: id, ClientSecret: secret, TokenURL: o.tokenURL}
	token, err := client.Token(context.WithValue(ctx, oauth2.HTTPClient, o.http))
	if err != nil {
		return nil, o.tokenError(err, secret)
	}
	return token, nil
}

// tokenError returns the error of the token endpoint. An OAuth error code is short
// and fixed by the standard; the body around it is not passed on.
func (o *oauth) tokenError(err error, secret string) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) || answer.Response == nil {
		return &redactedError{
			text:  fmt.Sprintf("post %s: %s", o.tokenURL, redact(truncate(err.Error(), 300), secret)),
			cause: contextCause(err),
		}
	}
	res := answer.Response
	e := &apiError{status: res.StatusCode, text: fmt.Sprintf("post %s: %s", o.tokenURL, res.Status)}
	if answer.ErrorCode != "" {
		e.text += fmt.Sprintf(": %q", truncate(answer.ErrorCode, 60))
	}
	if code := res.StatusCode; code == http.StatusBadRequest && answer.ErrorCode == "invalid_client" {
		e.status = http.StatusUnauthorized // some servers answer 400 for it
	}
	if e.Is(errDenied) {
		e.text += ": the OAuth client is revoked, or its ID or secret is wrong"
	}
	e.retryAfter(res.Header.Get("Retry-After"), time.Now())
	e.text = redact(e.text, secret)
	return e
}
