package chroot_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/plan"
)

// rootAt makes dir a root file system out of the host's programs.
func rootAt(t *testing.T, dir string) []plan.Primitive {
	t.Helper()
	parts := []plan.Primitive{chroot.Pivot{Dir: dir}}
	for _, d := range []string{"usr", "lib", "lib64", "bin"} {
		if target, err := os.Readlink("/" + d); err == nil {
			require.NoError(t, os.Symlink(target, filepath.Join(dir, d)))
			continue
		}
		parts = append(parts, chroot.Optional{Source: "/" + d, Target: "/" + d, ReadOnly: true})
	}
	return parts
}

// TestAwkwardNames: roots, sources and targets whose names end options, fields and lines elsewhere.
func TestAwkwardNames(t *testing.T) {
	for _, name := range []string{"a b", "a,b=c", "a:b", "a\nb", `a\040b`, "\xff\xfe", "-o", "#x", strings.Repeat("x", 255)} {
		dir := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		src := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.Mkdir(src, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(src, name), []byte("data\n"), 0o644))
		parts := append(rootAt(t, dir), chroot.Proc{}, chroot.Dev{}, chroot.Bind{Source: src, Target: "/b/" + name + "/" + name, ReadOnly: true},
			chroot.Tmpfs{Path: "/t/" + name}, chroot.File{Path: "/f/" + name, Data: []byte("file\n")}, chroot.Dir{Path: "/d/" + name},
			chroot.Mask{"/d/" + name + "/none"}, chroot.ReadOnly{"/d/" + name})
		link := chroot.Symlink{Path: "/l/" + name, Target: "/f/" + name}
		out := run(t, "cat /b/*/*/*; cat /l/*; ls /t /d | wc -l", append(parts, link)...)
		require.Contains(t, out, "data\n", "%q", name)
		require.Contains(t, out, "file\n", "%q", name)
		text := plan.Build(parts...).String()
		for line := range strings.Lines(text) {
			require.NotContains(t, strings.TrimSuffix(line, "\n"), "\r")
		}
		require.NotContains(t, text, "a\nb")
		_, err := start(t, "true", append(parts, chroot.Mask{"/f/" + name + "/x"})...)
		require.ErrorIs(t, err, syscall.ENOTDIR)
	}
}

// TestWrongKinds: what is at the place of a mount point has the wrong kind, or cannot be passed. The error names the part and the path.
func TestWrongKinds(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(dir string) error
		part    plan.Primitive
		path    string
		want    []syscall.Errno
	}{
		"file where a directory must be": {func(d string) error { return os.WriteFile(d+"/x", nil, 0o644) }, chroot.Tmpfs{Path: "/x"}, "/x", []syscall.Errno{syscall.EINVAL, syscall.ENOTDIR}},
		"directory where a file must be": {func(d string) error { return os.Mkdir(d+"/x", 0o755) }, chroot.File{Path: "/x"}, "/x", []syscall.Errno{syscall.EINVAL, syscall.ENOTDIR}},
		"directory under a bound file":   {func(d string) error { return os.Mkdir(d+"/x", 0o755) }, chroot.Bind{Source: "/etc/passwd", Target: "/x"}, "/x", []syscall.Errno{syscall.EINVAL, syscall.ENOTDIR}},
		"file on the way":                {func(d string) error { return os.WriteFile(d+"/x", nil, 0o644) }, chroot.Tmpfs{Path: "/x/y"}, "/x", []syscall.Errno{syscall.ENOTDIR}},
		"loop on the way":                {func(d string) error { return os.Symlink("x", d+"/x") }, chroot.Tmpfs{Path: "/x/y"}, "/x", []syscall.Errno{syscall.ELOOP}},
		"loop at the end":                {func(d string) error { return os.Symlink("x", d+"/x") }, chroot.Tmpfs{Path: "/x"}, "/x", []syscall.Errno{syscall.ELOOP}},
		"link to nothing on the way":     {func(d string) error { return os.Symlink("/no", d+"/x") }, chroot.File{Path: "/x/y"}, "/x", []syscall.Errno{syscall.ENOENT}},
		"link to nothing at the end":     {func(d string) error { return os.Symlink("/no", d+"/x") }, chroot.Bind{Source: "/etc", Target: "/x"}, "/x", []syscall.Errno{syscall.ENOENT}},
		"fifo as proc":                   {func(d string) error { return unix.Mkfifo(d+"/proc", 0o644) }, chroot.Proc{}, "/proc", []syscall.Errno{syscall.EINVAL, syscall.ENOTDIR, syscall.EACCES}},
		"file as dev":                    {func(d string) error { return os.WriteFile(d+"/dev", nil, 0o644) }, chroot.Dev{}, "/dev", []syscall.Errno{syscall.EINVAL, syscall.ENOTDIR}},
		"file for a device":              {func(d string) error { return os.Mkdir(d+"/x", 0o644) }, chroot.Device{Path: "/dev/null", Target: "/x"}, "/x", []syscall.Errno{syscall.EINVAL, syscall.ENOTDIR}},
		"too long":                       {func(string) error { return nil }, chroot.Tmpfs{Path: "/" + strings.Repeat("x", 256)}, "/xxx", []syscall.Errno{syscall.ENAMETOOLONG}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, c.prepare(dir))
			parts := rootAt(t, dir)
			before := hostState(t)
			_, err := start(t, "true", append(parts, c.part)...)
			var e *plan.Error
			require.ErrorAs(t, err, &e)
			if lacksOpenat2() && (strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "link")) { // no link is followed at all
				c.want = []syscall.Errno{older[os.Getenv(olderEnv)].errno}
				require.Contains(t, e.Hint, "a symbolic link is on the way")
			}
			require.Contains(t, c.want, plan.Errno(err))
			require.Contains(t, e.Primitive, "chroot.")
			require.Contains(t, e.Error(), c.path)
			require.Equal(t, before, hostState(t))
		})
	}
}

// TestRootsOfAllKinds: the root is on a tmpfs, on overlay, on a read-only disk; with and without /proc and /dev.
func TestRootsOfAllKinds(t *testing.T) {
	inPrivateNamespace(t, func(t *testing.T) {
		view := append(docker(), chroot.Tmpfs{Path: "/tmp"}, chroot.File{Path: "/etc/f", Data: []byte("file\n")}, chroot.Mask{"/secret"})
		const script = "cat /etc/f; test ! -e /secret || cat /secret; test -c /dev/null && test -d /proc/self && echo x > /tmp/x && echo good; (echo x > /w) 2>/dev/null && echo writable"
		populate := func(dir string) {
			for _, d := range []string{"usr", "lib", "lib64", "bin", "proc", "dev", "sys", "tmp", "etc"} {
				require.NoError(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "etc/f"), nil, 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("SECRET"), 0o644))
		}
		binds := func(dir string, readOnly bool) []plan.Primitive {
			parts := []plan.Primitive{chroot.Pivot{Dir: dir, ReadOnly: readOnly}}
			for _, d := range []string{"usr", "lib", "lib64", "bin"} {
				parts = append(parts, chroot.Optional{Source: "/" + d, Target: "/" + d, ReadOnly: true})
			}
			return append(parts, view...)
		}
		mount := func(dir, kind, options string) {
			require.NoError(t, unix.Mount("test", dir, kind, 0, options))
			t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		}
		dir := t.TempDir()
		mount(dir, "tmpfs", "size=1m")
		require.Equal(t, "file\ngood\nwritable\n", run(t, script, binds(dir, false)...), "empty tmpfs")
		populate(dir)
		require.Equal(t, "file\ngood\nwritable\n", run(t, script, binds(dir, false)...), "tmpfs")
		require.Equal(t, "file\ngood\n", run(t, script, binds(dir, true)...), "read-only by Pivot")
		require.NoError(t, os.Remove(dir+"/w"))
		require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		require.Equal(t, "file\ngood\n", run(t, script, binds(dir, false)...), "read-only disk")
		require.Equal(t, "file\ngood\n", run(t, script, binds(dir, true)...), "read-only disk by Pivot")
		_, err := start(t, "true", append(binds(dir, false), chroot.Tmpfs{Path: "/missing"})...)
		require.ErrorIs(t, err, syscall.EROFS)
		require.ErrorContains(t, err, "/missing")

		merged, scratch := t.TempDir(), t.TempDir()
		mount(scratch, "tmpfs", "size=1m")
		require.NoError(t, os.Mkdir(scratch+"/up", 0o755))
		require.NoError(t, os.Mkdir(scratch+"/work", 0o755))
		mount(merged, "overlay", "lowerdir="+dir+",upperdir="+scratch+"/up,workdir="+scratch+"/work")
		require.Equal(t, "file\ngood\nwritable\n", run(t, script, binds(merged, false)...), "overlay")
		require.FileExists(t, scratch+"/up/w")
		require.NoFileExists(t, dir+"/w")
	})
}
