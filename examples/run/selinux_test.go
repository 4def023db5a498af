//go:build linux

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/lsm"
)

// containerContexts gives the machine a policy with contexts for containers, where it has none and is one of the kernel lane, whose files are its own.
func containerContexts(t *testing.T) {
	t.Helper()
	active, err := lsm.Active()
	if err != nil || !active.Has("selinux") {
		t.Skip("needs SELinux: ", active, err)
	}
	needRoot(t)
	if _, _, err := lsm.ContainerContexts(); err == nil {
		return
	} else if os.Getenv("VMRUN") == "" {
		t.Skip("the host's policy has no contexts for containers: ", err)
	}
	const dir = "/etc/selinux/tiny/contexts"
	must(t, os.MkdirAll(dir, 0o755))
	if _, err := os.Stat("/etc/selinux/config"); errors.Is(err, fs.ErrNotExist) {
		t.Cleanup(func() { os.Remove("/etc/selinux/config") })
	}
	must(t, os.WriteFile("/etc/selinux/config", []byte("SELINUX=enforcing\nSELINUXTYPE=tiny\n"), 0o644))
	must(t, os.WriteFile(dir+"/lxc_contexts", []byte("process = \"system_u:system_r:container_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n"), 0o644))
	t.Cleanup(func() { os.RemoveAll("/etc/selinux/tiny") })
}

// volumeOf makes a directory with a file in it and one below, a link and a fifo.
func volumeOf(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	for _, name := range []string{"f", "sub/g"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("data\n"), 0o644))
	}
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "link")))
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	return dir
}

// labelOf is the context of a file, of a link itself.
func labelOf(t *testing.T, name string) string {
	t.Helper()
	b := make([]byte, 256)
	n, err := unix.Lgetxattr(name, "security.selinux", b)
	must(t, err)
	return strings.Trim(string(b[:n]), "\x00")
}

// TestRelabelPrivate: a volume with Z belongs to one sandbox. Another one, with other categories, can neither read nor write it, although it is mounted there.
func TestRelabelPrivate(t *testing.T) {
	containerContexts(t)
	dir, passwd := volumeOf(t), labelOf(t, "/etc/passwd")
	mine := []string{"--security-opt", "label=level:s0:c1,c2", "-v", dir + ":/mnt:Z"}
	try(t, in(mine, "cat", "/mnt/sub/g")...).has(t, 0, "data", "")
	try(t, in(mine, "write", "/mnt/new")...).has(t, 0, "", "")
	for _, name := range []string{"", "f", "sub", "sub/g", "link", "fifo", "new"} {
		if got := labelOf(t, filepath.Join(dir, name)); got != "system_u:object_r:container_file_t:s0:c1,c2" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := labelOf(t, "/etc/passwd"); got != passwd {
		t.Errorf("a link was followed: %s", got)
	}
	other := []string{"--security-opt", "label=level:s0:c1,c3", "-v", dir + ":/mnt"}
	try(t, in(other, "cat", "/mnt/f")...).has(t, 1, "open /mnt/f: permission denied", "")
	try(t, in(other, "write", "/mnt/f")...).has(t, 1, "open /mnt/f: permission denied", "")
	try(t, in(other, "list", "/mnt")...).has(t, 1, "[]\nopen /mnt: permission denied", "")
	same := []string{"--security-opt", "label=level:s0:c1,c2", "-v", dir + ":/mnt"}
	try(t, in(same, "cat", "/mnt/f")...).has(t, 0, "data", "")
	if got := labelOf(t, filepath.Join(dir, "f")); got != "system_u:object_r:container_file_t:s0:c1,c2" {
		t.Errorf("relabelled without being asked: %s", got)
	}
}

// TestRelabelShared: a volume with z is everybody's, and what one sandbox makes there another can read.
func TestRelabelShared(t *testing.T) {
	containerContexts(t)
	dir := volumeOf(t)
	try(t, in([]string{"--security-opt", "label=level:s0:c1,c2", "-v", dir + ":/mnt:z"}, "cat", "/mnt/f")...).has(t, 0, "data", "")
	for _, name := range []string{"", "f", "sub/g", "link", "fifo"} {
		if got := labelOf(t, filepath.Join(dir, name)); got != "system_u:object_r:container_file_t:s0" {
			t.Errorf("%s: %s", name, got)
		}
	}
	try(t, in([]string{"--security-opt", "label=level:s0:c3,c4", "-v", dir + ":/mnt"}, "cat", "/mnt/sub/g")...).has(t, 0, "data", "")
	try(t, in([]string{"--security-opt", "label=level:s0:c3,c4", "-v", dir + ":/mnt"}, "write", "/mnt/sub/g")...).has(t, 0, "", "")
}

// TestRelabelReserved: a volume with Z alone is enough: the command and the volume get categories that nobody else has.
func TestRelabelReserved(t *testing.T) {
	containerContexts(t)
	dir := volumeOf(t)
	o := try(t, in([]string{"-v", dir + ":/mnt:Z"}, "cat", "/proc/self/attr/current")...)
	process := strings.Trim(o.stdout, "\x00\n")
	level, ok := strings.CutPrefix(process, "system_u:system_r:container_t:")
	if o.code != 0 || !ok || !strings.HasPrefix(level, "s0:c") {
		t.Fatal(o)
	}
	if got := labelOf(t, filepath.Join(dir, "sub", "g")); got != "system_u:object_r:container_file_t:"+level {
		t.Errorf("the command is %s, the file %s", process, got)
	}
}

// TestRelabelRefused: what everybody uses, and what has a name elsewhere, is not relabelled, and nothing is started.
func TestRelabelRefused(t *testing.T) {
	containerContexts(t)
	dir, usr := volumeOf(t), labelOf(t, "/usr")
	for _, path := range []string{"/usr", "/etc/selinux", "/"} {
		for _, option := range []string{"z", "Z"} {
			try(t, in([]string{"-v", path + ":/mnt:" + option}, "true")...).fails(t, 125, "system")
		}
	}
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.WriteFile(outside, nil, 0o644))
	if err := os.Link(outside, filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	before := labelOf(t, filepath.Join(dir, "f"))
	try(t, in([]string{"-v", dir + ":/mnt:Z"}, "true")...).fails(t, 125, "hard link")
	if got := labelOf(t, filepath.Join(dir, "f")); got != before {
		t.Errorf("relabelled all the same: %s", got)
	}
	if got := labelOf(t, "/usr"); got != usr {
		t.Errorf("/usr: %s", got)
	}
}
