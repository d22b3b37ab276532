package k8s

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"testing"
	"time"
)

// tailnet is the headscale server that joins the clusters, by its REST API.
type tailnet struct {
	api, key string
	login    string // its URL, as the pods see it
	ca       string // its certificate authority, PEM; empty if it is a public one
	domain   string // what its devices' names end with
	client   *http.Client
}

func openTailnet(t *testing.T) tailnet {
	t.Helper()
	n := tailnet{
		api: os.Getenv("K8S_HEADSCALE_API"), key: os.Getenv("K8S_HEADSCALE_API_KEY"),
		login: os.Getenv("K8S_HEADSCALE_URL"), domain: cmp.Or(os.Getenv("K8S_HEADSCALE_DOMAIN"), "tailnet.lab"),
	}
	if n.api == "" || n.key == "" || n.login == "" {
		t.Skip("K8S_HEADSCALE_URL, K8S_HEADSCALE_API and K8S_HEADSCALE_API_KEY are not set: run make k8s-test")
	}
	transport := &http.Transport{}
	if file := os.Getenv("K8S_HEADSCALE_CA"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("reading headscale's certificate authority: %v", err)
		}
		n.ca = string(pem)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		login, err := url.Parse(n.login)
		if err != nil {
			t.Fatalf("reading K8S_HEADSCALE_URL: %v", err)
		}
		// The tests may reach it by another name than that of its certificate.
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: login.Hostname()}
	}
	n.client = &http.Client{Transport: transport, Timeout: 10 * time.Second}
	return n
}

// device is a node as headscale lists it.
type device struct {
	ID        string   `json:"id"`
	Name      string   `json:"givenName"`
	Addresses []string `json:"ipAddresses"`
	Tags      []string `json:"tags"`
	Online    bool     `json:"online"`
}

func (d device) has(tag string) bool { return slices.Contains(d.Tags, tag) }

func (n tailnet) devices(ctx context.Context) ([]device, error) {
	var answer struct{ Nodes []device }
	err := n.call(ctx, http.MethodGet, "/api/v1/node", nil, &answer)
	return answer.Nodes, err
}

// device finds the one of that name.
func (n tailnet) device(ctx context.Context, name string) (device, error) {
	devices, err := n.devices(ctx)
	if err != nil {
		return device{}, err
	}
	at := slices.IndexFunc(devices, func(d device) bool { return d.Name == name })
	if at < 0 {
		return device{}, fmt.Errorf("the tailnet has no device %s: %v", name, devices)
	}
	return devices[at], nil
}

func (n tailnet) remove(ctx context.Context, d device) error {
	return n.call(ctx, http.MethodDelete, "/api/v1/node/"+d.ID, nil, &struct{}{})
}

// mint makes an auth key whose devices get these tags.
func (n tailnet) mint(t *testing.T, ephemeral bool, tags ...string) string {
	t.Helper()
	request := map[string]any{
		"reusable": true, "ephemeral": ephemeral, "aclTags": tags,
		"expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	}
	var answer struct {
		PreAuthKey struct{ Key string }
	}
	if err := n.call(t.Context(), http.MethodPost, "/api/v1/preauthkey", request, &answer); err != nil {
		t.Fatal(err)
	}
	if answer.PreAuthKey.Key == "" {
		t.Fatal("headscale answered without a key")
	}
	return answer.PreAuthKey.Key
}

func (n tailnet) call(ctx context.Context, method, path string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("asking headscale: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, n.api+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("asking headscale: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+n.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := n.client.Do(req)
	if err != nil {
		return fmt.Errorf("asking headscale: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("asking headscale for %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("headscale answered %s to %s: %s", resp.Status, path, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("reading headscale's answer to %s: %w", path, err)
	}
	return nil
}
