//go:build linux

package namespaces

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// openProc opens /proc and makes sure that it is the root of a procfs: what is read and written below it decides about
// privileges.
func openProc() (*os.File, error) {
	f, err := openPath("/proc", unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	const rootInode = 1
	var fs unix.Statfs_t
	var st unix.Stat_t
	fd := int(f.Fd())
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.PROC_SUPER_MAGIC || unix.Fstat(fd, &st) != nil || st.Ino != rootInode {
		f.Close()
		return nil, invalid("open /proc", "not the root of a proc file system")
	}
	return f, nil
}

// openPath opens path without doing anything with what is there: no device is opened, no fifo blocks.
func openPath(path string, flags int) (*os.File, error) {
	fd, err := retry(func() (int, error) { return unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flags, 0) })
	if err != nil {
		return nil, fail(err, "open %s", path)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// openIn opens a file below an open directory.
func openIn(dir *os.File, name string, flags int) (*os.File, error) {
	fd, err := retry(func() (int, error) { return unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), dir.Name()+"/"+name), nil
}

func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != syscall.EINTR {
			return n, err
		}
	}
}

// openOwnProc opens /proc where it is that of our own pid namespace.
func openOwnProc() (*os.File, error) {
	proc, err := openProc()
	if err != nil {
		return nil, err
	}
	if self, err := readlink(proc, "self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		proc.Close()
		return nil, invalid("read /proc/self", "/proc shows another pid namespace than ours")
	}
	return proc, nil
}

type procKey struct{}

// keepProc opens /proc once for a start.
func keepProc(r *plan.Run) error {
	if r.Value(procKey{}) != nil {
		return nil
	}
	proc, err := openOwnProc()
	if err != nil {
		return err
	}
	r.Keep(proc)
	r.Set(procKey{}, proc)
	return nil
}

// writeProc writes all of text in one write to a file of process pid.
func writeProc(proc *os.File, pid int, name, text string) error {
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(proc.Fd()), strconv.Itoa(pid)+"/"+name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	n, err := retry(func() (int, error) { return unix.Write(fd, []byte(text)) })
	if err == nil && n != len(text) {
		err = syscall.EIO
	}
	return err
}

func readlink(dir *os.File, name string) (string, error) {
	b := make([]byte, 256)
	n, err := retry(func() (int, error) { return unix.Readlinkat(int(dir.Fd()), name, b) })
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// procFile is the caller's /proc in a plan, for the child: it stays the same wherever the child's own path /proc leads.
func procFile(p *plan.Plan) plan.File {
	return p.Open(`"/proc" as proc`, func(*plan.Run) (*os.File, error) { return openProc() })
}

// hasCap reports whether the calling thread has a capability in effect, in its own user namespace (capabilities(7)).
func hasCap(c int) bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if unix.Capget(&h, &d[0]) != nil {
		return false
	}
	return d[c/32].Effective&(1<<(c%32)) != 0
}
