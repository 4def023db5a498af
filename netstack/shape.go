//go:build linux

package netstack

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

// The queues of a device: the delay is its root, and the limit stands behind it, so that it counts packets when they leave. Without a delay the limit is the root. Their handles say which is which.
var (
	rateHandle  = netlink.MakeHandle(1, 0)
	delayHandle = netlink.MakeHandle(2, 0)
	behindDelay = netlink.MakeHandle(2, 1)
)

// flow is what is wanted for one direction.
type flow struct {
	Rate
	Delay
}

// onlyRemoves reports whether there is nothing to do where there are no queues.
func (f flow) onlyRemoves() bool {
	return f.Bytes <= 0 && (f.Delay == Delay{} || f.Time == NoLimit)
}

// queues are those of ours that a device has; nil stands for none.
type queues struct {
	rate  *netlink.Tbf
	delay *netlink.Netem
}

func (q queues) none() bool { return q.rate == nil && q.delay == nil }

// queuesOf looks which there are.
func queuesOf(h *netlink.Handle, link netlink.Link) (q queues, err error) {
	list, err := retried(func() ([]netlink.Qdisc, error) { return h.QdiscList(link) })
	if err != nil {
		return q, failed(err, "list the queues of", link.Attrs().Name)
	}
	for _, d := range list {
		switch d := d.(type) {
		case *netlink.Tbf:
			if d.Handle == rateHandle {
				q.rate = d
			}
		case *netlink.Netem:
			if d.Handle == delayHandle {
				q.delay = d
			}
		}
	}
	return q, nil
}

// shape sets the queues of what leaves by a device.
func (f flow) shape(h *netlink.Handle, link netlink.Link, fresh bool) error {
	if f == (flow{}) || fresh && f.onlyRemoves() {
		return nil
	}
	_, err := f.reshape(h, link, fresh)
	return err
}

// reshape does so, and gives what there is then. If it fails, what was there before is there again.
func (f flow) reshape(h *netlink.Handle, link netlink.Link, fresh bool) (want queues, err error) {
	var have queues
	if !fresh {
		if have, err = queuesOf(h, link); err != nil {
			return want, err
		}
	}
	want = f.change(have)
	err = have.become(h, link, want)
	if errors.Is(err, errHalf) {
		err = errors.Join(err, want.become(h, link, queues{}), queues{}.become(h, link, have))
	}
	return want, err
}

// change gives the queues that are wanted where there are some.
func (f flow) change(q queues) queues {
	switch {
	case f.Bytes == NoLimit:
		q.rate = nil
	case f.Bytes != 0:
		q.rate = f.Rate.queue()
	}
	switch {
	case f.Time == NoLimit:
		q.delay = nil
	case f.Delay != Delay{}:
		q.delay = f.Delay.queue()
	}
	return q
}

// queue is a bucket that fills with the rate, and lets pass what is in it (tc-tbf(8)).
func (r Rate) queue() *netlink.Tbf {
	burst := cmp.Or(r.Burst, max(r.Bytes/50, 16<<10))
	waiting := max(r.Bytes/20, 128<<10)
	if r.Latency != 0 {
		waiting = int64(r.Latency.Seconds() * float64(r.Bytes))
	}
	return &netlink.Tbf{Rate: uint64(r.Bytes), Buffer: netlink.Xmittime(uint64(r.Bytes), uint32(burst)), Limit: uint32(min(burst+waiting, math.MaxUint32))}
}

// queue holds packets for a time (tc-netem(8)).
func (d Delay) queue() *netlink.Netem {
	const perMillisecond = 125_000 / 1514
	packets := 1000 + (d.Time+d.Jitter).Milliseconds()*perMillisecond
	return netlink.NewNetem(netlink.QdiscAttrs{}, netlink.NetemQdiscAttrs{Latency: micros(d.Time), Jitter: micros(d.Jitter), Loss: float32(d.Loss * 100), Limit: uint32(min(packets, 20_000))})
}

// micros is rounded up: what is held up for less would not be as was said.
func micros(d time.Duration) uint32 { return uint32((d + time.Microsecond - 1) / time.Microsecond) }

// errHalf says that the queues are neither what they were nor what they are to be.
var errHalf = errors.New("the queues are half changed")

// become changes the queues of a device from what they are. A change of the numbers is one of the kernel's, and what waits goes on waiting; where a delay comes or goes, what waits is lost.
func (q queues) become(h *netlink.Handle, link netlink.Link, want queues) error {
	root := uint32(netlink.HANDLE_ROOT)
	switch {
	case want.delay != nil:
		if want.delay == q.delay {
			return want.setRate(h, link, behindDelay, q)
		}
		if err := want.setDelay(h, link); err != nil {
			return err
		}
		if q.delay == nil { // the root is another one now, and what stood there is gone
			q.rate = nil
		}
		return half(want.setRate(h, link, behindDelay, q))
	case q.delay != nil:
		if err := deleteQueue(h, link, root, delayHandle); err != nil {
			return err
		}
		q.rate = nil
		return half(want.setRate(h, link, root, q))
	}
	return want.setRate(h, link, root, q)
}

func half(err error) error {
	if err != nil {
		return errors.Join(errHalf, err)
	}
	return nil
}

func (q queues) setDelay(h *netlink.Handle, link netlink.Link) error {
	q.delay.QdiscAttrs = netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: delayHandle, Parent: netlink.HANDLE_ROOT}
	return without(h.QdiscReplace(q.delay), "delay what passes", link, "sch_netem")
}

func (q queues) setRate(h *netlink.Handle, link netlink.Link, parent uint32, have queues) error {
	switch {
	case q.rate == have.rate:
		return nil
	case q.rate == nil:
		return deleteQueue(h, link, parent, rateHandle)
	}
	q.rate.QdiscAttrs = netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: rateHandle, Parent: parent}
	return without(h.QdiscReplace(q.rate), fmt.Sprintf("limit to %d bytes per second", q.rate.Rate), link, "sch_tbf")
}

// deleteQueue removes one, which may be gone.
func deleteQueue(h *netlink.Handle, link netlink.Link, parent, handle uint32) error {
	err := h.QdiscDel(&netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: handle, Parent: parent}})
	if err == syscall.ENOENT || err == syscall.EINVAL {
		return nil
	}
	return failed(err, "remove the limit of", link.Attrs().Name)
}
