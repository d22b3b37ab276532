package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// silence loses every packet of this network but those that it sends to itself,
// in both directions, until stdin ends. Nobody is told: no connection is closed or
// refused. It needs CAP_NET_ADMIN.
func silence(stdin io.Reader, stdout io.Writer) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("reaching nftables: %w", err)
	}
	var tables []*nftables.Table
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		table := c.AddTable(&nftables.Table{Name: "tailxds-silence", Family: family})
		tables = append(tables, table)
		for _, way := range []struct {
			name string
			hook *nftables.ChainHook
			nic  expr.MetaKey
		}{{"arriving", nftables.ChainHookInput, expr.MetaKeyIIFNAME}, {"leaving", nftables.ChainHookOutput, expr.MetaKeyOIFNAME}} {
			chain := c.AddChain(&nftables.Chain{
				Name: way.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: way.hook, Priority: nftables.ChainPriorityFilter,
			})
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: way.nic, Register: 1},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte("lo\x00")},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("adding rules that lose packets; the kernel needs nf_tables: %w", err)
	}
	_, sayErr := fmt.Fprintln(stdout, "silent")
	_, waitErr := io.Copy(io.Discard, stdin)
	for _, table := range tables {
		c.DelTable(table)
	}
	if err = c.Flush(); err != nil {
		err = fmt.Errorf("removing the rules that lose packets: %w", err)
	}
	return errors.Join(sayErr, waitErr, err)
}
