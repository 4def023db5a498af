//go:build linux

package cgroups

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ResetPeak has Stats count the peak of memory from now on: by memory.peak for this Group value alone (Linux 6.12), in version 1 for
// all who look.
func (g *Group) ResetPeak() error {
	d, ok := g.dir("memory")
	if !ok {
		return missing("reset the peak", "", "memory", g.String(), "the controller does not act in the group")
	}
	if !d.v2 {
		return d.write("memory.max_usage_in_bytes", "0")
	}
	return g.resetPeak(d)
}

// Reclaim has the kernel take back about so many bytes of memory, by swapping and dropping caches (memory.reclaim, Linux 5.19). It is EAGAIN
// when it found less. Version 1 has memory.force_empty, for groups without processes, and is errors.ErrUnsupported here.
func (g *Group) Reclaim(bytes int64) error {
	d, ok := g.dir("memory")
	switch {
	case !ok:
		return missing("reclaim", "", "memory", g.String(), "the controller does not act in the group")
	case bytes <= 0:
		return &LimitError{"Reclaim", strconv.FormatInt(bytes, 10), "is no size"}
	case !d.v2:
		return inexpressible("Reclaim", "memory", false)
	}
	err := d.write("memory.reclaim", strconv.FormatInt(bytes, 10))
	var e *Error
	if errors.As(err, &e) {
		d.explain(e, setting{})
	}
	return err
}

// Pressure is how much of the time tasks had to wait for a resource (PSI, Linux 4.20; in version 2 only).
type Pressure struct {
	Some, Full PressureTime // at least one, and all at once
}

// PressureTime has percentages of the last seconds, and the time in all.
type PressureTime struct {
	Avg10, Avg60, Avg300 float64
	Total                time.Duration
}

// Resource is what tasks wait for.
type Resource string

// The resources.
const (
	CPU    Resource = "cpu"
	Memory Resource = "memory"
	Disk   Resource = "io"
)

// Pressure reads how much the group's tasks wait for a resource.
func (g *Group) Pressure(r Resource) (p Pressure, err error) {
	d := g.v2()
	if d == nil {
		return p, inexpressible("Pressure", string(r), false)
	}
	b, err := d.read(string(r)+".pressure", make([]byte, 256))
	if err != nil {
		var e *Error
		if errors.As(err, &e) && (e.Err == syscall.ENOENT || e.Err == syscall.EOPNOTSUPP) {
			e.Err = &reason{"the kernel does not measure pressure", errors.Join(e.Err, errors.ErrUnsupported)}
		}
		return p, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 5 {
			t, ok := parsePressure(f[1:])
			if !ok {
				return p, d.failed("read", string(r)+".pressure", line, syscall.EBADMSG)
			}
			*map[bool]*PressureTime{true: &p.Some, false: &p.Full}[f[0] == "some"] = t
		}
	}
	return p, nil
}

func parsePressure(words []string) (t PressureTime, ok bool) {
	for i, to := range []*float64{&t.Avg10, &t.Avg60, &t.Avg300} {
		_, v, _ := strings.Cut(words[i], "=")
		var err error
		if *to, err = strconv.ParseFloat(v, 64); err != nil {
			return t, false
		}
	}
	_, v, _ := strings.Cut(words[3], "=")
	n, err := strconv.ParseInt(v, 10, 64)
	t.Total = time.Duration(n) * time.Microsecond
	return t, err == nil
}

// resetPeak opens memory.peak and resets it: what is read by this descriptor counts from then on, and by no other.
func (g *Group) resetPeak(d *dir) error {
	fd, err := d.kernel.open(d.fd(), "memory.peak", unix.O_RDWR)
	if err == nil {
		_, err = d.kernel.write(fd, "reset")
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		e := d.failed("write", "memory.peak", "reset", err).(*Error)
		if err == unix.EACCES || err == unix.EINVAL || err == unix.ENOENT {
			e.Err = &reason{"resetting it needs Linux 6.12", errors.Join(err, errors.ErrUnsupported)}
		}
		return e
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.peak != nil {
		g.peak.Close()
	}
	g.peak = os.NewFile(uintptr(fd), "memory.peak")
	return nil
}
