// Package grpcclients drives gRPC clients that others wrote, one a language, each
// without a proxy and by the real control plane.
//
// A client is a process that reads an [Order] a line, as JSON, and writes an
// [Answer]. It makes its calls one after the other, each with an empty message, to
// servers that answer with their names.
package grpcclients

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tailxds/tailxds/integration/repository"
)

// Order is what a client is to do.
type Order struct {
	// Target is the service, as in xds:///hello.
	Target string `json:"target"`
	// Fresh has the client find the service anew, and not use what it knows.
	Fresh  bool   `json:"fresh"`
	Calls  int    `json:"calls"`
	Method string `json:"method"` // /acme.Shop/Get
	// Timeout is that of a call, in seconds.
	Timeout int `json:"timeout"`
	// Within ends the order early, in seconds: the calls of a client that is broken
	// take as long as they may.
	Within  int               `json:"within"`
	Headers map[string]string `json:"headers"`
}

// Answer is who answered how many of the calls, and how many failed, by the reason.
type Answer struct {
	Counts map[string]int `json:"counts"`
	Errors map[string]int `json:"errors"`
}

// Failed is how many calls failed.
func (a Answer) Failed() (n int) {
	for _, of := range a.Errors {
		n += of
	}
	return n
}

// errMissing is the error of a language that this machine does not have.
var errMissing = errors.New("the language is missing here")

// Client is a running client.
type Client struct {
	Language string
	cmd      *exec.Cmd
	orders   io.WriteCloser
	answers  *bufio.Reader
	log      *os.File
}

// start starts the client of a language by a gRPC bootstrap file. It is stopped with
// the context, and its standard error is in a file in the directory.
func start(ctx context.Context, language, bootstrap, dir string) (*Client, error) {
	out, err := repository.Script(ctx, "grpc-client", language)
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 3 {
		return nil, errMissing
	}
	if err != nil {
		return nil, fmt.Errorf("get the gRPC client for %s: %w", language, err)
	}
	command := strings.Split(out, "\n")
	c := &Client{Language: language, cmd: exec.CommandContext(ctx, command[0], command[1:]...)}
	c.cmd.Env = append(os.Environ(), "GRPC_XDS_BOOTSTRAP="+bootstrap)
	if c.log, err = os.Create(filepath.Join(dir, language+".log")); err != nil {
		return nil, err
	}
	c.cmd.Stderr = c.log
	if c.orders, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	answers, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.answers = bufio.NewReader(answers)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the gRPC client for %s: %w", language, err)
	}
	return c, nil
}

// Do has the client carry out an order. An error is of the client, and not of its calls.
func (c *Client) Do(o Order) (Answer, error) {
	if o.Headers == nil {
		o.Headers = map[string]string{}
	}
	if err := json.NewEncoder(c.orders).Encode(o); err != nil {
		return Answer{}, fmt.Errorf("%s: give the order: %w: %s", c.Language, err, c.said())
	}
	line, err := c.answers.ReadBytes('\n')
	if err != nil {
		return Answer{}, fmt.Errorf("%s: read the answer: %w: %s", c.Language, err, c.said())
	}
	var a Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return Answer{}, fmt.Errorf("%s: the answer %q: %w", c.Language, line, err)
	}
	return a, nil
}

// stop ends the client, and waits for it.
func (c *Client) stop() error {
	err := c.orders.Close()
	return errors.Join(err, c.cmd.Wait(), c.log.Close())
}

// said is the end of what the client wrote on its standard error.
func (c *Client) said() string {
	const last = 4 << 10
	text, err := os.ReadFile(c.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-last):])
}
