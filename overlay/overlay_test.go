package overlay_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/overlay"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/plan/plantest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// programs binds the host's programs into the root.
func programs(t *testing.T) (parts []plan.Primitive) {
	t.Helper()
	for _, d := range []string{"/usr", "/lib", "/lib64", "/bin"} {
		if _, err := os.Stat(d); err == nil {
			parts = append(parts, chroot.Bind{Source: d, Target: d, ReadOnly: true})
		}
	}
	return parts
}

// needsScratch skips where a scratch upper cannot be, which the kernel says itself: without privilege tmpfs has to have extended attributes.
func needsScratch(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	_, err := start(t, "true", append(programs(t), overlay.Root{Lower: []string{put(t, t.TempDir(), nil)}})...)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("%v", err)
	}
	require.NoError(t, err)
}

func TestRoot(t *testing.T) {
	needsScratch(t)
	base := put(t, t.TempDir(), map[string]string{"f": "base", "only/base": "x", "gone": "x"})
	top := put(t, t.TempDir(), map[string]string{"f": "top", "only/top": "y"})
	require.NoError(t, os.Chmod(top, 0o711))
	parts := append(programs(t), overlay.Root{Lower: []string{top, base}}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/a/b"})
	out := run(t, `cat f; ls only; rm gone; rm -r only; mkdir only; echo new > only/new; ls only; echo changed > f; cat f; stat -c %a /; ls -d gone 2>&1; pwd; cd ..; pwd -P`, parts...)
	require.Contains(t, out, "topbase\ntop\nnew\nchanged\n711\n")
	require.Contains(t, out, "No such file")
	require.True(t, strings.HasSuffix(out, "/\n/\n"), out)
	t.Run("layers are as they were", func(t *testing.T) {
		for name, want := range map[string]string{base + "/f": "base", top + "/f": "top", base + "/gone": "x", base + "/only/base": "x"} {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			require.Equal(t, want, string(b))
		}
		for _, dir := range []string{base, top} {
			names, err := filepath.Glob(dir + "/*")
			require.NoError(t, err)
			require.Less(t, len(names), 4, "mount points were made in a layer: %v", names)
		}
	})
	t.Run("each start has an upper of its own", func(t *testing.T) {
		require.Equal(t, "top", run(t, "cat f", parts...))
	})
	t.Run("leaves the host's mounts alone", func(t *testing.T) {
		before, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		run(t, "true", parts...)
		after, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		require.Equal(t, string(before), string(after))
	})
	t.Run("the mount table shows no path of the host, and nothing of the store", func(t *testing.T) {
		out := run(t, "cat /proc/self/mountinfo", parts...)
		require.NotContains(t, out, base)
		require.NotContains(t, out, top)
		require.Equal(t, 1, strings.Count(out, " / / "), out)
		require.NotRegexp(t, "(?m) /proc .* tmpfs ", out)
	})
}

// TestComposition: all parts of package chroot find on an overlay.Root what they find on a chroot.Pivot.
func TestComposition(t *testing.T) {
	needsScratch(t)
	data := put(t, t.TempDir(), map[string]string{"d": "data"})
	layer := func() string {
		return put(t, t.TempDir(), map[string]string{"etc/hostname": "image", "etc/secret": "secret", "etc/dir/x": "x", "var/keep": "k"})
	}
	parts := func(root plan.Primitive) []plan.Primitive {
		return append(append([]plan.Primitive{root}, programs(t)...), chroot.Proc{}, chroot.Dev{Mqueue: true}, chroot.Tmpfs{Path: "/tmp/x", Mode: 0o700, Size: 1 << 20},
			chroot.Bind{Source: data, Target: "/mnt/data", ReadOnly: true}, chroot.Bind{Source: data + "/d", Target: "/etc/one"},
			chroot.File{Path: "/etc/hosts", Data: []byte("hosts\n"), ReadOnly: true}, chroot.File{Path: "/new/file", Data: []byte("n")},
			chroot.Dir{Path: "/run/lock", Mode: 0o700}, chroot.Symlink{Path: "/link", Target: "/etc/hosts"}, chroot.Device{Path: "/dev/null", Target: "/dev/zilch"},
			chroot.Mask{"/etc/secret", "/etc/dir", "/no/such", "/proc/kcore"}, chroot.ReadOnly{"/var", "/proc/sys"})
	}
	const script = `cat /etc/hostname /etc/hosts /new/file /link /mnt/data/d /etc/one; echo; cat /etc/secret; ls /etc/dir | wc -l; stat -c '%a %F %n' /tmp/x /run/lock /dev/zilch /dev/pts /dev/shm /dev/mqueue;
		echo x 2>/dev/null > /etc/hosts || echo ro; echo x 2>/dev/null > /var/keep || echo ro; echo x 2>/dev/null > /mnt/data/d || echo ro; echo y > /etc/y && cat /etc/y
		ls / /etc; for p in /proc/[0-9]*; do echo $p; done; cut -d ' ' -f 5 /proc/self/mountinfo | sort; umask`
	for _, readOnly := range []bool{false, true} {
		t.Run(fmt.Sprintf("read-only %v", readOnly), func(t *testing.T) {
			want := run(t, script, parts(chroot.Pivot{Dir: layer(), ReadOnly: readOnly})...)
			got := run(t, script, parts(overlay.Root{Lower: []string{layer(), put(t, t.TempDir(), nil)}, ReadOnly: readOnly})...)
			require.Equal(t, want, got)
			require.Contains(t, got, "imagehosts\nnhosts\ndatadata\n0\n700 directory /tmp/x\n700 directory /run/lock\n")
			one := run(t, script, parts(overlay.Root{Lower: []string{layer()}, ReadOnly: readOnly})...)
			require.Equal(t, want, one)
		})
	}
	t.Run("the root before or after the others", func(t *testing.T) {
		p := parts(overlay.Root{Lower: []string{layer()}})
		slices.Reverse(p[1+len(programs(t)):])
		p = append(p[1:], p[0])
		require.Contains(t, run(t, "cat /etc/hosts /proc/self/comm", p...), "hosts\ncat\n")
	})
}

func TestUpper(t *testing.T) {
	base := put(t, t.TempDir(), map[string]string{"f": "base", "gone": "x"})
	state := t.TempDir()
	upper, work := filepath.Join(state, "odd ,:\\=\n\"name"), filepath.Join(state, "wörk,:\\")
	require.NoError(t, os.MkdirAll(upper, 0o755))
	require.NoError(t, os.MkdirAll(work, 0o755))
	t.Cleanup(func() { os.Chmod(work+"/work", 0o700) })
	root := overlay.Root{Lower: []string{base}, Upper: upper, Work: work}
	parts := append(programs(t), root, chroot.Proc{})
	run(t, "echo one > one; rm gone; echo more >> f", parts...)
	require.Regexp(t, "^basemore\none\n.*No such file", run(t, "cat f one; ls gone 2>&1", parts...))
	b, err := os.ReadFile(filepath.Join(upper, "f"))
	require.NoError(t, err)
	require.Equal(t, "basemore\n", string(b))
	t.Run("is one sandbox's at a time", func(t *testing.T) {
		lock, err := os.Open(work)
		require.NoError(t, err)
		defer lock.Close()
		require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB), "the lock of a sandbox that has ended is gone")
		_, err = start(t, "true", parts...)
		require.ErrorIs(t, err, syscall.EBUSY)
		require.Contains(t, err.Error(), "in use by another sandbox")
	})
	t.Run("read-only afterwards", func(t *testing.T) {
		ro := append(programs(t), overlay.Root{Lower: []string{upper, base}, ReadOnly: true}, chroot.Proc{})
		if os.Geteuid() != 0 {
			needsScratch(t)
		}
		require.Regexp(t, "^basemore\n.*Read-only file system\nro\n$", run(t, "cat f; (echo x > f) 2>&1 || echo ro", ro...))
	})
}

// TestOddNames: what quoting there is differs from kernel to kernel; there is nothing to quote.
func TestOddNames(t *testing.T) {
	needsScratch(t)
	top := t.TempDir()
	var lower []string
	for i, name := range []string{",", ":", "\\", "\\,", "\\:", "a,b:c\\d", "\n", "=", "lowerdir=x,upperdir=/etc", "..x", " ", "\"", "'", "#", "%s", strings.Repeat("n", 255), "\xff\xfe", "ö"} {
		lower = append(lower, put(t, filepath.Join(top, name), map[string]string{fmt.Sprint(i): "x"}))
	}
	deep := filepath.Join(top, strings.Repeat(strings.Repeat("d", 200)+"/", 15))
	lower = append(lower, put(t, deep, map[string]string{"deep": "x"}))
	out := run(t, "echo *", append(programs(t), overlay.Root{Lower: lower})...)
	for i := range len(lower) - 1 {
		require.Contains(t, " "+out, fmt.Sprintf(" %d ", i))
	}
	require.Contains(t, out, "deep")
}

func TestManyLayers(t *testing.T) {
	needsScratch(t)
	top := t.TempDir()
	var lower []string
	for i := range 499 {
		lower = append(lower, put(t, filepath.Join(top, fmt.Sprintf("layer-%03d", i)), map[string]string{fmt.Sprintf("file-%03d", i): "x", "same": fmt.Sprint(i)}))
	}
	for _, n := range []int{1, 2, 200, 499} {
		out := run(t, "set -- file-*; echo $#; cat same", append(programs(t), overlay.Root{Lower: lower[:n]})...)
		require.Equal(t, fmt.Sprintf("%d\n0", n), out)
	}
	require.ErrorIs(t, plan.Build(overlay.Root{Lower: append(lower, "/a", "/b")}).Err(), syscall.EINVAL)
}

func TestMount(t *testing.T) {
	needsScratch(t)
	a := put(t, t.TempDir(), map[string]string{"f": "a"})
	b := put(t, t.TempDir(), map[string]string{"g": "b"})
	dir := put(t, t.TempDir(), nil)
	for name, root := range map[string]plan.Primitive{"pivot": chroot.Pivot{Dir: dir}, "overlay": overlay.Root{Lower: []string{dir}}} {
		t.Run(name, func(t *testing.T) {
			parts := append(append([]plan.Primitive{root}, programs(t)...), chroot.Proc{},
				overlay.Mount{Path: "/opt/x/y", Stack: overlay.Stack{Lower: []string{a, b}}},
				overlay.Mount{Path: "/opt/ro", Stack: overlay.Stack{Lower: []string{a}, ReadOnly: true}})
			out := run(t, "cat /opt/x/y/f /opt/x/y/g /opt/ro/f; echo w > /opt/x/y/w; cat /opt/x/y/w; (echo w > /opt/ro/w) 2>&1 || echo ro", parts...)
			require.Regexp(t, "^abaw\n.*Read-only file system\nro\n$", out)
			require.NoFileExists(t, a+"/w")
		})
	}
	t.Run("below a mount of the sandbox's own", func(t *testing.T) {
		out := run(t, "cat /dev/x/f", append(programs(t), chroot.Pivot{Dir: dir}, chroot.Dev{}, overlay.Mount{Path: "/dev/x", Stack: overlay.Stack{Lower: []string{a, b}}})...)
		require.Equal(t, "a", out)
	})
	t.Run("chroot to a relative path", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root: a binding of the host's programs by hand")
		}
		t.Chdir(filepath.Dir(dir))
		parts := append(programs(t), chroot.Chroot{Dir: filepath.Base(dir)}, overlay.Mount{Path: "/o", Stack: overlay.Stack{Lower: []string{a, b}}})
		require.Equal(t, "a", run(t, "cat /o/f", parts...))
	})
}

func TestSize(t *testing.T) {
	needsScratch(t)
	layer := put(t, t.TempDir(), nil)
	out := run(t, "head -c 3000000 /dev/zero 2>&1 > big; stat -c %s big; rm big; echo ok > small; cat small",
		append(programs(t), overlay.Root{Lower: []string{layer}, Size: 1 << 20}, chroot.Dev{})...)
	require.Contains(t, out, "No space left")
	require.Contains(t, out, "ok\n")
	out = run(t, "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo > f$i || break; done 2>&1; ls | grep -c ^f",
		append(programs(t), overlay.Root{Lower: []string{layer}, Inodes: 20})...)
	require.Contains(t, out, "No space left")
}

func TestAttributes(t *testing.T) {
	needsScratch(t)
	layer := put(t, t.TempDir(), nil)
	var older []plan.Primitive
	opts := func(s overlay.Root) string {
		s.Lower = []string{layer}
		parts := append(append(older, programs(t)...), s, chroot.Proc{})
		for _, line := range strings.Split(run(t, "cat /proc/self/mountinfo", parts...), "\n") {
			if f := strings.Fields(line); len(f) > 5 && f[4] == "/" {
				return f[5]
			}
		}
		return ""
	}
	require.Equal(t, "rw,nodev,relatime", opts(overlay.Root{}))
	require.Equal(t, "rw,nosuid,relatime", opts(overlay.Root{Dev: true, NoSUID: true}))
	require.Equal(t, "ro,nodev,relatime", opts(overlay.Root{ReadOnly: true}))
	older = []plan.Primitive{plan.Func(mnt.Old)} // before Linux 5.12
	require.Equal(t, "ro,nodev,relatime", opts(overlay.Root{ReadOnly: true}))
	require.Equal(t, "ro,nosuid,relatime", opts(overlay.Root{ReadOnly: true, Dev: true, NoSUID: true}))
}

// TestDeviceInLayer: what an image calls a device is none.
func TestDeviceInLayer(t *testing.T) {
	asRoot(t)
	layer := put(t, t.TempDir(), nil)
	require.NoError(t, unix.Mknod(layer+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	require.Contains(t, run(t, "cat < /null 2>&1", append(programs(t), overlay.Root{Lower: []string{layer}})...), "ermission denied")
	require.Empty(t, run(t, "cat < /null 2>&1", append(programs(t), overlay.Root{Lower: []string{layer}, Dev: true})...))
}

// TestUserNamespaceOfRoot: the marks of directories are those that the kernel reads there.
func TestUserNamespaceOfRoot(t *testing.T) {
	asRoot(t)
	base, top := put(t, t.TempDir(), map[string]string{"d/hidden": "x"}), put(t, t.TempDir(), map[string]string{"d/seen": "x"})
	if err := unix.Setxattr(top+"/d", "user.overlay.opaque", []byte("y"), 0); err == syscall.EOPNOTSUPP {
		t.Skip("the file system of temporary files has no extended attributes user.*")
	} else {
		require.NoError(t, err)
	}
	parts := append(programs(t), plan.Func(withUser), overlay.Root{Lower: []string{top, base}})
	out, err := start(t, "ls d; rm -r d; mkdir d; ls d; echo x > d/x; ls d", parts...)
	if errors.Is(err, errors.ErrUnsupported) {
		require.Contains(t, err.Error(), "Linux 6.6")
		t.Skipf("%v", err)
	}
	require.NoError(t, err)
	require.Equal(t, "seen\nx\n", out)
}

func TestErrors(t *testing.T) {
	layer, other := put(t, t.TempDir(), nil), put(t, t.TempDir(), map[string]string{"file": "x"})
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(layer, link))
	upper, work := filepath.Join(other, "upper"), filepath.Join(other, "work")
	require.NoError(t, errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)))
	for name, c := range map[string]struct {
		root  overlay.Root
		want  error
		names string
	}{
		"no layer":            {overlay.Root{}, syscall.EINVAL, "lower layer"},
		"relative":            {overlay.Root{Lower: []string{"layer"}}, syscall.EINVAL, `"layer"`},
		"missing":             {overlay.Root{Lower: []string{layer, "/no/such/layer"}}, syscall.ENOENT, "/no/such/layer"},
		"a file":              {overlay.Root{Lower: []string{other + "/file"}}, syscall.ENOTDIR, other + "/file"},
		"a link":              {overlay.Root{Lower: []string{link}}, syscall.ENOTDIR, link},
		"a magic link":        {overlay.Root{Lower: []string{"/proc/self/root/tmp"}}, syscall.ELOOP, "/proc/self/root"},
		"NUL":                 {overlay.Root{Lower: []string{"/a\x00b"}}, syscall.EINVAL, "NUL"},
		"twice":               {overlay.Root{Lower: []string{layer, layer + "/"}}, syscall.ELOOP, layer},
		"in each other":       {overlay.Root{Lower: []string{layer + "/a/../b", layer}}, syscall.ELOOP, layer},
		"upper in a layer":    {overlay.Root{Lower: []string{other}, Upper: upper, Work: work}, syscall.ELOOP, upper},
		"a layer in upper":    {overlay.Root{Lower: []string{upper + "/x"}, Upper: upper, Work: work}, syscall.ELOOP, upper + "/x"},
		"work in upper":       {overlay.Root{Lower: []string{layer}, Upper: upper, Work: upper + "/work"}, syscall.ELOOP, upper},
		"upper alone":         {overlay.Root{Lower: []string{layer}, Upper: upper}, syscall.EINVAL, "Work"},
		"missing upper":       {overlay.Root{Lower: []string{layer}, Upper: "/no/upper", Work: work}, syscall.ENOENT, "/no/upper"},
		"missing work":        {overlay.Root{Lower: []string{layer}, Upper: upper, Work: "/no/work"}, syscall.ENOENT, "/no/work"},
		"upper is a link":     {overlay.Root{Lower: []string{other + "/x"}, Upper: link, Work: work}, syscall.ENOTDIR, link},
		"work elsewhere":      {overlay.Root{Lower: []string{layer}, Upper: upper, Work: "/dev/shm"}, syscall.EXDEV, "/dev/shm"},
		"upper on procfs":     {overlay.Root{Lower: []string{layer}, Upper: "/proc/tty", Work: "/proc/fs"}, syscall.EINVAL, "procfs"},
		"read-only and upper": {overlay.Root{Lower: []string{layer}, Upper: upper, Work: work, ReadOnly: true}, syscall.EINVAL, upper},
		"size and upper":      {overlay.Root{Lower: []string{layer}, Upper: upper, Work: work, Size: 1}, syscall.EINVAL, upper},
		"negative":            {overlay.Root{Lower: []string{layer}, Size: -1}, syscall.EINVAL, "-1"},
		"volatile scratch":    {overlay.Root{Lower: []string{layer}, Volatile: true}, syscall.EINVAL, "Volatile"},
		"index scratch":       {overlay.Root{Lower: []string{layer}, Index: overlay.On}, syscall.EINVAL, "Index"},
		"unknown value":       {overlay.Root{Lower: []string{layer}, XIno: "maybe"}, syscall.EINVAL, `xino "maybe"`},
		"value of another":    {overlay.Root{Lower: []string{layer}, MetaCopy: overlay.Auto}, syscall.EINVAL, "metacopy"},
		"option injection":    {overlay.Root{Lower: []string{layer}, UUID: "on,upperdir=/etc"}, syscall.EINVAL, "uuid"},
		"uuid read-only":      {overlay.Root{Lower: []string{layer}, ReadOnly: true, UUID: overlay.On}, syscall.EINVAL, "uuid"},
		"redirect read-only":  {overlay.Root{Lower: []string{layer}, ReadOnly: true, RedirectDir: overlay.On}, syscall.EINVAL, "redirect_dir"},
		"data alone":          {overlay.Root{Lower: []string{layer}, Data: []string{other}}, syscall.EINVAL, "MetaCopy"},
		"export":              {overlay.Root{Lower: []string{layer}, Upper: upper, Work: work, NFSExport: overlay.On}, syscall.EINVAL, "index"},
		"metacopy for users":  {overlay.Root{Lower: []string{layer}, UserXattr: true, MetaCopy: overlay.On}, syscall.EINVAL, "metacopy"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := start(t, "true", c.root)
			require.ErrorIs(t, err, c.want)
			require.Contains(t, err.Error(), c.names)
			if os.Geteuid() == 0 {
				_, err = overlay.Stack(c.root).Open()
				require.ErrorIs(t, err, c.want)
				require.Contains(t, err.Error(), c.names)
			}
		})
	}
	require.ErrorIs(t, plan.Build(overlay.Root{Lower: []string{layer}}, chroot.Host{}).Err(), syscall.EINVAL, "two roots")
	require.ErrorIs(t, plan.Build(overlay.Mount{Path: "/x", Stack: overlay.Stack{Lower: []string{layer}}}).Err(), syscall.EINVAL, "no root")
	require.ErrorIs(t, plan.Build(chroot.Host{}, overlay.Mount{Path: "x", Stack: overlay.Stack{Lower: []string{layer}}}).Err(), syscall.EINVAL)
}

// TestRefusal: without privilege and without a user namespace the start fails at its first step, and the mount of the caller's own, too.
func TestRefusal(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs an ordinary user; the user lane runs it")
	}
	s := overlay.Stack{Lower: []string{put(t, t.TempDir(), nil)}}
	cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, nil}}
	_, err := launch.Start(context.Background(), plan.Build(overlay.Root(s)), cmd, launch.Options{})
	var e *plan.Error
	require.ErrorAs(t, err, &e)
	require.ErrorIs(t, err, os.ErrPermission)
	require.Contains(t, e.Hint, "namespaces.User")
	_, err = s.Open()
	require.ErrorIs(t, err, os.ErrPermission)
	require.Contains(t, err.Error(), "needs CAP_SYS_ADMIN")
}

func TestContract(t *testing.T) {
	ns, err := os.Open("/proc/self/ns/user")
	require.NoError(t, err)
	defer ns.Close()
	full := overlay.Stack{Lower: []string{"/a", "/b"}, Upper: "/u", Work: "/w", MetaCopy: overlay.On, RedirectDir: overlay.On, Index: overlay.On,
		XIno: overlay.Auto, UUID: overlay.Null, Volatile: true, Data: []string{"/d"}}
	plantest.Check(t, overlay.Root{Lower: []string{"/a\nb"}})
	plantest.Check(t, overlay.Root(full))
	plantest.Check(t, overlay.Root{Lower: []string{"/a"}, ReadOnly: true})
	plantest.Check(t, overlay.Root{Lower: []string{"/a"}, IDMap: ns})
	plantest.Check(t, overlay.Root{Lower: []string{"/a"}, Keep: new(overlay.Scratch)})
	plantest.Check(t, overlay.Root{})
	plantest.Check(t, overlay.Mount{Path: "/m", Stack: full}, chroot.Host{})
	plantest.Check(t, overlay.Mount{Path: "m", Stack: full}, chroot.Host{})
}

// TestGolden: plans, word for word. No privilege is needed.
func TestGolden(t *testing.T) {
	user := plan.Func(func(p *plan.Plan) error { p.Clone(unix.CLONE_NEWUSER); return nil })
	full := overlay.Root{Lower: []string{"/no/a", "/no/b,:\\\n"}, Upper: "/no/u", Work: "/no/w", MetaCopy: overlay.On, RedirectDir: overlay.On, Index: overlay.On,
		XIno: overlay.Auto, UUID: overlay.On, Volatile: true, NoSUID: true}
	for name, p := range map[string]*plan.Plan{
		"root":     plan.Build(overlay.Root{Lower: []string{"/no/a", "/no/b", "/no/c"}, Size: 64 << 20}),
		"keep":     plan.Build(overlay.Root{Lower: []string{"/no/a"}, Keep: new(overlay.Scratch)}),
		"user":     plan.Build(user, overlay.Root{Lower: []string{"/no/a"}, ReadOnly: true}),
		"full":     plan.Build(full),
		"data":     plan.Build(overlay.Root{Lower: []string{"/no/a"}, Data: []string{"/no/d"}, MetaCopy: overlay.On}),
		"readonly": plan.Build(chroot.Host{}, overlay.Mount{Path: "/tmp/x", Stack: overlay.Stack{Lower: []string{"/no/a"}, ReadOnly: true}}),
	} {
		file := filepath.Join("testdata", name+".golden")
		var b strings.Builder
		for _, line := range strings.SplitAfter(p.String(), "\n") {
			if len(line) > 3 && !strings.Contains(line, "RLIMIT_NOFILE") {
				b.WriteString(strings.TrimLeft(line[3:], " "))
			}
		}
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
		}
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(want), b.String())
	}
}

// TestAgainstMount compares with util-linux: the same stack, mounted by somebody else, has the same files.
func TestAgainstMount(t *testing.T) {
	asRoot(t)
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("needs unshare and mount (util-linux)")
	}
	a, b := put(t, t.TempDir(), map[string]string{"f": "a", "d/x": "x"}), put(t, t.TempDir(), map[string]string{"f": "b", "d/y": "y"})
	require.NoError(t, unix.Mknod(a+"/d/y", unix.S_IFCHR, 0), "a whiteout")
	script := "cd " + t.TempDir() + " && mount -t overlay x -o lowerdir=" + a + ":" + b + " . && cd . && cd $PWD && ls -R . && cat f"
	want, err := exec.Command(unshare, "--mount", "sh", "-c", script).Output()
	require.NoError(t, err)
	tree, err := overlay.Stack{Lower: []string{a, b}, ReadOnly: true}.Open()
	require.NoError(t, err)
	defer tree.Close()
	cmd := exec.Command("sh", "-c", "ls -R . && cat f")
	cmd.Dir = fmt.Sprintf("/proc/self/fd/%d", tree.File().Fd())
	got, err := cmd.Output()
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}
