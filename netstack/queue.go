//go:build linux

package netstack

import (
	"github.com/vishvananda/netlink"
)

// Queue counts what a limit or a delay of one direction has done since it was set. The zero value is that of a direction without.
type Queue struct {
	Bytes   uint64 // that have passed, headers of Ethernet included
	Packets uint64 // that have passed
	Dropped uint64 // packets that would have waited too long, or that Delay.Loss has chosen
	Waiting uint64 // bytes that wait at the moment
}

// CardQueues are those of one cable.
type CardQueues struct {
	Card          string // the sandbox's end
	Receive, Send Queue
}

// Queues reads the counters of the limits and delays of all cables of a running sandbox ([Bandwidth]); the pid is that of a process in it. A sandbox without a cable to the caller's network is an [*Error] with ENODEV. The numbers of
// all that passes a device are in [Inspect]'s.
func Queues(pid int) (all []CardQueues, err error) {
	host, err := newHandle()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	cables, err := cablesOf(host, pid)
	if err != nil {
		return nil, err
	}
	for _, c := range cables {
		q := CardQueues{Card: c.card}
		if q.Receive, err = counted(host, c.host); err != nil {
			return nil, err
		}
		if detour, e := find(host, detourName(c.host.Attrs().Name)); e == nil {
			if q.Send, err = counted(host, detour); err != nil {
				return nil, err
			}
		}
		all = append(all, q)
	}
	return all, nil
}

// counted are the counters of the root of a device's queues, which has counted what the other has dropped, too.
func counted(h *netlink.Handle, link netlink.Link) (c Queue, err error) {
	q, err := queuesOf(h, link)
	if err != nil || q.none() {
		return c, err
	}
	var s *netlink.QdiscStatistics
	if q.rate != nil {
		s = q.rate.Statistics
	}
	if q.delay != nil {
		s = q.delay.Statistics
	}
	if s == nil {
		return c, nil
	}
	if s.Basic != nil {
		c.Bytes, c.Packets = s.Basic.Bytes, uint64(s.Basic.Packets)
	}
	if s.Queue != nil {
		c.Dropped, c.Waiting = uint64(s.Queue.Drops), uint64(s.Queue.Backlog)
	}
	return c, nil
}
