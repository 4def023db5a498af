//go:build linux

package lsm

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reservation holds a pair of categories. It ends with Close, or when the process ends, however it ends.
type Reservation struct {
	Categories
	lock *os.File
}

// ReserveCategories finds a pair of categories that nobody has: no other reservation of a process of the same user, and no process of anybody's that
// runs, should whoever had reserved them have been killed. What different users reserve is not compared. Label the sandbox and its files with it:
//
//	r, err := lsm.ReserveCategories()
//	if err != nil {
//		return err
//	}
//	defer r.Close()
//	sandbox = sandbox.With(lsm.SELinux{Process: process.With(r.Categories)})
//
// Reservations are locks (flock(2)) on files in /run/caisson/mcs, for an ordinary user in caisson/mcs of XDG_RUNTIME_DIR. When all pairs are taken, the
// error is ENOSPC.
func ReserveCategories() (*Reservation, error) { return reservations{host: here()}.reserve() }

// Close lets go of the categories. Files that lie about with them can be touched by who gets them next.
func (r *Reservation) Close() error { return r.lock.Close() }

// reservations is where locks are.
type reservations struct {
	host host
	dir  string // "" is where the caller's are
	n    int    // categories that there are; 0 is all
}

func (s reservations) reserve() (*Reservation, error) {
	if s.n == 0 {
		s.n = maxCategory + 1
	}
	used, err := s.host.usedLevels()
	if err != nil {
		return nil, err
	}
	dir, err := s.open()
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	pairs := s.n * (s.n - 1) / 2
	for i, first := 0, rand.IntN(pairs); i < pairs; i++ {
		c := pair((first + i) % pairs)
		if used[c.String()] {
			continue
		}
		f, err := lock(dir, c.String())
		if errors.Is(err, syscall.EAGAIN) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// Its holder may have started something and been killed since we looked.
		if used, err = s.host.usedLevels(); err != nil {
			f.Close()
			return nil, err
		}
		if used[c.String()] {
			f.Close()
			continue
		}
		return &Reservation{c, f}, nil
	}
	return nil, fail(syscall.ENOSPC, "reserve categories")
}

// pair counts the pairs a < b: 0,1 0,2 1,2 0,3 and so on.
func pair(i int) Categories {
	b := 1
	for ; i >= b; b++ {
		i -= b
	}
	return Categories{i, b}
}

// lock takes a file that says "taken" for as long as we live. Files stay: to remove one would let two hold a lock on files of one name.
func lock(dir *os.File, name string) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, fail(err, "open %s/%s", dir.Name(), name)
	}
	f := os.NewFile(uintptr(fd), dir.Name()+"/"+name)
	if _, err := retry(func() (int, error) { return 0, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
		f.Close()
		return nil, fail(err, "lock %s", f.Name())
	}
	return f, nil
}

// open makes and opens the directory of the locks. Somebody else's would let them say what is taken.
func (s reservations) open() (*os.File, error) {
	dir := s.dir
	if dir == "" {
		base := "/run"
		if os.Geteuid() != 0 {
			base = os.Getenv("XDG_RUNTIME_DIR")
		}
		if base == "" {
			return nil, &Error{"reserve categories", syscall.ENOENT, "XDG_RUNTIME_DIR is not set"}
		}
		dir = base + "/caisson/mcs"
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fail(bare(err), "make %s", dir)
	}
	f, err := openPath(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		f.Close()
		return nil, &Error{"open " + dir, syscall.EPERM, "it belongs to another user, or others may write to it"}
	}
	return f, nil
}

// usedLevels gives the pairs that processes have. Where SELinux is not enabled nobody has any.
func (h host) usedLevels() (map[string]bool, error) {
	used := map[string]bool{}
	dir, err := h.need("selinux", "attr/")
	if err != nil {
		return nil, err
	}
	proc, err := h.openProc()
	if err != nil {
		return nil, err
	}
	defer proc.Close()
	entries, err := os.ReadDir(h.root + "/proc")
	if err != nil {
		return nil, fail(bare(err), "read /proc")
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		label, err := readIn(proc, e.Name()+"/"+dir+"current")
		if err != nil { // most often it has just ended
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
				continue
			}
			return nil, err
		}
		markPairs(text([]byte(label)), used)
	}
	return used, nil
}

// markPairs marks the pair of a process that has exactly two categories. One with more is none of ours: it may touch everybody's.
func markPairs(label string, used map[string]bool) {
	c, err := ParseContext(label)
	if err != nil {
		return
	}
	both, err := parseRange(c.Level)
	if err != nil {
		return
	}
	for _, l := range both {
		if len(l.categories) == 2 {
			used[fmt.Sprintf("c%d,c%d", l.categories[0], l.categories[1])] = true
		}
	}
}
