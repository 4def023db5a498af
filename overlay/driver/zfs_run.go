//go:build linux

package driver

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// clone is a dataset of ours. Names are without that of the dataset on which all of them lie, which may be renamed.
type clone struct{ name, parent string }

const (
	note        = "dataset" // the file in a tree's directory that has the names
	clonePrefix = "caisson-"
)

func newClone() clone { return clone{name: clonePrefix + strings.ToLower(rand.Text())} }

// snapshot is the name of that of which it is made: one for each clone.
func (c clone) snapshot() string { return c.parent + "@" + c.name }

// parseClone reads what note writes: the name, or that of the snapshot. What it gives is passed to zfs destroy.
func parseClone(s string) (clone, error) {
	c := clone{name: s}
	if parent, name, ok := strings.Cut(s, "@"); ok {
		if c = (clone{name: name, parent: parent}); !cloneName(parent) {
			return clone{}, syscall.EINVAL
		}
	}
	if !cloneName(c.name) {
		return clone{}, syscall.EINVAL
	}
	return c, nil
}

func cloneName(s string) bool {
	id, ok := strings.CutPrefix(s, clonePrefix)
	return ok && len(id) == 26 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// errNothingNoted is what is left of a process that died before it had written the names: then it has made nothing.
var errNothingNoted = errors.New("no dataset is noted")

func readClone(dir string) (clone, error) {
	b, err := os.ReadFile(filepath.Join(dir, note))
	if err != nil {
		return clone{}, err
	}
	if len(b) == 0 {
		return clone{}, errNothingNoted
	}
	c, err := parseClone(string(b))
	if err != nil {
		return clone{}, fmt.Errorf("%s: %.100q: %w", filepath.Join(dir, note), b, err)
	}
	return c, nil
}

// note writes the names down, and keeps them locked.
func (c clone) note(dir string) (*os.File, error) {
	text := c.name
	if c.parent != "" {
		text = c.snapshot()
	}
	// In one write: it is there whole, or the file is empty.
	if err := os.WriteFile(filepath.Join(dir, note), []byte(text), 0o600); err != nil {
		return nil, err
	}
	return lockNote(dir)
}

// lockNote locks the names for a program that works on them. The program has the lock as well: when we are killed it goes on, and nobody may take its dataset for one that
// will never be made.
func lockNote(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, note), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			err = syscall.EBUSY
		}
		return nil, err
	}
	return f, nil
}

// datasetOf finds the dataset with the device number among the mounts. The name is the kernel's, not what somebody has mounted it by.
func datasetOf(dev uint64) (string, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		ours := m.FSType == "zfs" && m.Major == int(unix.Major(dev)) && m.Minor == int(unix.Minor(dev))
		return !ours, ours
	})
	if err != nil {
		return "", err
	}
	if len(mounts) == 0 {
		return "", fmt.Errorf("a dataset that is not among the mounts: %w", errors.ErrUnsupported)
	}
	name := mounts[0].Source
	if name == "" || strings.HasPrefix(name, "-") || strings.ContainsAny(name, "@#") {
		return "", fmt.Errorf("%q is a snapshot: %w", name, syscall.EROFS)
	}
	return name, nil
}

// errGone is what zfs says, and nobody else: another ENOENT may be that of the program.
var errGone = fmt.Errorf("there is none: %w", syscall.ENOENT)

// run runs the program. Its messages are the only thing that says why it could not.
func (z zfs) run(lock *os.File, args ...string) error {
	program, err := z.find()
	if err != nil {
		return err
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt from the terminal is for the sandbox
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	return fmt.Errorf("zfs %s: %w", args[0], understand(string(out), err))
}

func (z zfs) find() (program string, err error) {
	names := []string{z.program}
	if z.program == "" {
		names = []string{"zfs", "/usr/sbin/zfs", "/sbin/zfs"} // often not in PATH
	}
	for _, name := range names {
		if program, err = exec.LookPath(name); err == nil {
			return program, nil
		}
	}
	return "", fmt.Errorf("%w: needs the program zfs (on Debian the package zfsutils-linux): %w", errors.ErrUnsupported, err)
}

// understand finds the errno behind a message of the program's, which is what libzfs makes of it.
func understand(said string, err error) error {
	said, _, _ = strings.Cut(strings.TrimSpace(said), "\n")
	for _, m := range []struct {
		text string
		err  error
	}{
		{"dataset does not exist", errGone},
		{"could not find any snapshots to destroy", errGone},
		{"is busy", syscall.EBUSY},
		{"ermission denied", syscall.EPERM},
		{"out of space", syscall.ENOSPC},
		{"too long", syscall.ENAMETOOLONG},
		{"read-only", syscall.EROFS},
		{"modules are not loaded", errors.ErrUnsupported},
		{"modules cannot be auto-loaded", errors.ErrUnsupported},
		{"/dev/zfs", errors.ErrUnsupported},
	} {
		if strings.Contains(said, m.text) {
			return fmt.Errorf("%w: %s", m.err, said)
		}
	}
	return fmt.Errorf("%w: %.300s", err, said)
}
