package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/florianl/go-nfqueue/v2"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

const (
	tableName   = "tailxds-lab"
	queueNumber = 7
	// As many packets as may be on their way; the kernel lets more than these
	// through at once.
	queueLength = 10_000
)

// install puts the rules in force, all at once. It needs CAP_NET_ADMIN. What is
// delayed waits in a queue of the kernel's, because netem, which could do it
// alone, is missing in many kernels.
func (h impairment) install(ctx context.Context) (undo func() error, err error) {
	if h.delay == 0 {
		if err := replaceTables(h.from, &expr.Verdict{Kind: expr.VerdictDrop}); err != nil {
			return nil, fmt.Errorf("this kernel can't cut a path; it needs nf_tables (modprobe may have it): %w", err)
		}
		return removeTables, nil
	}
	release, err := delayQueue(ctx, h.delay)
	if err != nil {
		return nil, fmt.Errorf("this kernel can't delay packets; it needs nfnetlink_queue (modprobe may have it): %w", err)
	}
	undo = func() error { return errors.Join(removeTables(), release()) }
	for _, toQueue := range queueTargets() {
		if err = replaceTables(h.from, toQueue); err == nil {
			return undo, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("this kernel can't delay packets; it needs nft_queue or xt_NFQUEUE (modprobe may have one): %w", err), release())
}

// queueTargets are the two ways to the queue, of which a kernel may lack either.
// Without somebody who reads the queue, packets pass.
func queueTargets() []expr.Any {
	// struct xt_NFQ_info_v2: number, how many, bypass; and what aligns it.
	info := make(xt.Unknown, 0, 8)
	for _, field := range []uint16{queueNumber, 1, 1, 0} {
		info = binary.NativeEndian.AppendUint16(info, field)
	}
	return []expr.Any{
		&expr.Queue{Num: queueNumber, Flag: expr.QueueFlagBypass},
		&expr.Target{Name: "NFQUEUE", Rev: 2, Info: &info},
	}
}

// tables are one for IPv4 and one for IPv6: not all kernels' targets work in a
// table of both.
func tables() (four, six *nftables.Table) {
	return &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}, &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv6}
}

// replaceTables makes the rules; what a killed run left is gone.
func replaceTables(from []netip.Addr, verdict expr.Any) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("reaching nftables: %w", err)
	}
	four, six := tables()
	chains := map[*nftables.Table]*nftables.Chain{}
	for _, table := range []*nftables.Table{four, six} {
		c.AddTable(table)
		c.DelTable(table)
		c.AddTable(table)
		chains[table] = c.AddChain(&nftables.Chain{
			Name: "arriving", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter,
		})
	}
	for _, address := range from {
		// Where the source stands in the header.
		table, offset := four, uint32(12)
		if address.Is6() {
			table, offset = six, 8
		}
		source := address.AsSlice()
		c.AddRule(&nftables.Rule{Table: table, Chain: chains[table], Exprs: []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(source))},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: source},
			verdict,
		}})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("adding rules to nftables: %w", err)
	}
	return nil
}

func removeTables() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("reaching nftables: %w", err)
	}
	four, six := tables()
	c.DelTable(four)
	c.DelTable(six)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("removing the rules: %w", err)
	}
	return nil
}

// delayQueue lets each packet of the queue pass when it has waited.
func delayQueue(ctx context.Context, delay time.Duration) (release func() error, err error) {
	queue, err := nfqueue.Open(&nfqueue.Config{
		NfQueue: queueNumber, MaxQueueLen: queueLength, Copymode: nfqueue.NfQnlCopyMeta,
		Flags: nfqueue.NfQaCfgFlagFailOpen | nfqueue.NfQaCfgFlagGSO,
	})
	if err != nil {
		return nil, fmt.Errorf("opening a queue: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	pass := func(packet nfqueue.Attribute) int {
		id := *packet.PacketID
		time.AfterFunc(delay, func() {
			if ctx.Err() == nil {
				_ = queue.SetVerdict(id, nfqueue.NfAccept) // it fails once the queue is gone, and the packet with it
			}
		})
		return 0
	}
	goOn := func(err error) int {
		if errors.Is(err, unix.ENOBUFS) {
			return 0 // a burst overran the socket; it lost packets, as a slow path may
		}
		return 1
	}
	if err := queue.RegisterWithErrorFunc(ctx, pass, goOn); err != nil {
		stop()
		return nil, errors.Join(fmt.Errorf("binding a queue: %w", err), queue.Close())
	}
	return func() error {
		stop() // before the queue is closed, which waits for whoever reads it
		if err := queue.Close(); err != nil {
			return fmt.Errorf("closing the queue of packets: %w", err)
		}
		return nil
	}, nil
}
