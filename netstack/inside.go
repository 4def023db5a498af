//go:build linux

package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// target is a network namespace: that of a process, or an open one.
type target struct {
	pid int
	ns  *os.File
}

// here is the namespace's name for the kernel in a request that makes a device.
func (t target) here() any {
	if t.ns != nil {
		return netlink.NsFd(int(t.ns.Fd()))
	}
	return netlink.NsPid(t.pid)
}

// setns takes the calling thread into the namespace.
func (t target) setns() error {
	if t.ns != nil {
		return os.NewSyscallError("setns", unix.Setns(int(t.ns.Fd()), unix.CLONE_NEWNET))
	}
	fd, err := unix.PidfdOpen(t.pid, 0) // without /proc, which may be that of another pid namespace
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("setns", unix.Setns(fd, unix.CLONE_NEWNET))
}

// enter runs f on a thread that is in the namespace. It returns what f does, while the thread still does what f has left for it, and finds its way back; wait waits for that. A thread that does not find
// its way back ends.
func (t target) enter(f func() (tidy func(), err error)) (wait func(), err error) {
	done, gone := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(gone)
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		if err := t.setns(); err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		tidy, err := f()
		done <- err
		if tidy != nil {
			tidy()
		}
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return func() { <-gone }, <-done
}

// do runs f on a thread that is in the namespace.
func (t target) do(f func() error) error {
	wait, err := t.enter(func() (func(), error) { return nil, f() })
	wait()
	return err
}

// open gives a handle that speaks to the namespace from any thread: a socket belongs to the namespace in which it was made.
func (t target) open() (h *netlink.Handle, err error) {
	err = t.do(func() error {
		h, err = newHandle()
		return err
	})
	if err != nil {
		return nil, failed(err, "enter the network", "")
	}
	return h, nil
}

// speak gives a speaker instead, once what is first to be done there is done. The wait is for what that has left to be done, before the sandbox runs.
func (t target) speak(first func() (tidy func(), err error)) (s speaker, wait func(), err error) {
	wait, err = t.enter(func() (tidy func(), err error) {
		if first != nil {
			if tidy, err = first(); err != nil {
				return tidy, err
			}
		}
		s, err = newSpeaker()
		return tidy, err
	})
	if err != nil {
		wait()
		return speaker{}, nil, failed(err, "enter the network", "")
	}
	return s, wait, nil
}

// newHandle speaks to the network namespace of the calling thread.
func newHandle() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_NETLINK)", err)
	}
	return h, nil
}

// addresses are what a part gives its card: addresses, and the gateways behind which everything else is.
type addresses struct {
	own      []netip.Prefix
	gateways []netip.Addr
}

// configure makes the card ready for use: when it returns, every address can be used.
func (c Card) configure(s speaker, more addresses) error {
	link, err := s.look(c.Name)
	if err != nil {
		return err
	}
	if err := c.dress(s, link.index, link.mac, more); err != nil {
		return err
	}
	return c.reachable(s, more)
}

// dress does it for a card whose number and hardware address are known, and leaves reachable to be done.
func (c Card) dress(s speaker, index int, mac net.HardwareAddr, more addresses) error {
	own := c.own(more)
	list := []request{setUp(index)}
	if hasIPv6(own) {
		list = []request{quiet(index), setUp(index)}
	} else { // a kernel without IPv6 refuses it
		s.do(c.Name, quiet(index))
	}
	for _, a := range withLinkLocal(own, mac) {
		list = append(list, newAddress(index, a))
	}
	if len(c.Neighbours) > 0 {
		if _, err := s.do(c.Name, list...); err != nil {
			return err
		}
		list = nil
		if err := c.addNeighbours(s.Handle, index); err != nil {
			return err
		}
	}
	for _, g := range more.gateways {
		list = append(list, Route{Via: g}.request(index))
	}
	for _, r := range c.Routes {
		list = append(list, r.request(index))
	}
	if _, err := s.do(c.Name, list...); err != nil {
		return err
	}
	for _, r := range c.Rules {
		if err := r.add(s.Handle, c.Name); err != nil {
			return err
		}
	}
	return nil
}

// own are all addresses of the card.
func (c Card) own(more addresses) []netip.Prefix {
	return append(more.own[:len(more.own):len(more.own)], c.Addresses...)
}

// reachable waits until every address of the card can be used.
func (c Card) reachable(s speaker, more addresses) error { return reachable(s, c.Name, c.own(more)) }

func hasIPv6(all []netip.Prefix) bool {
	for _, a := range all {
		if a.Addr().Is6() {
			return true
		}
	}
	return false
}

// quietIPv6 keeps the kernel from giving the device a link-local address of its own choice, which it would first look for on the network for a second or more. Who has
// IPv6 addresses gets one by addAddresses, that can be used at once; who has none has no IPv6 on the card.
func quietIPv6(h *netlink.Handle, link netlink.Link, wanted bool) error {
	const none = 1 // IN6_ADDR_GEN_MODE_NONE
	err := h.LinkSetIP6AddrGenMode(link, none)
	if err != nil && !wanted { // a kernel without IPv6
		return nil
	}
	return failed(err, "set addrgenmode none on", link.Attrs().Name)
}

// withLinkLocal adds the address by which neighbours are spoken to, if there are others of IPv6.
func withLinkLocal(all []netip.Prefix, mac net.HardwareAddr) []netip.Prefix {
	if hasIPv6(all) && len(mac) == 6 {
		all = append(all[:len(all):len(all)], linkLocal(mac))
	}
	return all
}

func addAddresses(h *netlink.Handle, link netlink.Link, all []netip.Prefix) error {
	for _, a := range withLinkLocal(all, link.Attrs().HardwareAddr) {
		if err := addAddress(h, link, a); err != nil {
			return err
		}
	}
	return nil
}

// linkLocal is the address that the kernel would have chosen (RFC 4291, appendix A).
func linkLocal(mac net.HardwareAddr) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}), 64)
}

func addAddress(h *netlink.Handle, link netlink.Link, a netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(a)}
	if a.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if a.Addr().IsLinkLocalUnicast() {
		addr.Scope = unix.RT_SCOPE_LINK
	}
	return failed(h.AddrAdd(link, addr), "add address "+a.String()+" to", link.Attrs().Name)
}

func (c Card) addNeighbours(h *netlink.Handle, index int) error {
	for _, n := range c.Neighbours {
		err := h.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: n.Addr.AsSlice(), HardwareAddr: n.MAC})
		if err != nil {
			return failed(err, "add neighbour "+n.Addr.String()+" to", c.Name)
		}
	}
	return nil
}

func (r Route) text() string {
	to := "default"
	if r.To.IsValid() {
		to = r.To.String()
	}
	if r.Via.IsValid() {
		to += " via " + r.Via.String()
	}
	return to
}

func (r Rule) add(h *netlink.Handle, device string) error {
	rule := netlink.NewRule()
	rule.Table, rule.Family = r.Table, netlink.FAMILY_V4
	if r.Priority != 0 {
		rule.Priority = r.Priority
	}
	for _, p := range []struct {
		from netip.Prefix
		to   **net.IPNet
	}{{r.From, &rule.Src}, {r.To, &rule.Dst}} {
		if !p.from.IsValid() {
			continue
		}
		*p.to = ipNet(p.from)
		if p.from.Addr().Is6() {
			rule.Family = netlink.FAMILY_V6
		}
	}
	return failed(h.RuleAdd(rule), fmt.Sprintf("add rule from %v to %v table %d for", r.From, r.To, r.Table), device)
}

// find looks a device up by its name.
func find(h *netlink.Handle, name string) (netlink.Link, error) {
	link, err := retried(func() (netlink.Link, error) { return h.LinkByName(name) })
	if _, missing := err.(netlink.LinkNotFoundError); missing {
		err = syscall.ENODEV
	}
	if err != nil {
		return nil, failed(err, "find", name)
	}
	return link, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
