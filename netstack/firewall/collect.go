//go:build linux

package firewall

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A namespace that is gone leaves its directory. There is no asking the kernel whether one still exists, so a directory goes when nobody has used it for a while, nobody has it open, and nothing in it matters any longer.

// openName is a file in each directory that whoever has it open holds a shared lock on.
const openName = ".open"

const (
	unused = time.Hour
	// stale is how long the kernel keeps track of a connection that says nothing (nf_conntrack_tcp_timeout_established): what stands in the file of free addresses is over then.
	stale = 5 * 24 * time.Hour
)

// collect removes directories beside one's own.
func collect(above, own string, now time.Time) {
	list, err := os.ReadDir(above)
	if err != nil {
		return
	}
	for _, e := range list {
		info, err := e.Info()
		named := strings.HasPrefix(e.Name(), "net-") || strings.HasPrefix(e.Name(), "inode-")
		if err == nil && e.IsDir() && named && e.Name() != own && now.Sub(info.ModTime()) > unused {
			removeUnused(filepath.Join(above, e.Name()), now)
		}
	}
}

// removeUnused removes a directory if nobody has it. What it locks stays locked until it is gone.
func removeUnused(path string, now time.Time) {
	f, err := ownDir(path)
	if err != nil {
		return
	}
	d := &lockDir{path: path, file: f}
	defer d.close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	open, err := d.open(openName, unix.O_CREAT)
	if err != nil {
		return
	}
	defer open.Close()
	if unix.Flock(int(open.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	if info, err := os.Lstat(filepath.Join(path, freedName)); err == nil && now.Sub(info.ModTime()) < stale {
		return
	}
	ids, err := d.ids()
	if err != nil || slices.ContainsFunc(ids, d.alive) {
		return
	}
	for _, id := range ids { // of the dead; their rules, if there are any, are found without them
		unix.Unlinkat(int(f.Fd()), id, 0)
	}
	for _, name := range []string{freedName, openName} {
		unix.Unlinkat(int(f.Fd()), name, 0)
	}
	os.Remove(path) // unless there is something that is not ours
}

// openMark says that the directory is in use. again: it was removed meanwhile.
func (d *lockDir) openMark() (again bool, err error) {
	f, err := d.open(openName, unix.O_CREAT)
	if err == unix.ENOENT {
		return true, nil
	}
	if err != nil {
		return false, failed(err, "mark %s as in use", d.path)
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_SH); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return false, failed(err, "mark %s as in use", d.path)
	}
	d.mark = f
	var here, there unix.Stat_t
	if err := unix.Fstat(int(d.file.Fd()), &here); err != nil {
		return false, failed(err, "look at %s", d.path)
	}
	again = unix.Lstat(d.path, &there) != nil || here.Ino != there.Ino || here.Dev != there.Dev || !d.has(openName, f)
	return again, nil
}

// has reports whether a file of the directory is still the one that is open.
func (d *lockDir) has(name string, f *os.File) bool {
	var here, there unix.Stat_t
	err := unix.Fstatat(int(d.file.Fd()), name, &there, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && unix.Fstat(int(f.Fd()), &here) == nil && here.Ino == there.Ino
}
