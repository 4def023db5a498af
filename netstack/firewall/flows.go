//go:build linux

package firewall

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

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

// forgetFlows makes the kernel forget the connections of addresses. It looks at all connections, which takes ten milliseconds and more, so it is done only where it matters: see reuse. A kernel without nf_conntrack_netlink cannot: there connections end by themselves, after minutes.
func forgetFlows(addrs flows) error {
	if err := deleteFlows(addrs); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// deleteFlows makes the kernel forget connections.
func deleteFlows(which netlink.CustomConntrackFilter) error {
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return flowsFailed(err)
	}
	defer h.Close()
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		const tries = 5 // the table changes while it is read
		for range tries {
			if _, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, family, which); !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
		}
		if err != nil {
			return flowsFailed(err)
		}
	}
	return nil
}

// flowsFailed says so when the kernel does not know how: it answers for a subsystem that it does not have in one of these ways.
func flowsFailed(err error) error {
	for _, none := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EINVAL, unix.ENOENT} {
		if errors.Is(err, none) {
			return &Error{Op: "forget connections", Err: &reason{"the kernel has no nf_conntrack_netlink", errors.Join(errors.ErrUnsupported, err)}}
		}
	}
	return failed(err, "forget connections")
}

// freedName is the file in which the addresses stand whose connections are still to be forgotten.
const freedName = ".freed"

// packets follows an address whose owner had published ports of a protocol without connections.
const packets = " packets"

// mostFreed is how long the file gets, in bytes, before all that stands in it is forgotten.
const mostFreed = 1 << 16

// noteFreed writes addresses down. It is done before their rules go: who dies in between leaves too many, not too few.
func (d *lockDir) noteFreed(addrs flows, r Rules) error {
	if len(addrs) == 0 {
		return nil
	}
	f, err := d.open(freedName, unix.O_CREAT|unix.O_APPEND)
	if err != nil {
		return failed(err, "note free addresses")
	}
	defer f.Close()
	var text strings.Builder
	suffix := ""
	if slices.ContainsFunc(r.Publish, func(p Port) bool { return p.protocol() != TCP }) {
		suffix = packets
	}
	for a := range addrs {
		text.WriteString(a.String() + suffix + "\n")
	}
	_, err = f.WriteString(text.String())
	return failed(err, "note free addresses")
}

// reuse forgets the connections of free addresses if one of them gets a new owner to whom they would matter: he has a policy, which they would pass by as what is established already; or datagrams from outside are still
// translated to the address. A segment of somebody else's TCP connection his kernel refuses by itself.
func (d *lockDir) reuse(addrs flows, r Rules) error {
	if len(addrs) == 0 {
		return nil
	}
	text, err := os.ReadFile(d.path + "/" + freedName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return failed(err, "look for free addresses")
	}
	freed, again := flows{}, len(text) > mostFreed
	for line := range strings.Lines(string(text)) {
		addr, datagrams := strings.CutSuffix(strings.TrimSuffix(line, "\n"), packets)
		if a, err := netip.ParseAddr(addr); err == nil {
			freed[a] = true
			again = again || addrs[a] && (datagrams || r.Policy.any())
		}
	}
	if !again {
		return nil
	}
	if err := forgetFlows(freed); err != nil {
		return err
	}
	return failed(os.Remove(d.path+"/"+freedName), "forget free addresses")
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

// unknownRules stand for those of the dead: they may have published anything.
func unknownRules() Rules { return Rules{Publish: []Port{{Protocol: UDP}}} }
