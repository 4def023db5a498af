//go:build linux

package netstack

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Bandwidth limits what passes a sandbox's cable to the host, at the host's end, where the sandbox cannot change it, and delays it. The zero value does nothing.
type Bandwidth struct {
	Receive Rate // to the sandbox (tc-tbf(8)); needs sch_tbf in the kernel
	Send    Rate // from the sandbox; needs sch_tbf, sch_ingress, cls_u32, act_mirred and ifb in the kernel

	ReceiveDelay Delay // of what the sandbox receives (tc-netem(8)), before Receive counts it; needs sch_netem
	SendDelay    Delay // of what it sends; needs sch_netem, and what Send needs but sch_tbf
}

// Rate is how much may pass.
type Rate struct {
	// Bytes per second, headers of Ethernet included, 1000 to 2^32-1. 0 leaves alone what there is, and [NoLimit] removes a limit.
	Bytes int64

	// Burst is how many bytes may pass at once after a pause. 0 is what passes in 20 milliseconds, at least 16 KiB.
	Burst int64

	// Latency is how long what comes too fast may wait; what would wait longer is dropped. 0 is 50 milliseconds, or as long as 128 KiB take if that is longer.
	Latency time.Duration
}

// Delay is what a long or a bad line does to packets. The zero value leaves alone what there is, and [NoLimit] as Time removes a delay. At most 20,000 packets wait, and no more than fill a line of 125 million bytes a second
// (but 1,000 always); further ones are dropped. With a [Rate] of a small Burst, kernels before 6.13 need the correction that the stable ones got in December 2024 ("netem: account for backlog updates from child qdisc"): else
// nothing passes after a while.
type Delay struct {
	Time   time.Duration // by which each packet is held up, at most a minute
	Jitter time.Duration // by how much Time varies at most, up or down; packets overtake one another then
	Loss   float64       // the share of packets that are dropped, 0 to 1
}

// NoLimit as [Rate.Bytes] removes a limit, and as [Delay.Time] a delay.
const NoLimit = -1

func (b Bandwidth) check() error {
	for _, err := range []error{b.Receive.check(), b.Send.check(), b.ReceiveDelay.check(), b.SendDelay.check()} {
		if err != nil {
			return err
		}
	}
	return nil
}

func (r Rate) check() error {
	switch {
	case r.Bytes != 0 && r.Bytes != NoLimit && (r.Bytes < 1000 || r.Bytes > math.MaxUint32):
		return &ValueError{"Bytes", strconv.FormatInt(r.Bytes, 10), "not between 1000 and 2^32-1 bytes per second"}
	case r.Burst < 0 || r.Burst > math.MaxInt32 || r.Burst != 0 && r.Burst < 2000:
		return &ValueError{"Burst", strconv.FormatInt(r.Burst, 10), "not between 2000 and 2^31-1 bytes"}
	case r.Bytes <= 0 && (r.Burst != 0 || r.Latency != 0):
		return &ValueError{"Bytes", strconv.FormatInt(r.Bytes, 10), "Burst and Latency are of a limit in bytes per second"}
	case r.Latency < 0 || r.Latency.Seconds()*float64(r.Bytes) > math.MaxInt32:
		return &ValueError{"Latency", r.Latency.String(), "negative, or more than 2^31-1 bytes would wait"}
	}
	return nil
}

func (d Delay) check() error {
	switch {
	case d.Time == NoLimit && (d.Jitter != 0 || d.Loss != 0):
		return &ValueError{"Time", "NoLimit", "Jitter and Loss are of a delay"}
	case d.Time != NoLimit && (d.Time < 0 || d.Time > time.Minute):
		return &ValueError{"Time", d.Time.String(), "not between 0 and a minute"}
	case d.Jitter < 0 || d.Jitter > max(d.Time, 0):
		return &ValueError{"Jitter", d.Jitter.String(), "negative, or more than Time"}
	case !(d.Loss >= 0 && d.Loss <= 1):
		return &ValueError{"Loss", strconv.FormatFloat(d.Loss, 'g', -1, 64), "not between 0 and 1"}
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
	for _, c := range cables {
		err = errors.Join(err, b.limit(host, c.host, false))
	}
	return err
}

// cablePair is one between the caller's network and a sandbox's.
type cablePair struct {
	host netlink.Link
	card string // the end inside
}

// cablesOf finds a sandbox's cables: each end names the other by its number.
func cablesOf(host *netlink.Handle, pid int) (all []cablePair, err error) {
	err = target{pid: pid}.with(func(in *netlink.Handle) error {
		links, err := retried(in.LinkList)
		if err != nil {
			return failed(err, "list devices", "")
		}
		for _, l := range links {
			if l.Type() != "veth" {
				continue
			}
			end, err := host.LinkByIndex(l.Attrs().ParentIndex)
			if err == nil && end.Type() == "veth" && end.Attrs().ParentIndex == l.Attrs().Index {
				all = append(all, cablePair{end, l.Attrs().Name})
			}
		}
		return nil
	})
	if err == nil && len(all) == 0 {
		err = &Error{Op: fmt.Sprintf("look for the cables of process %d", pid), Err: &reason{"it has no cable to this network", syscall.ENODEV}}
	}
	return all, err
}

// limit sets the limits of one cable, whose host's end is fresh if it has none yet.
func (b Bandwidth) limit(h *netlink.Handle, cable netlink.Link, fresh bool) error {
	if err := (flow{b.Receive, b.ReceiveDelay}).shape(h, cable, fresh); err != nil {
		return err
	}
	return flow{b.Send, b.SendDelay}.shapeSent(h, cable)
}

// shapeSent limits what comes from a cable: on the device by which it goes then. Only what leaves a device can wait.
func (f flow) shapeSent(h *netlink.Handle, cable netlink.Link) error {
	if f == (flow{}) {
		return nil
	}
	detour, err := find(h, detourName(cable.Attrs().Name))
	fresh := err != nil
	if fresh && f.onlyRemoves() {
		return nil
	}
	if fresh {
		if detour, err = redirected(h, cable); err != nil {
			return err
		}
	}
	left, err := f.reshape(h, detour, fresh)
	if err == nil && left.none() || err != nil && fresh {
		err = errors.Join(err, free(h, cable))
	}
	return err
}

// redirected makes the device by which everything goes that comes from the cable.
func redirected(h *netlink.Handle, cable netlink.Link) (netlink.Link, error) {
	name := detourName(cable.Attrs().Name)
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

// free removes the detour of what comes from the cable, with its limits.
func free(h *netlink.Handle, cable netlink.Link) error {
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
