//go:build linux

package firewall

import (
	"errors"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/netstack/internal/batch"
)

// bridgeMACs looks up the bridges of cards.
func (f *Firewall) bridgeMACs(r Rules) (map[string]net.HardwareAddr, error) {
	macs := map[string]net.HardwareAddr{}
	for _, c := range r.Cards {
		if c.Bridge == "" || macs[c.Bridge] != nil {
			continue
		}
		mac, err := f.hardware(c.Bridge)
		if err != nil {
			return nil, err
		}
		macs[c.Bridge] = mac
	}
	return macs, nil
}

// hardware is the hardware address of an interface.
func (f *Firewall) hardware(name string) (mac net.HardwareAddr, err error) {
	answers, err := f.ask.Do(batch.Link(0, name))
	if refused := (*batch.Error)(nil); errors.As(err, &refused) {
		err = refused.Err
	}
	if err != nil {
		return nil, &Error{Op: "find the interface " + name, Err: err}
	}
	if len(answers[0]) < unix.SizeofIfInfomsg {
		return nil, &Error{Op: "find the interface " + name, Err: unix.EIO}
	}
	for kind, v := range batch.Attrs(answers[0][unix.SizeofIfInfomsg:]) {
		if kind == unix.IFLA_ADDRESS {
			mac = slices.Clone(v)
		}
	}
	return mac, nil
}

// device finds an interface of the calling thread's namespace.
func (f *Firewall) device(name string) (netlink.Link, error) {
	l, err := f.links.LinkByName(name)
	if _, missing := err.(netlink.LinkNotFoundError); missing {
		err = unix.ENODEV
	}
	if err != nil {
		return nil, &Error{Op: "find the interface " + name, Err: err}
	}
	return l, nil
}

// allowHairpin lets a bridge send a packet back to the port by which it came, as it does with what a sandbox sends to its own published port, or to a service that it offers, where br_netfilter is in force. Nothing else
// comes back: see the set echo.
func (f *Firewall) allowHairpin(r Rules) error {
	for _, c := range r.Cards {
		if c.Bridge == "" || c.Later {
			continue
		}
		l, err := f.device(c.Name)
		if err != nil {
			return err
		}
		if err := f.links.LinkSetHairpin(l, true); err != nil {
			hint := ""
			if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
				hint = "is it a port of " + c.Bridge + "?"
			}
			return &Error{Op: "set hairpin mode of " + c.Name, Err: err, Hint: hint}
		}
	}
	return nil
}
