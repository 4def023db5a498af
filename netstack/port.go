//go:build linux

package netstack

import (
	"cmp"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/firewall"
	"github.com/caisson-dev/caisson/netstack/internal/owner"
	"github.com/caisson-dev/caisson/netstack/ipam"
)

// port is one sandbox's cable to the bridge.
type port struct {
	Bridge
	lease *ipam.Lease
	index int    // of the bridge
	mtu   int    // of the bridge
	live  bool   // the bridge has had working ports before
	cable string // the host's end, once it may be there
	held  *firewall.Held
}

// prepare does all but the cable. The rules are in force before there is one: nothing passes without them.
func (t *port) prepare(w *wire) (err error) {
	bridge, err := t.Bridge.ensure(w.owner)
	if err != nil {
		return err
	}
	t.index, t.mtu, t.live = bridge.index, bridge.mtu, bridge.works
	if err := t.reserve(w.owner); err != nil {
		return err
	}
	if t.cable == "" {
		t.cable = w.owner.Name()
	}
	if t.Card.MAC == nil {
		t.Card.MAC = freshMAC()
	}
	return t.guard(w.owner)
}

// reserve takes the addresses.
func (t *port) reserve(o *owner.Owner) (err error) {
	if t.lease != nil || len(t.Subnets) == 0 {
		return nil
	}
	r := ipam.Request{Owner: o.ID, Addresses: t.Addresses, Names: t.Hosts}
	pool := t.pool(o)
	t.lease, err = pool.Take(r)
	var full *ipam.ExhaustedError
	if !errors.As(err, &full) {
		return err
	}
	if n, e := pool.Sweep(goneOwners(o)); e != nil || n == 0 {
		return err
	}
	t.lease, err = pool.Take(r)
	return err
}

func (t *port) plug(w *wire) error {
	in, err := w.inside()
	if err != nil {
		return err
	}
	link := newVeth(t.cable, t.Card, w.target)
	link.PeerMTU = uint32(cmp.Or(t.Card.MTU, t.mtu))
	link.MTU, link.MasterIndex = t.mtu, t.index // a port with a smaller MTU would lower that of the whole bridge
	answers, err := w.host.do(t.cable, newCable(link, t.Card.Name), look(0, t.cable))
	if err != nil {
		return err
	}
	made := read(answers[1])
	link.Index = made.index
	if made.peer == 0 { // older kernels leave it out where both ends have the same number
		err = t.Card.configure(in, t.addresses())
	} else {
		err = t.Card.dress(in, made.peer, t.Card.MAC, t.addresses())
	}
	if err != nil {
		return err
	}
	if err := t.join(w.host, link); err != nil {
		return err
	}
	if err := t.settle(w, in); err != nil {
		return err
	}
	return t.Card.reachable(in, t.addresses())
}

// settle waits until both ends work, and the bridge, if this is its first port. One that looks for loops works later, and the host is in no hurry.
func (t *port) settle(w *wire, in speaker) error {
	if err := settle(in, t.Card.Name); err != nil || t.live {
		return err
	}
	err := settleWithin(w.host, t.Name, 20*time.Millisecond)
	if errors.Is(err, syscall.ETIMEDOUT) {
		return nil
	}
	return err
}

// join makes the cable a working port of the bridge. The host's end is set up last.
func (t *port) join(s speaker, link netlink.Link) error {
	index := link.Attrs().Index
	s.do(t.cable, quiet(index)) // the bridge speaks, its ports do not; a kernel without IPv6 refuses it
	if t.VLAN != 0 {
		if err := setVLAN(s.Handle, link, uint16(t.VLAN)); err != nil {
			return failed(err, fmt.Sprintf("set VLAN %d of", t.VLAN), t.cable)
		}
	}
	if err := t.Bandwidth.limit(s.Handle, link, true); err != nil {
		return err
	}
	_, err := s.do(t.cable, append(t.manners(index), setUp(index))...)
	return err
}

// manners are how the bridge is to treat the port. What a sandbox sends to its own published port comes back to it (hairpin), as [firewall.Card] has it; nothing else does.
func (t *port) manners(index int) (list []request) {
	if !t.Unchecked {
		list = append(list, bridgePort(index, nl.IFLA_BRPORT_MODE, "set hairpin mode of"))
	}
	if t.Isolated {
		list = append(list, bridgePort(index, nl.IFLA_BRPORT_ISOLATED, "isolate"))
	}
	return list
}

// setVLAN moves a port from the bridge's default VLAN into another one.
func setVLAN(h *netlink.Handle, link netlink.Link, id uint16) error {
	if id == 1 {
		return nil
	}
	if err := h.BridgeVlanAdd(link, id, true, true, false, false); err != nil {
		return err
	}
	return h.BridgeVlanDel(link, 1, true, true, false, false)
}

func (t *port) addresses() (a addresses) {
	if t.lease == nil {
		return a
	}
	a.own = t.lease.Addresses
	if !t.Internal {
		a.gateways = t.lease.Gateways
	}
	return a
}

func (t *port) unplug(w *wire) (err error) {
	if t.cable != "" {
		err = removeCable(w.host.Handle, t.cable)
		t.cable = ""
	}
	if t.held != nil { // once nothing can be sent any more
		err = errors.Join(err, t.held.Remove())
		t.held = nil
	}
	if t.lease != nil {
		err = errors.Join(err, t.lease.Release())
		t.lease = nil
	}
	return err
}

// removeCable removes the host's end of a cable, and by what its packets go.
func removeCable(h *netlink.Handle, name string) error {
	return errors.Join(remove(h, name), remove(h, detourName(name)))
}

// remove removes a device of the host's side, if it is still there.
func remove(h *netlink.Handle, name string) error {
	link := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name}}
	found, err := retried(func() (netlink.Link, error) { return h.LinkByName(name) })
	if _, missing := err.(netlink.LinkNotFoundError); missing || err == unix.ENODEV {
		return nil
	}
	if err != nil {
		return failed(err, "find", name)
	}
	link.Index = found.Attrs().Index
	if err := h.LinkDel(link); err != nil && err != unix.ENODEV {
		return failed(err, "remove", name)
	}
	return nil
}
