//go:build linux

package netstack

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/caisson-dev/caisson/netstack/internal/owner"
	"github.com/caisson-dev/caisson/netstack/ipam"
)

// Sweep removes, in the network namespace of the calling thread, what processes that have ended without cleaning up have left behind: devices and addresses. Nothing of anybody else's
// is touched. The first start of a process does it, too, and later ones from time to time. The state is the directory of [Bridge.State].
func Sweep(state string) error {
	if state == "" {
		state = StateDir
	}
	o, err := owner.Enter(state)
	if err != nil {
		return failed(err, "open netlink", "")
	}
	return errors.Join(bury(o), o.Leave())
}

// sweep does it when it is due.
func sweep(o *owner.Owner) error {
	if !o.Due() {
		return nil
	}
	return bury(o)
}

func bury(o *owner.Owner) error {
	dead, err := o.Dead()
	if err != nil || len(dead) == 0 {
		return err
	}
	ids := map[string]bool{}
	for _, d := range dead {
		ids[d.ID] = true
	}
	err = errors.Join(removeDevices(o, ids), releaseLeases(o, ids))
	for _, d := range dead {
		err = errors.Join(err, d.Bury(err == nil))
	}
	return err
}

func removeDevices(o *owner.Owner, ids map[string]bool) (err error) {
	all, e := retried(o.Handle.LinkList)
	if e != nil {
		return failed(e, "list devices", "")
	}
	for _, l := range all {
		if id := owner.Of(l.Attrs().Name); id != "" && ids[id] {
			err = errors.Join(err, remove(o.Handle, l.Attrs().Name))
		}
	}
	return err
}

func releaseLeases(o *owner.Owner, ids map[string]bool) (err error) {
	pools, e := os.ReadDir(filepath.Join(o.Dir, "pools"))
	if e != nil && !errors.Is(e, fs.ErrNotExist) {
		return e
	}
	for _, p := range pools {
		_, e := ipam.Pool{Dir: poolDir(o, p.Name())}.Sweep(func(id string) bool { return ids[id] })
		err = errors.Join(err, e)
	}
	return err
}

// goneOwners tells a pool that is full which owners do not live any more.
func goneOwners(o *owner.Owner) func(string) bool {
	return func(id string) bool { return !owner.Alive(filepath.Join(o.Dir, "owners"), id) }
}

// freshMAC is a hardware address that nobody else has: 46 random bits, marked as given by an administrator and as that of one device.
func freshMAC() net.HardwareAddr {
	mac := make(net.HardwareAddr, 6)
	rand.Read(mac)
	mac[0] = mac[0]&^1 | 2
	return mac
}

// freshName is a name for a device for a moment.
func freshName() string { return "tmp" + hex.EncodeToString(freshMAC()) }

// prefixOf turns an address of package net into one of netip; the zero value when it is none.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}
	}
	if size == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits)
}
