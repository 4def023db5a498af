//go:build linux

package cgroups

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// source is a file that is waited for.
type source struct {
	group  *Group
	fd     int // the file whose change is waited for
	read   int // the file that is read then; the same, but with an eventfd of version 1
	res    Resource
	counts []counter
}

// counter is a line of the file, and what its change means.
type counter struct {
	key      string
	up, down EventKind // down: for a state, when it becomes 0
	last     int64
}

func (s *source) close() {
	if s.read != s.fd {
		unix.Close(s.read)
	}
	unix.Close(s.fd)
}

// source opens a file of events: nil where it is not there.
func (w *Watcher) source(g *Group, d *dir, file string, counts []counter) (*source, error) {
	if file == "memory.events" && !d.v2 {
		return legacyOOM(g, d)
	}
	fd, err := d.kernel.open(d.fd(), file, unix.O_RDONLY)
	if err == syscall.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, d.failed("watch", file, "", err)
	}
	return &source{group: g, fd: fd, read: fd, counts: counts}, nil
}

// legacyOOM has version 1 write to an eventfd: cgroup.event_control connects it with memory.oom_control.
func legacyOOM(g *Group, d *dir) (*source, error) {
	read, err := d.kernel.open(d.fd(), "memory.oom_control", unix.O_RDONLY)
	if err != nil {
		return nil, d.failed("watch", "memory.oom_control", "", err)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		if err = d.write("cgroup.event_control", fmt.Sprintf("%d %d", fd, read)); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		unix.Close(read)
		return nil, err
	}
	return &source{group: g, fd: fd, read: read, counts: []counter{{key: "oom_kill", up: OOMKill}}}, nil
}

func (w *Watcher) ready(id int32) {
	s := w.sources[id]
	if s == nil {
		return
	}
	if s.res != "" {
		w.stress(id, s)
		return
	}
	err := s.look(func(c *counter, by int64) { w.queue = append(w.queue, c.event(s.group, by)) })
	if err == nil && s.read != s.fd {
		err = w.legacyOOM(s)
	}
	if err != nil { // ENODEV: the group is gone
		w.removed(id, s.group)
	}
}

// legacyOOM tells of an event of version 1, which comes just before the kill that it leads to.
func (w *Watcher) legacyOOM(s *source) (err error) {
	var b [8]byte
	if n, err := unix.Read(s.fd, b[:]); err != nil || n != len(b) {
		return nil
	}
	w.queue = append(w.queue, Event{Group: s.group, Kind: OOM, Count: int64(binary.NativeEndian.Uint64(b[:]))})
	for range 10 {
		seen := false
		err = s.look(func(c *counter, by int64) {
			seen = true
			w.queue = append(w.queue, c.event(s.group, by))
		})
		if seen || err != nil {
			break
		}
		time.Sleep(200 * time.Microsecond)
	}
	return err
}

// stress tells of a pressure, or of the group's end: the file of a group that is gone cannot be read.
func (w *Watcher) stress(id int32, s *source) {
	if _, err := readAll(s.fd, make([]byte, 256)); err != nil {
		w.removed(id, s.group)
		return
	}
	w.queue = append(w.queue, Event{Group: s.group, Kind: UnderStress, Count: 1, Resource: s.res})
}

// removed tells once of a group's end.
func (w *Watcher) removed(id int32, g *Group) {
	w.drop(id)
	for _, e := range w.queue {
		if e.Group == g && e.Kind == Removed {
			return
		}
	}
	for id, s := range w.sources {
		if s.group == g {
			w.drop(id)
		}
	}
	w.queue = append(w.queue, Event{Group: g, Kind: Removed, Count: 1})
}

func (c *counter) event(g *Group, by int64) Event {
	if by < 0 {
		return Event{Group: g, Kind: c.down, Count: 1}
	}
	return Event{Group: g, Kind: c.up, Count: by}
}

// look reads the file and tells of each number that has changed.
func (s *source) look(changed func(c *counter, by int64)) error {
	if s.res != "" {
		return nil
	}
	var b [512]byte
	n, err := unix.Pread(s.read, b[:], 0)
	if err != nil {
		return err
	}
	text := string(b[:n])
	for i := range s.counts {
		c := &s.counts[i]
		now, ok := field(text, c.key)
		if !ok || now == c.last {
			continue
		}
		changed(c, now-c.last)
		c.last = now
	}
	return nil
}
