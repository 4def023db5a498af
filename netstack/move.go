//go:build linux

package netstack

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// Move gives the sandbox a device of the host's, a physical card for example, which the host has not meanwhile. At the end the host has it back with its name, hardware address, MTU and addresses, and up if it was; routes that
// went over it are not put back.
//
// Where the host process is killed, the kernel gives a physical device back when the last process of the sandbox has ended, under the name that it has inside; a virtual one (veth, macvlan) ends with the network it is in. The device
// is the sandbox's own: a sandbox with CAP_NET_ADMIN over its network can also move it on. A device of a bridge or a bond leaves that for good.
// What it sends is checked by nobody but the switch at its other end.
//
// Needs CAP_NET_ADMIN over the host's network and CAP_SYS_ADMIN.
type Move struct {
	Device string // of the host's
	Card   Card   // Name "" keeps the device's name
}

// Apply asks for the device.
func (m Move) Apply(p *plan.Plan) error {
	m.Card.Name = cmp.Or(m.Card.Name, m.Device)
	if err := errors.Join(checkName("Device", m.Device), m.Card.check()); err != nil {
		return err
	}
	if _, err := sessionOf(p); err != nil {
		return err
	}
	var err error
	if m.Card, err = m.Card.claim(p); err != nil {
		return err
	}
	attach(p, m.Card.Name, fmt.Sprintf("move the host's %q, %q inside", m.Device, m.Card.Name), func() device { return &guest{Move: m} })
	return nil
}

// guest is a device that is away.
type guest struct {
	Move
	link   netlink.Link // as it was
	before netlink.LinkAttrs
	had    []netip.Prefix
	index  int // inside
	moved  bool

	home *os.File // the host's network
	in   speaker  // speaks to the sandbox's, and keeps it alive until the device is back
}

func (g *guest) prepare(w *wire) error {
	link, err := find(w.host.Handle, g.Device)
	if err != nil {
		return err
	}
	g.link, g.before = link, *link.Attrs()
	g.had, err = addressesOf(w.host.Handle, link)
	return err
}

func (g *guest) plug(w *wire) (err error) {
	if g.home, err = w.home(); err != nil {
		return err
	}
	in, wait, err := w.target.speak(nil)
	if err != nil {
		return err
	}
	wait()
	g.in = in
	if err := w.target.take(w.host.Handle, g.link); err != nil {
		return failed(err, "move into the sandbox", g.Device)
	}
	g.moved = true
	arrived, err := find(g.in.Handle, g.Device)
	if err != nil {
		return err
	}
	g.index = arrived.Attrs().Index
	if err := g.dress(g.in.Handle, g.Device, g.Card); err != nil {
		return err
	}
	return g.Card.configure(g.in, addresses{})
}

// take moves a device into the namespace.
func (t target) take(h *netlink.Handle, link netlink.Link) error {
	if t.ns != nil {
		return h.LinkSetNsFd(link, int(t.ns.Fd()))
	}
	return h.LinkSetNsPid(link, t.pid)
}

// dress gives the device, which is down, the card's name, address and MTU.
func (g *guest) dress(h *netlink.Handle, name string, c Card) error {
	link, err := find(h, name)
	if err != nil {
		return err
	}
	if c.Name != name {
		if err := h.LinkSetName(link, c.Name); err != nil {
			return failed(err, fmt.Sprintf("name %q", c.Name), name)
		}
	}
	if c.MAC != nil && c.MAC.String() != link.Attrs().HardwareAddr.String() {
		if err := h.LinkSetHardwareAddr(link, c.MAC); err != nil {
			return failed(err, "set address "+c.MAC.String()+" of", c.Name)
		}
	}
	if c.MTU != 0 && c.MTU != link.Attrs().MTU {
		return failed(h.LinkSetMTU(link, c.MTU), fmt.Sprintf("set mtu %d of", c.MTU), c.Name)
	}
	return nil
}

// unplug brings the device back. The sandbox may have named it anew, so it is found by its number.
func (g *guest) unplug(w *wire) (err error) {
	if g.in.Handle == nil {
		return g.closeHome()
	}
	defer func() {
		g.in.Close()
		g.in, g.index, g.moved = speaker{}, 0, false
		err = errors.Join(err, g.closeHome())
	}()
	link, err := g.away()
	if link == nil {
		return err
	}
	if err := g.in.LinkSetDown(link); err != nil {
		return failed(err, "set down", link.Attrs().Name)
	}
	transit := freshName() // the host may have another device of that name by now
	if err := g.in.LinkSetName(link, transit); err != nil {
		return failed(err, fmt.Sprintf("name %q", transit), link.Attrs().Name)
	}
	if err := g.in.LinkSetNsFd(link, int(g.home.Fd())); err != nil {
		return failed(err, "move back to the host", g.Device)
	}
	return target{ns: g.home}.with(func(h *netlink.Handle) error { return g.restore(h, transit) })
}

// restore makes the device what it was.
func (g *guest) restore(h *netlink.Handle, transit string) error {
	if err := g.dress(h, transit, Card{Name: g.Device, MAC: g.before.HardwareAddr, MTU: g.before.MTU}); err != nil {
		return err
	}
	link, err := find(h, g.Device)
	if err != nil {
		return err
	}
	const byHardware = 0 // IN6_ADDR_GEN_MODE_EUI64, the kernel's default
	h.LinkSetIP6AddrGenMode(link, byHardware)
	if g.before.RawFlags&unix.IFF_UP != 0 {
		if err := h.LinkSetUp(link); err != nil {
			return failed(err, "set up", g.Device)
		}
	}
	for _, a := range g.had {
		if err := addAddress(h, link, a); err != nil {
			return err
		}
	}
	return nil
}

// away finds the device in the sandbox; nil: it never was there. A device of another kind with its number is one that the sandbox has put in its place, and not taken home.
func (g *guest) away() (netlink.Link, error) {
	if !g.moved {
		return nil, nil
	}
	link, err := retried(func() (netlink.Link, error) {
		if g.index == 0 {
			return g.in.LinkByName(g.Device)
		}
		return g.in.LinkByIndex(g.index)
	})
	if _, missing := err.(netlink.LinkNotFoundError); missing || err == nil && link.Type() != g.link.Type() {
		err = syscall.ENODEV
	}
	if err != nil {
		return nil, failed(err, "have back from the sandbox", g.Device)
	}
	return link, nil
}

// with calls f with a handle that speaks to the namespace.
func (t target) with(f func(*netlink.Handle) error) error {
	h, err := t.open()
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

func (g *guest) closeHome() error {
	if g.home == nil {
		return nil
	}
	err := g.home.Close()
	g.home = nil
	return err
}
