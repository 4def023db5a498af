//go:build linux

package firewall

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
)

// Backend is the part of the kernel that keeps the rules.
type Backend uint8

const (
	// Probe asks the kernel: nf_tables if it answers, else iptables. It is the zero value.
	Probe Backend = iota

	// NFTables keeps all rules in two tables of their own; a change is one transaction.
	NFTables

	// IPTables is for kernels without nf_tables (and for them alone: it costs several programs for each change, and packets pass rule after rule). The rules are in chains of their own, whose names begin with
	// caisson-, and built-in chains send all packets there before they do anything else. The programs iptables-restore, ip6tables-restore, and for cards on a bridge ebtables-restore (Debian's packages
	// iptables and ebtables) change a table in one transaction, but one table after the other: the one that denies comes first.
	//
	// IPv6 addresses of cards on a bridge need br_netfilter too, loaded beforehand, xt_physdev, xt_u32 and xt_mark, because ebtables does not look into neighbour discovery: the frames of that bridge then come by
	// ip6tables (nf_call_ip6tables of ip-link(8), which stays set), also by the lines of others in FORWARD.
	//
	// What it cannot express is errors.ErrUnsupported: rules with names, and [SourceHash]. What other lines accept that somebody inserts before ours, the policy does not see; each change puts ours first again.
	IPTables
)

// String gives the name in lower case.
func (b Backend) String() string {
	if names := []string{"probe", "nftables", "iptables"}; int(b) < len(names) {
		return names[b]
	}
	return fmt.Sprintf("backend(%d)", uint8(b))
}

// Backend tells which one keeps the rules: NFTables or IPTables.
func (f *Firewall) Backend() Backend {
	if f.x != nil {
		return IPTables
	}
	return NFTables
}

// chooseBackend connects to the one that is asked for, or to the first that is there.
func (f *Firewall) chooseBackend() error {
	switch f.host.Backend {
	case NFTables:
		return f.dial()
	case IPTables:
		return f.useXtables()
	case Probe:
		err := f.probe()
		if err == nil || !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		if second := f.useXtables(); second != nil {
			return errors.Join(err, second)
		}
		return nil
	}
	return &RuleError{"Host.Backend", f.host.Backend.String(), "is none that there is"}
}

// probe asks nf_tables for its tables. That needs no privilege where it is there.
func (f *Firewall) probe() error {
	if err := f.dial(); err != nil {
		return err
	}
	if _, err := f.conn.ListTablesOfFamily(nftables.TableFamilyINet); err != nil {
		f.hangUp()
		return refused("", err)
	}
	return nil
}

func (f *Firewall) useXtables() error {
	return f.space.inside(func() (err error) {
		f.x, err = newXtables(f.host.variants)
		return err
	})
}
