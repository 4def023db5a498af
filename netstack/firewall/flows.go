//go:build linux

package firewall

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flows picks connections of some addresses.
type flows map[netip.Addr]bool

// MatchConntrackFlow is called for each connection that the kernel keeps track of.
func (f flows) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	return slices.ContainsFunc([][]byte{c.Forward.SrcIP, c.Forward.DstIP, c.Reverse.SrcIP, c.Reverse.DstIP}, func(ip []byte) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && f[a.Unmap()]
	})
}

// forgetFlows makes the kernel forget the connections of addresses that nobody has any longer. Whoever gets such an address next would inherit what was allowed to, and translated for,
// its last owner. A kernel without nf_conntrack_netlink cannot: there they end by themselves, after minutes.
func forgetFlows(addrs flows) error {
	if len(addrs) == 0 {
		return nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return failed(err, "open a netlink socket")
	}
	defer h.Close()
	for _, v4 := range []bool{true, false} {
		family := netlink.InetFamily(unix.AF_INET6)
		if v4 {
			family = unix.AF_INET
		}
		if !addrs.any(v4) {
			continue
		}
		const tries = 5 // the table changes while it is read
		for range tries {
			if _, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, family, addrs); !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
		}
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return failed(err, "forget connections")
		}
	}
	return nil
}

func (f flows) any(v4 bool) bool {
	for a := range f {
		if a.Is4() == v4 {
			return true
		}
	}
	return false
}

// flowsOf are the addresses among elements of the set inside.
func flowsOf(elements map[setID][]nftables.SetElement) flows {
	addrs := flows{}
	for _, fam := range families() {
		for _, e := range elements[setID{false, inside + fam.suffix}] {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				addrs[a] = true
			}
		}
	}
	return addrs
}

// gone are the addresses of the old rules that the new ones do not have.
func gone(old, next Rules) flows {
	addrs := flows{}
	for a := range old.addrs() {
		addrs[a] = true
	}
	for a := range next.addrs() {
		delete(addrs, a)
	}
	return addrs
}
