package chroot_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/internal/launchtest"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/plan"
)

// prepare makes a DevTree that is closed with the test.
func prepare(t *testing.T, d chroot.Dev) *chroot.DevTree {
	t.Helper()
	tree, err := d.Prepare()
	require.NoError(t, err)
	t.Cleanup(func() { tree.Close() })
	return tree
}

// cloned is prepare where the kernel and the user are such that it has to be cloned.
func cloned(t *testing.T, d chroot.Dev) *chroot.DevTree {
	t.Helper()
	asRoot(t)
	tree := prepare(t, d)
	if !chroot.MayMakeNodes() {
		t.Skip("needs CAP_MKNOD in the first user namespace")
	}
	if tree.Tree() == nil {
		require.False(t, launchtest.KernelAtLeast(t, 6, 15), "this kernel clones detached mounts")
		t.Skip("needs Linux 6.15, which copies detached mounts")
	}
	return tree
}

// withoutAdmin is what makes a sandbox with the caller's user namespace one that can have a clone.
var withoutAdmin = caps.Drop(caps.SysAdmin)

const cloneText = "open a clone of the prepared /dev as dev"

// TestDevTreeSameView: what is in /dev, how it is mounted and what it does is that of a Dev, cloned or built for the start, but that it is read-only.
func TestDevTreeSameView(t *testing.T) {
	// Who owns a node of the host's, and that it is mounted, is not compared.
	const script = `cd /dev; stat -c "%n %F %a %t:%T %h %N" . * pts/ptmx; stat -c "%n %u:%g" . fd pts shm; ls -A shm mqueue
		head -c 3 zero | od -An -tx1; head -c 4 urandom | wc -c; echo x > null && echo written; echo x > full 2>/dev/null || echo full; echo z | cat stdin
		echo y > shm/y && cat shm/y; (echo > tty) 2>/dev/null || echo no terminal; cut -d" " -f4- /proc/self/mountinfo | grep "^/ /dev" | sort`
	view := func(d plan.Primitive, more ...plan.Primitive) string {
		out := run(t, script, append([]plan.Primitive{chroot.Host{}, chroot.Proc{}, d}, more...)...)
		for _, want := range []string{"null character special file 666 ", " 00 00 00\n", "written\nfull\nz\ny\nno terminal\n", "ptmx character special file 666 "} {
			require.Contains(t, out, want)
		}
		return out
	}
	ro := strings.NewReplacer(" - tmpfs none rw,size=65536k,mode=755", " - tmpfs none ro,size=65536k,mode=755",
		" - tmpfs none rw,seclabel,size=65536k,mode=755", " - tmpfs none ro,seclabel,size=65536k,mode=755")
	for name, more := range map[string][]plan.Primitive{"own user namespace": {plan.Func(withUser)}, "without CAP_SYS_ADMIN": {withoutAdmin}, "with CAP_SYS_ADMIN": nil} {
		if os.Geteuid() != 0 && name == "own user namespace" {
			continue // has one anyhow
		}
		for _, d := range []chroot.Dev{{}, {Mqueue: true, Nodes: []string{"null", "zero", "full", "urandom", "tty"}, ShmSize: 1 << 20}} {
			if os.Getenv("VMRUN") != "" && d.Mqueue == (name == "with CAP_SYS_ADMIN") { // emulated: half a second for each
				continue
			}
			want := ro.Replace(view(d, more...))
			require.Contains(t, want, "/dev rw,nosuid - tmpfs none ro,")
			tree := prepare(t, d)
			require.Equal(t, want, view(tree, more...), name)
			if tree.Tree() != nil {
				require.Equal(t, want, view(d.WithTree(nil), more...), name)
			}
		}
	}
}

// TestDevTreeIsCloned where it may be, and only there.
func TestDevTreeIsCloned(t *testing.T) {
	tree := cloned(t, chroot.Dev{Mqueue: true})
	user := more(unix.CLONE_NEWUSER)
	for name, c := range map[string]struct {
		clone bool
		parts []plan.Primitive
	}{
		"user namespace":         {true, []plan.Primitive{user}},
		"without CAP_SYS_ADMIN":  {true, []plan.Primitive{withoutAdmin}},
		"it comes first":         {true, []plan.Primitive{caps.Drop(caps.All)}},
		"with CAP_SYS_ADMIN":     {false, nil},
		"with that, too":         {false, []plan.Primitive{caps.Drop(caps.All).Add(caps.SysAdmin)}},
		"masks and seals":        {true, []plan.Primitive{user, chroot.Mask{"/dev/full"}, chroot.ReadOnly{"/dev/shm"}}},
		"onto a name":            {true, []plan.Primitive{user, chroot.Bind{Source: "/dev/null", Target: "/dev/zero"}, chroot.Tmpfs{Path: "/dev/shm"}, chroot.Dir{Path: "/dev/shm/x/y"}}},
		"elsewhere":              {true, []plan.Primitive{user, chroot.Tmpfs{Path: "/tmp"}, chroot.Dir{Path: "/tmp/dev/x"}}},
		"a device":               {false, []plan.Primitive{user, chroot.Device{Path: "/dev/null", Target: "/dev/x"}}},
		"a device at last":       {false, []plan.Primitive{withoutAdmin, chroot.Device{Path: "/dev/null", Target: "/dev/x"}}},
		"a directory":            {false, []plan.Primitive{user, chroot.Dir{Path: "/dev/x"}}},
		"a directory below pts":  {false, []plan.Primitive{user, chroot.Dir{Path: "/dev/pts/x"}}},
		"a link":                 {false, []plan.Primitive{user, chroot.Symlink{Path: "/dev/x", Target: "null"}}},
		"a file":                 {false, []plan.Primitive{user, chroot.File{Path: "/dev/x/y"}}},
		"a terminal":             {false, []plan.Primitive{user, plan.Func(func(p *plan.Plan) error { return p.Claim(plan.Terminal) })}},
		"a user namespace later": {true, []plan.Primitive{plan.Func(func(p *plan.Plan) error { p.Late(func() error { return user.Apply(p) }); return nil })}},
	} {
		if len(c.parts) > 0 {
			p := plan.Build(append(slices.Clone(c.parts), chroot.Host{}, tree)...)
			require.NoError(t, p.Err(), name)
			require.Equal(t, c.clone, strings.Contains(p.String(), cloneText), name+": before it\n"+p.String())
		}
		p := plan.Build(append([]plan.Primitive{chroot.Host{}, tree}, c.parts...)...)
		require.NoError(t, p.Err(), name)
		require.Equal(t, c.clone, strings.Contains(p.String(), cloneText), name+"\n"+p.String())
		require.NotEqual(t, c.clone, strings.Contains(p.String(), `"ro"`), name)
	}
	without := prepare(t, chroot.Dev{Nodes: []string{"null"}})
	for _, part := range []plan.Primitive{chroot.Mqueue{}, chroot.Device{Path: "/dev/zero"}} {
		require.NotContains(t, plan.Build(user, chroot.Host{}, without, part).String(), cloneText)
	}
}

// TestDevTreeTakesMore: what other parts and a terminal put into /dev is there, whether there is a clone or not; with Linux 6.15, clones that have the names for it.
func TestDevTreeTakesMore(t *testing.T) {
	for _, tree := range []*chroot.DevTree{prepare(t, chroot.Dev{Nodes: []string{"null", "full"}}), chroot.Dev{Nodes: []string{"null", "full"}}.WithTree(nil)} {
		out := run(t, `cat /dev/f; test -c /dev/a/z && readlink /dev/l; test -d /dev/d && stat -f -c %T /dev/mqueue; cat /dev/full; touch /dev/y || test -f /dev/shm/x/y`,
			chroot.Host{}, chroot.Proc{}, tree, chroot.File{Path: "/dev/f", Data: []byte("f\n")}, chroot.Device{Path: "/dev/zero", Target: "/dev/a/z"},
			chroot.Symlink{Path: "/dev/l", Target: "null"}, chroot.Dir{Path: "/dev/d"}, chroot.Mqueue{}, chroot.Mask{"/dev/full"}, chroot.File{Path: "/dev/shm/x/y"})
		require.Equal(t, "f\nnull\nmqueue\ntouch: cannot touch '/dev/y': Read-only file system\n", out)
		out = run(t, `cat /dev/full; stat -f -c %T /dev/shm; echo x > /dev/shm/x && test -d /dev/shm/d && echo shm`, chroot.Host{}, chroot.Proc{}, tree, chroot.Mask{"/dev/full"},
			chroot.Tmpfs{Path: "/dev/shm"}, chroot.Dir{Path: "/dev/shm/d"})
		require.Equal(t, "tmpfs\nshm\n", out)
	}
}

// TestDevTreeTerminal: /dev/console is the terminal.
func TestDevTreeTerminal(t *testing.T) {
	if lacksOpenat2() {
		t.Skip("terminals need Linux 5.6")
	}
	cmd := caisson.New(namespaces.User|namespaces.PID, chroot.Host{}, chroot.Proc{}, prepare(t, chroot.Dev{})).
		Command("/bin/sh", "-c", `test "$(stat -c %t:%T /dev/console)" = "$(stat -L -c %t:%T /proc/self/fd/0)" && test -t 0 && ! touch /dev/x 2>/dev/null`)
	cmd.Terminal = &caisson.Terminal{}
	defer cmd.Terminal.Close()
	require.NoError(t, cmd.Start())
	require.NoError(t, cmd.Wait())
}

// TestDevTreeIsShared: what the documentation says of files, in two sandboxes that run at the same time. Of a tree that is not cloned nothing is shared.
func TestDevTreeIsShared(t *testing.T) {
	type files struct{ null, dev, shm, pts string }
	var all []files
	look := func(tree plan.Primitive) (f files, end func()) {
		in, out := pipes(t)
		wait := startWaiting(t, in, out, `stat -L -c %d:%i /dev/null /dev /dev/shm /dev/pts; echo end; read x`, chroot.Host{}, chroot.Proc{}, tree, withoutAdmin)
		text := ""
		for !strings.HasSuffix(text, "end\n") {
			text += firstBytes(t, out, 1)
		}
		w := strings.Fields(text)
		return files{w[0], w[1], w[2], w[3]}, func() { in.W.WriteString("go\n"); wait() }
	}
	tree := prepare(t, chroot.Dev{})
	for _, d := range []plan.Primitive{tree, tree, chroot.Dev{}.WithTree(nil), chroot.Dev{}.WithTree(nil)} {
		f, end := look(d)
		defer end()
		all = append(all, f)
	}
	for i, f := range all {
		for k, g := range all[:i] {
			require.NotEqual(t, f.shm, g.shm)
			require.NotEqual(t, f.pts, g.pts)
			shared := i == 1 && k == 0 && tree.Tree() != nil
			require.Equal(t, shared, f.dev == g.dev)
			if os.Geteuid() == 0 { // the nodes of an ordinary user are the host's
				require.Equal(t, shared, f.null == g.null)
			}
		}
	}
}

// TestDevTreeClose: nothing starts with a tree that has been closed, and what runs goes on.
func TestDevTreeClose(t *testing.T) {
	for _, own := range []bool{false, true} {
		tree := prepare(t, chroot.Dev{})
		if own {
			tree = chroot.Dev{}.WithTree(nil)
		}
		in, out := pipes(t)
		wait := startWaiting(t, in, out, `read x; echo x > /dev/null && test -c /dev/zero && echo there`, chroot.Host{}, chroot.Proc{}, tree, withoutAdmin)
		require.NoError(t, tree.Close())
		require.ErrorIs(t, tree.Close(), os.ErrClosed)
		in.W.WriteString("go\n")
		require.Equal(t, "there\n", firstBytes(t, out, 6))
		wait()
		before := hostState(t)
		_, err := start(t, "true", chroot.Host{}, chroot.Proc{}, tree, withoutAdmin)
		require.ErrorIs(t, err, os.ErrClosed)
		require.ErrorContains(t, err, "chroot.DevTree")
		require.ErrorContains(t, err, "prepared /dev")
		require.Equal(t, before, hostState(t))
	}
}

// TestDevTreeClosedMeanwhile: each of the starts at the same time has all of its /dev, or fails because the tree has been closed.
func TestDevTreeClosedMeanwhile(t *testing.T) {
	before := hostState(t)
	n := rounds(20)
	if os.Getenv("VMRUN") != "" {
		n = 2
	}
	for range n {
		tree, err := chroot.Dev{}.Prepare()
		require.NoError(t, err)
		var wg sync.WaitGroup
		var failed atomic.Int64
		for range 4 {
			wg.Go(func() {
				for {
					out, err := start(t, "ls /dev | wc -l", chroot.Host{}, chroot.Proc{}, tree, withoutAdmin)
					if err != nil {
						failed.Add(1)
						if !errors.Is(err, os.ErrClosed) {
							t.Error(err)
						}
						return
					}
					if strings.TrimSpace(out) != "13" {
						t.Error(out)
					}
				}
			})
		}
		_, err = start(t, "true", chroot.Host{}, tree)
		require.NoError(t, err)
		require.NoError(t, tree.Close())
		wg.Wait()
		require.EqualValues(t, 4, failed.Load())
	}
	require.Equal(t, before, hostState(t))
}

// TestDevTreeNothingIsLeft: starts that fail at any step leave no mount and no descriptor, and the tree as it was.
func TestDevTreeNothingIsLeft(t *testing.T) {
	for _, tree := range []*chroot.DevTree{prepare(t, chroot.Dev{Mqueue: true}), chroot.Dev{Mqueue: true}.WithTree(nil)} {
		for range 2 { // the first start may open what stays
			run(t, "true", chroot.Host{}, tree, withoutAdmin)
		}
		p := plan.Build(isolated, chroot.Host{}, tree, withoutAdmin)
		cmd := &plan.Command{Candidates: []string{"/bin/true"}, Args: []string{"true"}, Files: []*os.File{nil, nil, nil}}
		before := hostState(t)
		for i, s := range p.Steps(cmd) {
			if s.Primitive == "chroot.DevTree" {
				_, err := launch.Start(t.Context(), p, cmd, launch.Options{Fault: i + 1})
				require.ErrorIs(t, err, syscall.EBADF, s)
			}
		}
		require.Equal(t, before, hostState(t))
		run(t, "test -c /dev/null", chroot.Host{}, tree, withoutAdmin)
	}
}

// TestDevTreeScript: a script is started by a second child, which gets a clone of its own.
func TestDevTreeScript(t *testing.T) {
	dir, parts := rootfs(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "script"), []byte("#!/bin/sh\ntest -c /dev/null && echo x > /dev/null && echo there\n"), 0o755))
	for _, tree := range []*chroot.DevTree{prepare(t, chroot.Dev{}), chroot.Dev{}.WithTree(nil)} {
		in, out := pipes(t)
		cmd := &plan.Command{Candidates: []string{"/script"}, Args: []string{"script"}, Env: os.Environ(), Files: []*os.File{in.R, out.W, out.W}}
		p, err := launch.Start(t.Context(), plan.Build(append([]plan.Primitive{isolated, tree, withoutAdmin}, parts...)...), cmd, launch.Options{})
		out.W.Close()
		require.NoError(t, err)
		require.Equal(t, "there\n", firstBytes(t, out, 6))
		end(t, p)
	}
}

func TestDevTreeErrors(t *testing.T) {
	for _, bad := range []chroot.Dev{{Nodes: []string{"kmem"}}, {Nodes: []string{"null", "null"}}, {ShmSize: -1}} {
		_, err := bad.Prepare()
		require.ErrorIs(t, err, syscall.EINVAL)
	}
	tree := prepare(t, chroot.Dev{})
	for _, other := range []plan.Primitive{chroot.Dev{}, tree, chroot.Devpts{}} {
		var conflict *plan.ConflictError
		require.ErrorAs(t, plan.Build(chroot.Host{}, tree, other).Err(), &conflict)
		require.Equal(t, "chroot.DevTree", conflict.First)
	}
	nodes := []string{"null"}
	tree = prepare(t, chroot.Dev{Nodes: nodes})
	nodes[0] = "zero"
	require.Contains(t, run(t, "ls /dev", chroot.Host{}, tree), "null\n")
}

// TestDevTreeUmask: the program's umask is not asked.
func TestDevTreeUmask(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	require.Equal(t, "755 /dev\n666 /dev/null\n1777 /dev/shm\n666 /dev/pts/ptmx\n",
		run(t, "stat -c '%a %n' /dev /dev/null /dev/shm /dev/pts/ptmx", chroot.Host{}, chroot.Proc{}, prepare(t, chroot.Dev{}), withoutAdmin))
}
