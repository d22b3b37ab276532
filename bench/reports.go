package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"

	"github.com/tailxds/tailxds/internal/envoy"
	"github.com/tailxds/tailxds/internal/policy"
	"github.com/tailxds/tailxds/internal/telemetry"
	"github.com/tailxds/tailxds/internal/topology"
	"github.com/tailxds/tailxds/internal/xds"
)

// newReporting is ours with what receives reports, and the servers that the
// recorded one tells of.
func newReporting() (*ours, error) {
	receiver := telemetry.NewReceiver(func(ctx context.Context) telemetry.Caller {
		who := xds.CallerOf(ctx)
		return telemetry.Caller{Device: who.Device, Address: who.Address.Addr(), Region: who.Region, Known: who.Known}
	}, time.Now)
	o := &ours{policy: policy.Default(), server: xds.NewServer(xds.Config{
		Types: envoy.Types(), PeerLimits: manyPeers(), Services: []func(grpc.ServiceRegistrar){receiver.Register},
	})}
	for i, address := range []string{"127.0.0.11", "127.0.0.12"} {
		o.devices = append(o.devices, topology.Device{
			ID: fmt.Sprint(i + 1), Name: address, Online: true, Addresses: []string{address}, Tags: []string{"tag:service-server", "tag:weight-1"},
		})
	}
	t, _ := topology.Build(o.devices, rules())
	receiver.SetPublished(t)
	return o, o.publish()
}

// recorded is what an Envoy with two servers reports every five seconds.
const recorded = "../internal/telemetry/testdata/envoy.pb"

// reports measures what the reports of as many Envoys cost as send 10,000 a
// minute. They are sent as fast as they are taken, and then again: what is kept
// of them must be the same.
func reports(ctx context.Context, s sizes) (_ figure, err error) {
	const aMinute = 10_000
	envoys := s.clients * 5 / 6
	message, err := os.ReadFile(recorded)
	if err != nil {
		return figure{}, fmt.Errorf("read a report: %w", err)
	}
	ours, err := start(ctx, setup{Kind: "reporting"})
	if err != nil {
		return figure{}, err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	var senders []*grpc.ClientConn
	defer func() {
		for _, sender := range senders {
			_ = sender.Close() // nothing is lost
		}
	}()
	for i := range envoys {
		sender, err := from(net.IPv4(127, 1, byte(i>>8), byte(i)), ours.address)
		if err != nil {
			return figure{}, err
		}
		senders = append(senders, sender)
	}
	minute := func() (answer, error) {
		for range aMinute / envoys {
			if err := sendAll(ctx, senders, message); err != nil {
				return answer{}, err
			}
		}
		return ours.usage()
	}
	var used [3]answer
	for i := range used {
		if used[i], err = minute(); err != nil {
			return figure{}, err
		}
	}
	share := (used[2].CPU - used[1].CPU).Seconds() / 60
	memory := float64(used[2].Memory) / float64(used[1].Memory)
	return figure{
		value: fmt.Sprintf("%.1f %% of a core", 100*share), ok: share <= 0.05 && memory <= 1.05,
		detail: fmt.Sprintf("%d Envoys, reports of %s; %s of memory after 20,000 reports, and %s after 30,000.",
			envoys, inBytes(float64(len(message))), inBytes(float64(used[1].Memory)), inBytes(float64(used[2].Memory))),
	}, nil
}

// from connects from an address of its own, since Envoys are told apart by that.
func from(own net.IP, address string) (*grpc.ClientConn, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: own}}
	sender, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", to) }))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return sender, nil
}

// sendAll has each Envoy report once.
func sendAll(ctx context.Context, senders []*grpc.ClientConn, message []byte) error {
	failed := make(chan error, len(senders))
	room := make(chan struct{}, 16)
	var sending sync.WaitGroup
	for _, sender := range senders {
		room <- struct{}{}
		sending.Go(func() {
			defer func() { <-room }()
			failed <- sender.Invoke(ctx, collector.MetricsService_Export_FullMethodName, message, &frame{})
		})
	}
	sending.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}
