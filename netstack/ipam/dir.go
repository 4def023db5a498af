//go:build linux

package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// dir is a pool's directory while its lock is held.
type dir struct {
	path string
	lock int
}

// lock waits for whoever is changing the pool. Nobody holds the lock for longer than some file operations.
func (p Pool) lock() (*dir, error) {
	if p.Dir == "" {
		return nil, &RequestError{`""`, "the pool has no directory"}
	}
	path := filepath.Join(p.Dir, "lock")
	fd, err := open(path, unix.O_RDWR|unix.O_CREAT)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Join(p.Dir, "leases"), 0o700); err != nil {
			return nil, err
		}
		fd, err = open(path, unix.O_RDWR|unix.O_CREAT)
	}
	if err != nil {
		return nil, err
	}
	if err := retry("flock", path, func() error { return unix.Flock(fd, unix.LOCK_EX) }); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &dir{p.Dir, fd}, nil
}

func (d *dir) unlock() { unix.Close(d.lock) }

func (d *dir) file(a netip.Addr) string { return filepath.Join(d.path, "leases", a.String()) }

// take reserves the address of the subnet that is wanted, or the next free one.
func (d *dir) take(s Subnet, r Request) (netip.Addr, error) {
	for _, a := range r.Addresses {
		if s.Prefix.Contains(a) {
			return a, d.takeThis(a, r)
		}
	}
	return d.takeNext(s, r)
}

func (d *dir) takeThis(a netip.Addr, r Request) error {
	free, err := d.reserve(a, r)
	if err != nil || free {
		return err
	}
	h, err := d.read(a)
	if err != nil {
		return err
	}
	return &TakenError{a, h.Owner}
}

// tries is after how many taken addresses the whole list is read instead.
const tries = 64

func (d *dir) takeNext(s Subnet, r Request) (netip.Addr, error) {
	a := s.after(d.last(s))
	for range min(tries, s.size()) {
		if s.usable(a) {
			free, err := d.reserve(a, r)
			if err != nil {
				return a, err
			}
			if free {
				return a, d.setLast(s, a)
			}
		}
		a = s.after(a)
	}
	return d.search(s, a, r)
}

// search looks from a on for one that is not in the list. The list is shorter than what is tried, or all are taken.
func (d *dir) search(s Subnet, a netip.Addr, r Request) (netip.Addr, error) {
	all, err := d.list()
	if err != nil {
		return a, err
	}
	taken := make(map[netip.Addr]bool, len(all))
	for _, h := range all {
		taken[h.Addr] = true
	}
	for range min(uint64(len(all))+2, s.size()) {
		if s.usable(a) && !taken[a] {
			if _, err := d.reserve(a, r); err != nil {
				return a, err
			}
			return a, d.setLast(s, a)
		}
		a = s.after(a)
	}
	return a, &ExhaustedError{s}
}

// reserve makes the lease's file, whole; false: there is one already.
func (d *dir) reserve(a netip.Addr, r Request) (bool, error) {
	path := d.file(a)
	if _, err := os.Lstat(path); err == nil {
		return false, nil
	}
	text := r.Owner + "\n"
	for _, n := range r.Names {
		text += n + "\n"
	}
	err := d.write(path, text)
	if errors.Is(err, fs.ErrNotExist) { // somebody has removed the directory
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = d.write(path, text)
		}
	}
	return err == nil, err
}

// write makes or replaces a file in one step. A name that is left of a crash is used again.
func (d *dir) write(path, text string) error {
	fresh := filepath.Join(d.path, "fresh")
	fd, err := open(fresh, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	if err != nil {
		return err
	}
	err = writeAll(fd, fresh, text)
	unix.Close(fd)
	if err != nil {
		return err
	}
	return retry("rename", path, func() error { return unix.Rename(fresh, path) })
}

func (d *dir) lastFile(s Subnet) string {
	return filepath.Join(d.path, "last-"+strings.ReplaceAll(s.Prefix.String(), "/", "-"))
}

// last is the address that was given out last. Without a file that says so it is none: it is a hint.
func (d *dir) last(s Subnet) netip.Addr {
	fd, err := open(d.lastFile(s), unix.O_RDONLY)
	if err != nil {
		return netip.Addr{}
	}
	defer unix.Close(fd)
	b := make([]byte, 64)
	n, err := unix.Read(fd, b)
	if err != nil {
		return netip.Addr{}
	}
	b = b[:n]
	a, err := netip.ParseAddr(strings.TrimSpace(string(b)))
	if err != nil || !s.Prefix.Contains(a) {
		return netip.Addr{}
	}
	return a
}

// setLast writes over what is there, always the same number of bytes: some file systems write a file that is made shorter to the disk at once.
func (d *dir) setLast(s Subnet, a netip.Addr) error {
	fd, err := open(d.lastFile(s), unix.O_WRONLY|unix.O_CREAT)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return writeAll(fd, d.lastFile(s), fmt.Sprintf("%-45s\n", a))
}

func (d *dir) read(a netip.Addr) (Held, error) {
	b, err := os.ReadFile(d.file(a))
	if err != nil {
		return Held{}, err
	}
	return parseHeld(a, string(b)), nil
}

// parseHeld reads a lease's file: the owner's line, and one line for each name.
func parseHeld(a netip.Addr, text string) Held {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	h := Held{Addr: a, Owner: lines[0]}
	for _, l := range lines[1:] {
		if l != "" {
			h.Names = append(h.Names, l)
		}
	}
	return h
}

func (d *dir) list() ([]Held, error) {
	entries, err := os.ReadDir(filepath.Join(d.path, "leases"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := make([]Held, 0, len(entries))
	for _, e := range entries {
		a, err := netip.ParseAddr(e.Name())
		if err != nil || a.String() != e.Name() {
			continue // not ours
		}
		h, err := d.read(a)
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	slices.SortFunc(all, func(x, y Held) int { return x.Addr.Compare(y.Addr) })
	return all, nil
}

func (d *dir) remove(a netip.Addr) error {
	err := os.Remove(d.file(a))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// drop gives back those addresses of the lease that are still its owner's.
func (d *dir) drop(l *Lease) (err error) {
	for _, p := range l.Addresses {
		h, e := d.read(p.Addr())
		switch {
		case errors.Is(e, fs.ErrNotExist) || e == nil && h.Owner != l.owner:
		case e != nil:
			err = errors.Join(err, e)
		default:
			err = errors.Join(err, d.remove(p.Addr()))
		}
	}
	return err
}
