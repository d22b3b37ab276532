// Command probe looks at the lab from inside a container's network, where the
// tests themselves can't be. It runs from an image that holds nothing else.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

const usage = `usage:
  probe get URL               print what URL answers
  probe watch URL REGEXP      print "watching", then the time (RFC 3339) when the
                              answer first matches
  probe dial ADDRESS          connect to a TCP address
  probe read FILE             print a file, such as one of /proc/sys/net
  probe sniff INTERFACE       print "sniffing"; at the end of standard input
                              print a line for each pair of IPv4 addresses seen:
                              SOURCE DESTINATION PACKETS
  probe forge INTERFACE MAC SOURCE DESTINATION N
                              send N packets with these IPv4 addresses through
                              the neighbour with this MAC address
  probe relay ADDRESS         serve DERP on this TCP address, over TLS
  probe cut ADDRESS           send nothing to this IP address; print "cut"; at the
                              end of standard input let it through again
  probe silence               lose all packets that arrive and leave; print
                              "silent"; at the end of standard input let them
                              through again`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	switch {
	case len(args) == 2 && args[0] == "get":
		body, err := get(ctx, args[1])
		if err != nil {
			return err
		}
		_, err = stdout.Write(body)
		return err
	case len(args) == 3 && args[0] == "watch":
		return watch(ctx, args[1], args[2], stdout)
	case len(args) == 2 && args[0] == "dial":
		return dial(ctx, args[1])
	case len(args) == 2 && args[0] == "read":
		text, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		_, err = stdout.Write(text)
		return err
	case len(args) == 2 && args[0] == "sniff":
		return sniff(ctx, args[1], stdin, stdout)
	case len(args) == 6 && args[0] == "forge":
		return forge(args[1], args[2], args[3], args[4], args[5])
	case len(args) == 2 && args[0] == "relay":
		return relay(ctx, args[1])
	case len(args) == 2 && args[0] == "cut":
		return cut(args[1], stdin, stdout)
	case len(args) == 1 && args[0] == "silence":
		return silence(stdin, stdout)
	}
	return errors.New(usage)
}

func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", url, err)
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return body, nil
}

// watch asks so often that the time it prints is exact to some 10 ms.
func watch(ctx context.Context, url, pattern string, stdout io.Writer) error {
	matches, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	if body, err := get(ctx, url); err != nil {
		return err
	} else if matches.Match(body) {
		return fmt.Errorf("%s matches %q already", url, pattern)
	}
	fmt.Fprintln(stdout, "watching")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		body, err := get(ctx, url)
		if err != nil {
			return err
		}
		if matches.Match(body) {
			fmt.Fprintln(stdout, time.Now().Format(time.RFC3339Nano))
			return nil
		}
	}
}

func dial(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return connection.Close()
}
