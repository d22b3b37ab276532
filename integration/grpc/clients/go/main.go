// A gRPC client that the tests drive: see integration/grpc/client.go.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds" // the resolver of xds:///
)

type order struct {
	Target  string
	Method  string
	Calls   int
	Timeout int // seconds
	Within  int // seconds
	Fresh   bool
	Headers map[string]string
}

type answer struct {
	Counts map[string]int `json:"counts"`
	Errors map[string]int `json:"errors"`
}

// identity sends bytes as they are.
type identity struct{}

func (identity) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (identity) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (identity) Name() string { return "bytes" }

func run(conns map[string]*grpc.ClientConn, o order) (answer, error) {
	if c := conns[o.Target]; o.Fresh && c != nil {
		_ = c.Close()
		delete(conns, o.Target)
	}
	if conns[o.Target] == nil {
		c, err := grpc.NewClient("xds:///"+o.Target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return answer{}, err
		}
		conns[o.Target] = c
	}
	a := answer{map[string]int{}, map[string]int{}}
	end := time.Now().Add(time.Duration(o.Within) * time.Second)
	for range o.Calls {
		if time.Now().After(end) {
			break
		}
		var none, name []byte
		ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(context.Background(), metadata.New(o.Headers)), time.Duration(o.Timeout)*time.Second)
		err := conns[o.Target].Invoke(ctx, o.Method, &none, &name, grpc.ForceCodec(identity{}))
		cancel()
		if s := status.Convert(err); err != nil {
			a.Errors[fmt.Sprintf("%s: %s", s.Code(), s.Message())]++
		} else {
			a.Counts[string(name)]++
		}
	}
	return a, nil
}

func main() {
	conns := make(map[string]*grpc.ClientConn)
	orders, answers := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for orders.Scan() {
		var o order
		err := json.Unmarshal(orders.Bytes(), &o)
		var a answer
		if err == nil {
			a, err = run(conns, o)
		}
		if err == nil {
			err = answers.Encode(a)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
