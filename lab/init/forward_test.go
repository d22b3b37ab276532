package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestForward(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	defer page.Close()
	// A port that is free now; nothing else of this test listens.
	spare := httptest.NewServer(nil)
	address := strings.TrimPrefix(spare.URL, "http://")
	spare.Close()

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- forward(ctx, address, strings.TrimPrefix(page.URL, "http://")) }()
	var response *http.Response
	for range 1_000 { // until it listens
		var err error
		if response, err = http.Post("http://"+address, "text/plain", strings.NewReader("there and back")); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if response == nil {
		t.Fatal("nothing is forwarded")
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || string(body) != "there and back" {
		t.Errorf("%q, %v", body, err)
	}
	page.CloseClientConnections()
	page.Close()
	if _, err := http.Get("http://" + address); err == nil {
		t.Error("something answers though the page is gone")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
