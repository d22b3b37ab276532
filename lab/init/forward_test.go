package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestForward_connection_isHandedOn(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	defer page.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- forwardFrom(ctx, listener, strings.TrimPrefix(page.URL, "http://")) }()
	address := "http://" + listener.Addr().String()
	response, err := http.Post(address, "text/plain", strings.NewReader("there and back"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err != nil || string(body) != "there and back" {
		t.Errorf("%q, %v", body, err)
	}
	page.CloseClientConnections()
	page.Close()
	if _, err := http.Get(address); err == nil {
		t.Error("something answers though the page is gone")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
