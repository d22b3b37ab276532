// Command world shows the live page on a made-up tailnet with traffic: to work on
// the page, and for the tests of its looks, sizes and keys.
//
//	go run ./internal/dashboard/world -scenario held        # http://127.0.0.1:8099/
//	go run ./internal/dashboard/world -regions 8 -each 25
//
// A GET of /world/stop has time stand still.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/tailxds/tailxds/internal/dashboard"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	address := flag.String("address", "127.0.0.1:8099", "where to listen; it is said on standard output")
	regions := flag.Int("regions", 3, "regions, up to 8")
	each := flag.Int("each", 4, "servers in each region")
	kind := flag.String("scenario", "held", "calm, trouble, held or silent")
	long := flag.Bool("long", false, "give servers long names, as hosts in a cloud have them")
	role := flag.String("role", "operate", "of who looks: view or operate")
	flag.Parse()

	w := newWorld(*regions, *each, scenario(*kind), *long)
	page := dashboard.New(w.source())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /world/stop", func(http.ResponseWriter, *http.Request) { w.mu.Lock() }) // for good
	mux.Handle("/", page.Handler(dashboard.Authorizer{
		Identify: func(*http.Request) (dashboard.Viewer, error) {
			return dashboard.Viewer{Name: "you@example.com", Role: dashboard.Role(*role)}, nil
		},
		AllowsHost: func(context.Context, string) bool { return true },
	}))
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *address)
	if err != nil {
		return fmt.Errorf("listen for the page: %w", err)
	}
	fmt.Printf("http://%s/\n", l.Addr())
	ended := make(chan error, 2)
	go func() { ended <- page.Run(ctx) }()
	go func() { ended <- (&http.Server{Handler: mux, ReadHeaderTimeout: time.Second}).Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}
