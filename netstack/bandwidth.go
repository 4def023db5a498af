//go:build linux

package netstack

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bandwidth limits what passes a sandbox's cable to the host, at the host's end, where the sandbox cannot change it. The zero value limits nothing.
type Bandwidth struct {
	Receive Rate // to the sandbox (tc-tbf(8)); needs sch_tbf in the kernel
	Send    Rate // from the sandbox; needs sch_tbf, sch_ingress, cls_u32, act_mirred and ifb in the kernel
}

// Rate is how much may pass. What comes too fast waits for up to 50 milliseconds, or for as long as 128 KiB take if that is longer, and is then dropped.
type Rate struct {
	// Bytes per second, headers of Ethernet included, 1000 to 2^32-1. 0 leaves alone what there is, and [NoLimit] removes a limit.
	Bytes int64

	// Burst is how many bytes may pass at once after a pause. 0 is what passes in 20 milliseconds, at least 16 KiB.
	Burst int64
}

// NoLimit as [Rate.Bytes] removes a limit.
const NoLimit = -1

func (b Bandwidth) check() error {
	for _, r := range []Rate{b.Receive, b.Send} {
		if r.Bytes != 0 && r.Bytes != NoLimit && (r.Bytes < 1000 || r.Bytes > math.MaxUint32) {
			return &ValueError{"Bytes", strconv.FormatInt(r.Bytes, 10), "not between 1000 and 2^32-1 bytes per second"}
		}
		if r.Burst < 0 || r.Burst > math.MaxInt32 || r.Burst != 0 && r.Burst < 2000 {
			return &ValueError{"Burst", strconv.FormatInt(r.Burst, 10), "not between 2000 and 2^31-1 bytes"}
		}
	}
	return nil
}

// Set changes the limits of all cables of a running sandbox; the pid is that of a process in it. A sandbox without a cable to the caller's network is an [*Error] with ENODEV.
func (b Bandwidth) Set(pid int) error {
	if err := b.check(); err != nil {
		return err
	}
	host, err := newHandle()
	if err != nil {
		return err
	}
	defer host.Close()
	cables, err := cablesOf(host, pid)
	if err != nil {
		return err
	}
	if len(cables) == 0 {
		return &Error{Op: fmt.Sprintf("limit the bandwidth of process %d", pid), Err: &reason{"it has no cable to this network", syscall.ENODEV}}
	}
	for _, c := range cables {
		err = errors.Join(err, b.limit(host, c))
	}
	return err
}

// cablesOf finds the host's ends of a sandbox's cables: each end names the other by its number.
func cablesOf(host *netlink.Handle, pid int) (ends []netlink.Link, err error) {
	err = target{pid: pid}.with(func(in *netlink.Handle) error {
		all, err := retried(in.LinkList)
		if err != nil {
			return failed(err, "list devices", "")
		}
		for _, l := range all {
			if l.Type() != "veth" {
				continue
			}
			end, err := host.LinkByIndex(l.Attrs().ParentIndex)
			if err == nil && end.Type() == "veth" && end.Attrs().ParentIndex == l.Attrs().Index {
				ends = append(ends, end)
			}
		}
		return nil
	})
	return ends, err
}

// limit sets the limits of one cable.
func (b Bandwidth) limit(h *netlink.Handle, cable netlink.Link) error {
	if err := b.Receive.shape(h, cable); err != nil {
		return err
	}
	switch b.Send.Bytes {
	case 0:
		return nil
	case NoLimit:
		return b.Send.free(h, cable)
	}
	detour, err := redirected(h, cable)
	if err != nil {
		return err
	}
	return b.Send.shape(h, detour)
}

// shape limits what leaves by a device.
func (r Rate) shape(h *netlink.Handle, link netlink.Link) error {
	attrs := netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	if r.Bytes == 0 {
		return nil
	}
	if r.Bytes == NoLimit {
		err := h.QdiscDel(&netlink.Tbf{QdiscAttrs: attrs})
		if err == syscall.ENOENT || err == syscall.EINVAL { // there is none
			return nil
		}
		return failed(err, "remove the limit of", link.Attrs().Name)
	}
	burst := cmp.Or(r.Burst, max(r.Bytes/50, 16<<10))
	q := &netlink.Tbf{QdiscAttrs: attrs, Rate: uint64(r.Bytes), Buffer: netlink.Xmittime(uint64(r.Bytes), uint32(burst)),
		Limit: uint32(min(burst+max(r.Bytes/20, 128<<10), math.MaxUint32))}
	return without(h.QdiscReplace(q), fmt.Sprintf("limit to %d bytes per second", r.Bytes), link, "sch_tbf")
}

// redirected gives the device by which everything goes that comes from the cable. Only what leaves a device can wait.
func redirected(h *netlink.Handle, cable netlink.Link) (netlink.Link, error) {
	name := detourName(cable.Attrs().Name)
	if link, err := find(h, name); err == nil {
		return link, nil
	}
	ifb := &netlink.Ifb{LinkAttrs: netlink.NewLinkAttrs()}
	ifb.Name, ifb.Flags = name, 0
	if err := h.LinkAdd(ifb); err != nil {
		return nil, without(err, "create ifb for", cable, "ifb")
	}
	err := func() error {
		if err := quietIPv6(h, ifb, false); err != nil {
			return err
		}
		if err := h.LinkSetUp(ifb); err != nil {
			return failed(err, "set up", name)
		}
		in := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: cable.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
		if err := h.QdiscReplace(in); err != nil {
			return without(err, "redirect", cable, "sch_ingress")
		}
		all := &netlink.U32{FilterAttrs: netlink.FilterAttrs{LinkIndex: cable.Attrs().Index, Parent: netlink.MakeHandle(0xffff, 0), Priority: 1, Protocol: unix.ETH_P_ALL},
			Actions: []netlink.Action{netlink.NewMirredAction(ifb.Index)}}
		return without(h.FilterAdd(all), "redirect", cable, "cls_u32 or act_mirred")
	}()
	if err != nil {
		return nil, errors.Join(err, remove(h, name))
	}
	return ifb, nil
}

// free removes the limit of what comes from the cable.
func (r Rate) free(h *netlink.Handle, cable netlink.Link) error {
	in := &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: cable.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
	if err := h.QdiscDel(in); err != nil && err != syscall.ENOENT && err != syscall.EINVAL {
		return failed(err, "remove the limit of", cable.Attrs().Name)
	}
	return remove(h, detourName(cable.Attrs().Name))
}

// detourName is the name of the device by which a cable's packets go: it bears the same owner.
func detourName(cable string) string { return cable + "+" }

// without makes the error of a part of the kernel's that may be missing.
func without(err error, op string, link netlink.Link, module string) error {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EOPNOTSUPP) {
		return &Error{Op: op, Device: link.Attrs().Name, Err: &reason{"the kernel has no " + module, errors.Join(errors.ErrUnsupported, err)}}
	}
	return failed(err, op, link.Attrs().Name)
}
