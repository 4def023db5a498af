//go:build linux

package netstack

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/internal/owner"
	"github.com/caisson-dev/caisson/netstack/ipam"
)

// Create makes the bridge with its addresses, if it is not there, and otherwise checks that it is as described. It is what a sandbox's start does first.
func (b Bridge) Create() error {
	return b.alone(func(o *owner.Owner) error {
		_, err := b.ensure(o)
		return err
	})
}

// Delete removes the bridge and forgets its addresses. A bridge that still has ports is an [*Error] with EBUSY; one that is not there is none.
func (b Bridge) Delete() error {
	return b.alone(func(o *owner.Owner) error { return b.delete(o) })
}

// alone completes the bridge and calls f with an owner.
func (b *Bridge) alone(f func(*owner.Owner) error) error {
	whole, err := b.complete()
	if err != nil {
		return err
	}
	*b = whole
	o, err := owner.Enter(b.State)
	if err != nil {
		return failed(err, "open netlink", "")
	}
	err = f(o)
	return errors.Join(err, o.Leave())
}

// ensure gives the bridge, complete.
func (b Bridge) ensure(o *owner.Owner) (facts, error) {
	s := speakerOf(o)
	found, err := s.look(b.Name)
	if err == nil && b.lacks(o, found) == nil {
		return found, nil
	}
	unlock, err := lockBridge(o, b.Name)
	if err != nil {
		return facts{}, err
	}
	defer unlock()
	if err := b.make(o); err != nil {
		return facts{}, err
	}
	return s.look(b.Name)
}

// lockBridge keeps other processes from making, completing or removing the same bridge.
func lockBridge(o *owner.Owner, name string) (func(), error) {
	dir := filepath.Join(o.Dir, "bridges")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			f.Close()
			return nil, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		return func() { f.Close() }, nil
	}
}

// make makes what is missing of the bridge. It is set up last, so one that is up is whole but for addresses.
func (b Bridge) make(o *owner.Owner) error {
	h := o.Handle
	link, err := find(h, b.Name)
	if errors.Is(err, syscall.ENODEV) {
		link, err = b.add(o)
	}
	if err != nil {
		return err
	}
	if err := b.finish(speakerOf(o), link); err != nil {
		return err
	}
	if err := owner.In(o.Net, func() error { return b.tame(link.Attrs().Index) }); err != nil {
		return err
	}
	if err := b.addAddresses(o, link); err != nil {
		return err
	}
	return failed(h.LinkSetUp(link), "set up", b.Name)
}

// finish sets the MTU of a bridge that has just been made, or was left so by a process that was killed: it is not up yet. An MTU that comes with the request that makes the
// bridge would be forgotten as ports come and go.
func (b Bridge) finish(s speaker, link netlink.Link) error {
	if link.Attrs().Flags&unix.IFF_UP == 0 && b.MTU != 0 {
		if err := s.LinkSetMTU(link, b.MTU); err != nil {
			return failed(err, fmt.Sprintf("set mtu %d of", b.MTU), b.Name)
		}
	}
	found, err := s.look(b.Name)
	if err != nil {
		return err
	}
	return b.matches(found)
}

// add makes the bridge, with a hardware address of its own: without, a bridge takes that of one of its ports and changes it as sandboxes come and go.
func (b Bridge) add(o *owner.Owner) (netlink.Link, error) {
	link := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	link.Name, link.HardwareAddr = b.Name, freshMAC()
	if b.VLANFiltering {
		link.VlanFiltering = &b.VLANFiltering
	}
	if err := o.Handle.LinkAdd(link); err != nil {
		e := failed(err, "create bridge", b.Name)
		if b.VLANFiltering && errors.Is(err, syscall.EOPNOTSUPP) {
			e = &Error{Op: "create bridge with VLAN filtering", Device: b.Name, Err: &reason{"the kernel cannot", errors.Join(errors.ErrUnsupported, err)}}
		}
		return nil, e
	}
	return find(o.Handle, b.Name)
}

// tame makes the bridge deaf to sandboxes that claim to be routers, before it is up. It runs in the bridge's network namespace.
func (b Bridge) tame(index int) error {
	if b.STP {
		if err := setSTP(index); err != nil {
			return failed(err, "set stp of", b.Name)
		}
	}
	return deaf(b.Name)
}

// setSTP lets the bridge look for loops.
func setSTP(index int) error {
	const brSTPState = 5 // IFLA_BR_STP_STATE
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(brSTPState, nl.Uint32Attr(1))
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	req.AddData(msg)
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// matches compares what was there already with what is wanted.
func (b Bridge) matches(found facts) error {
	differs := ""
	switch {
	case found.kind != "bridge":
		differs = "it is a " + cmp.Or(found.kind, "device")
	case b.MTU != 0 && found.mtu != b.MTU:
		differs = fmt.Sprintf("its MTU is %d, not %d", found.mtu, b.MTU)
	case b.Card.MTU > found.mtu:
		differs = fmt.Sprintf("it drops what is larger than its MTU of %d", found.mtu)
	case b.VLANFiltering && !found.vlans:
		differs = "it does not filter VLANs"
	}
	if differs == "" {
		return nil
	}
	return &Error{Op: "use bridge", Device: b.Name, Err: &reason{"there is one already, and " + differs, syscall.EEXIST}}
}

// lacks reports, as an error, what the bridge lacks.
func (b Bridge) lacks(o *owner.Owner, found facts) error {
	if err := b.matches(found); err != nil {
		return err
	}
	if !found.up {
		return syscall.ENETDOWN
	}
	// The kernel has no list of one device's addresses but goes through all devices for it, so a process looks once while it has sandboxes: who takes an address off a bridge that is in use means to.
	_, err := o.Keep(wholeKey{found.index, fmt.Sprint(b.gateways())}, func() (io.Closer, error) {
		missing, err := b.missing(o.Handle, &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: b.Name, Index: found.index}})
		if err == nil && len(missing) > 0 {
			err = syscall.EADDRNOTAVAIL
		}
		return nothing{}, err
	})
	return err
}

// wholeKey stands for a bridge whose addresses are there.
type wholeKey struct {
	index     int
	addresses string
}

// nothing needs no closing.
type nothing struct{}

// Close does nothing.
func (nothing) Close() error { return nil }

func (b Bridge) gateways() (all []netip.Prefix) {
	for _, s := range b.Subnets {
		all = append(all, netip.PrefixFrom(s.GatewayAddr(), s.Prefix.Bits()))
	}
	return all
}

// missing gives the gateways' addresses that the bridge has not. If it has others of the same family in their place, somebody else has made it for something else.
func (b Bridge) missing(h *netlink.Handle, link netlink.Link) (missing []netip.Prefix, err error) {
	if len(b.Subnets) == 0 {
		return nil, nil
	}
	there, err := addressesOf(h, link)
	if err != nil {
		return nil, err
	}
	for _, want := range b.gateways() {
		has := false
		for _, a := range there {
			has = has || a == want
		}
		if has {
			continue
		}
		for _, a := range there {
			if a.Addr().Is4() == want.Addr().Is4() && !b.own(a) {
				return nil, &Error{Op: "use bridge", Device: b.Name, Err: &reason{fmt.Sprintf("there is one already with the address %v, not %v", a, want), syscall.EEXIST}}
			}
		}
		missing = append(missing, want)
	}
	return missing, nil
}

func (b Bridge) own(a netip.Prefix) bool {
	for _, g := range b.gateways() {
		if a == g {
			return true
		}
	}
	return false
}

// addressesOf lists a device's addresses but those of the link.
func addressesOf(h *netlink.Handle, link netlink.Link) (all []netip.Prefix, err error) {
	list, err := retried(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, failed(err, "list addresses of", link.Attrs().Name)
	}
	for _, a := range list {
		if p := prefixOf(a.IPNet); p.IsValid() && !p.Addr().IsLinkLocalUnicast() {
			all = append(all, p)
		}
	}
	return all, nil
}

func (b Bridge) addAddresses(o *owner.Owner, link netlink.Link) error {
	missing, err := b.missing(o.Handle, link)
	if err != nil || len(missing) == 0 {
		return err
	}
	if err := b.unused(o.Handle, link, missing); err != nil {
		return err
	}
	if err := quietIPv6(o.Handle, link, hasIPv6(missing)); err != nil {
		return err
	}
	if err := o.Handle.LinkSetUp(link); err != nil {
		return failed(err, "set up", b.Name)
	}
	if err := addAddresses(o.Handle, link, missing); err != nil {
		return err
	}
	return reachable(speakerOf(o), b.Name, missing)
}

// unused refuses subnets in which the host has an address already: what is sent there would go astray.
func (b Bridge) unused(h *netlink.Handle, link netlink.Link, subnets []netip.Prefix) error {
	list, err := retried(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return failed(err, "list addresses", "")
	}
	for _, a := range list {
		p := prefixOf(a.IPNet)
		if !p.IsValid() || a.LinkIndex == link.Attrs().Index {
			continue
		}
		for _, s := range subnets {
			if p.Overlaps(s) {
				return &Error{Op: fmt.Sprintf("give %v to", s), Device: b.Name,
					Err: &reason{fmt.Sprintf("the host has %v on device %s", p, b.deviceName(h, a.LinkIndex)), syscall.EADDRINUSE}}
			}
		}
	}
	return nil
}

func (b Bridge) deviceName(h *netlink.Handle, index int) string {
	if l, err := h.LinkByIndex(index); err == nil {
		return l.Attrs().Name
	}
	return strconv.Itoa(index)
}

func (b Bridge) delete(o *owner.Owner) error {
	unlock, err := lockBridge(o, b.Name)
	if err != nil {
		return err
	}
	defer unlock()
	link, err := find(o.Handle, b.Name)
	if errors.Is(err, syscall.ENODEV) {
		return os.RemoveAll(poolDir(o, b.Name))
	}
	if err != nil {
		return err
	}
	if _, ok := link.(*netlink.Bridge); !ok {
		return &Error{Op: "remove bridge", Device: b.Name, Err: &reason{"it is a " + link.Type(), syscall.EINVAL}}
	}
	all, err := retried(o.Handle.LinkList)
	if err != nil {
		return failed(err, "list devices", "")
	}
	for _, l := range all {
		if l.Attrs().MasterIndex == link.Attrs().Index {
			return &Error{Op: "remove bridge", Device: b.Name, Err: &reason{"it has the port " + l.Attrs().Name, syscall.EBUSY}}
		}
	}
	if err := o.Handle.LinkDel(link); err != nil {
		return failed(err, "remove bridge", b.Name)
	}
	return os.RemoveAll(poolDir(o, b.Name))
}

// Names lists who has which address on the bridge, with the names of [Bridge.Hosts]; [Hosts] makes a file of them.
func (b Bridge) Names() (held []ipam.Held, err error) {
	err = b.alone(func(o *owner.Owner) error {
		held, err = b.pool(o).Leases()
		return err
	})
	return held, err
}
