//go:build linux

package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"

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

// do runs f on a thread that is in the namespace. A thread that does not find its way back ends.
func (t target) do(f func() error) error {
	done := make(chan error)
	go func() {
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
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// open gives a handle that speaks to the namespace from any thread: a socket belongs to the namespace in which it was made. The functions are called there before.
func (t target) open(first ...func() error) (h *netlink.Handle, err error) {
	err = t.do(func() error {
		for _, f := range first {
			if err := f(); err != nil {
				return err
			}
		}
		h, err = newHandle()
		return err
	})
	if err != nil {
		return nil, failed(err, "enter the network", "")
	}
	return h, nil
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
func (c Card) configure(h *netlink.Handle, more addresses) error {
	link, err := find(h, c.Name)
	if err != nil {
		return err
	}
	own := append(more.own[:len(more.own):len(more.own)], c.Addresses...)
	if err := quietIPv6(h, link, hasIPv6(own)); err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return failed(err, "set up", c.Name)
	}
	if err := addAddresses(h, link, own); err != nil {
		return err
	}
	for _, n := range c.Neighbours {
		if err := n.add(h, link); err != nil {
			return err
		}
	}
	for _, g := range more.gateways {
		if err := (Route{Via: g}).add(h, link); err != nil {
			return err
		}
	}
	for _, r := range c.Routes {
		if err := r.add(h, link); err != nil {
			return err
		}
	}
	for _, r := range c.Rules {
		if err := r.add(h, c.Name); err != nil {
			return err
		}
	}
	return reachable(h, own)
}

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

func addAddresses(h *netlink.Handle, link netlink.Link, all []netip.Prefix) error {
	if hasIPv6(all) && len(link.Attrs().HardwareAddr) == 6 {
		all = append(all[:len(all):len(all)], linkLocal(link.Attrs().HardwareAddr))
	}
	for _, a := range all {
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

func (n Neighbour) add(h *netlink.Handle, link netlink.Link) error {
	err := h.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: n.Addr.AsSlice(), HardwareAddr: n.MAC})
	return failed(err, "add neighbour "+n.Addr.String()+" to", link.Attrs().Name)
}

func (r Route) add(h *netlink.Handle, link netlink.Link) error {
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Priority: r.Metric, MTU: r.MTU, Table: r.Table, Src: r.Source.AsSlice(), Gw: r.Via.AsSlice()}
	if r.To.IsValid() {
		route.Dst = ipNet(r.To)
	}
	if !r.Via.IsValid() {
		route.Scope = netlink.SCOPE_LINK
	}
	if r.OnLink {
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	err := h.RouteAdd(route)
	e := failed(err, "add route "+r.text()+" over", link.Attrs().Name)
	if e, ok := e.(*Error); ok && (err == syscall.ENETUNREACH || err == syscall.EHOSTUNREACH) {
		e.Hint = "the gateway is in none of the card's networks; OnLink says that it is there all the same"
	}
	return e
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

// settle waits until a device works on which the other end of its cable has just been set up: the kernel notices that somewhat later, and until then drops what is to be sent. It
// then seems to take a second to find a neighbour. Since Linux 6.8 the kernel does the work as it is asked.
func settle(h *netlink.Handle, name string) error { return settleWithin(h, name, patience) }

func settleWithin(h *netlink.Handle, name string, most time.Duration) error {
	return until(most, "wait for "+name, func() (bool, error) {
		link, err := find(h, name)
		return err == nil && link.Attrs().OperState == netlink.OperUp, err
	})
}

// reachable waits until the kernel listens to who looks for the address. It does not look for duplicates, but joins the group of the address's neighbours in the background all the same; the
// local route comes last.
func reachable(h *netlink.Handle, all []netip.Prefix) error {
	for _, a := range all {
		if !a.Addr().Is6() || a.Addr().IsLinkLocalUnicast() {
			continue
		}
		err := until(patience, "wait for "+a.String(), func() (bool, error) {
			routes, err := h.RouteGet(a.Addr().AsSlice())
			if err == syscall.ENETUNREACH || err == syscall.EHOSTUNREACH {
				err = nil
			}
			return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// until asks again and again, at longer and longer intervals.
func until(most time.Duration, what string, done func() (bool, error)) error {
	pause := 20 * time.Microsecond
	for begin := time.Now(); ; pause = min(2*pause, 5*time.Millisecond) {
		ok, err := done()
		switch {
		case err != nil:
			return failed(err, what, "")
		case ok:
			return nil
		case time.Since(begin) > most:
			return failed(syscall.ETIMEDOUT, what, "")
		}
		time.Sleep(pause)
	}
}

const patience = 5 * time.Second

// retried asks again while the answer may be incomplete because something has changed meanwhile. On a host where devices come and go all the time the last answer is an error.
func retried[T any](dump func() (T, error)) (v T, err error) {
	for range 32 {
		if v, err = dump(); err != netlink.ErrDumpInterrupted {
			return v, err
		}
	}
	return v, fmt.Errorf("%w: %w", err, syscall.EAGAIN)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
