package chroot_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/internal/launch"
	"github.com/caisson-dev/caisson/internal/mnt"
	"github.com/caisson-dev/caisson/plan"
)

// olderEnv names the kernel as which a process of the tests is to see this one: a filter of system calls refuses what that does not have.
const olderEnv = "CAISSON_TEST_OLDER"

// older are kernels, and the filters of old container engines, which answer EPERM to what they do not know.
var older = map[string]struct {
	errno syscall.Errno
	calls []uint32
}{
	"5.11":     {syscall.ENOSYS, []uint32{unix.SYS_MOUNT_SETATTR}},
	"5.4":      {syscall.ENOSYS, []uint32{unix.SYS_MOUNT_SETATTR, unix.SYS_OPENAT2, unix.SYS_PIDFD_GETFD, unix.SYS_FACCESSAT2, unix.SYS_EPOLL_PWAIT2}},
	"filtered": {syscall.EPERM, []uint32{unix.SYS_MOUNT_SETATTR, unix.SYS_OPENAT2}},
}

func makeOlder(name string) error {
	if name == "" {
		return nil
	}
	k, known := older[name]
	if !known {
		return fmt.Errorf("unknown kernel %q", name)
	}
	return refuse(k.errno, k.calls...)
}

func lacksOpenat2() bool {
	name := os.Getenv(olderEnv)
	return name != "" && name != "5.11"
}

// onOlder are the tests that say the same on older kernels, fewOnOlder some of them, and racesOnOlder those that take longer.
const (
	fewOnOlder = "Host|Pivot|PivotReadOnly|BindRecursive|BindFile|WrongKinds|DockerView|MaskRefused|PropagationFlows|ReadOnlyPaths|ScriptInRoot|OlderLimits"
	onOlder    = "Host|Dev|DevTreeSameView|DevTreeHolds|DevTreeTakesMore|DevTreeNothingIsLeft|UmaskIsPutBack|Pivot|PivotReadOnly|Bind|CVE_2023_28642|CVE_2021_30465|Errors|AwkwardNames|WrongKinds|RootsOfAllKinds|Chroot|DockerView|MaskOrder|" +
		"MaskRefused|BindOptions|BindRecursive|BindFile|Optional|ProcOptions|TmpfsOptions|DevOptions|Device|Files|Propagation|PropagationFlows|ProcessesOutside|Mounts|" +
		"CVE_2023_28642_sys|ReadOnlyOfLaterMounts|WritableCgroupfs|CVE_2023_25809|AgainstUnshare|ReadOnlyPaths|ScriptInRoot|OlderLimits"
	racesOnOlder = "|NothingIsLeft|CVE_2025_31133|MaskOfRenamedProc|CVE_2025_52565|CVE_2026_41579|CVE_2021_30465_race"
)

// TestOnOlderKernels runs the tests of the parts where mount_setattr(2), and openat2(2) too, are not to be had: what can be observed is the same.
func TestOnOlderKernels(t *testing.T) {
	if os.Getenv(olderEnv) != "" {
		t.Skip("is one of them")
	}
	for name := range older {
		t.Run(name, func(t *testing.T) {
			tests, want := onOlder, "Host|ReadOnlyPaths|OlderLimits"
			switch emulated := os.Getenv("VMRUN") != ""; {
			case emulated && name != "5.4":
				t.Skip("emulated: a minute for each")
			case emulated:
				tests = fewOnOlder
			case os.Getenv("CAISSON_SLOW") != "":
				tests += racesOnOlder
			case name == "5.4":
				tests += "|NothingIsLeft"
				want += "|NothingIsLeft"
			default:
				tests = fewOnOlder
			}
			c := exec.Command("/proc/self/exe", "-test.v", "-test.run=^Test("+tests+")$")
			c.Env = append(os.Environ(), olderEnv+"="+name)
			out, err := c.CombinedOutput()
			require.NoError(t, err, "%s", out)
			for word := range strings.SplitSeq(want, "|") {
				require.Contains(t, string(out), "--- PASS: Test"+word+" ")
			}
		})
	}
}

// reached are the mounts of a table to which a path leads: what another one covers cannot be remounted, and keeps what it had.
func reached(t *testing.T, text string) []mountinfo.Info {
	t.Helper()
	list, err := mountinfo.GetMountsFromReader(strings.NewReader(text), nil)
	require.NoError(t, err)
	var table mnt.Table
	for _, m := range list {
		table = append(table, *m)
	}
	return table.Visible()
}

// TestReadOnlyPaths: a file, a directory and what does not exist; what the mount has stays.
func TestReadOnlyPaths(t *testing.T) {
	dir, parts := rootfs(t)
	src := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a/f"), []byte("f\n"), 0o666))
	require.NoError(t, os.Mkdir(filepath.Join(src, "sub"), 0o777))
	before := hostState(t)
	parts = append(parts, chroot.Proc{}, chroot.Bind{Source: src, Target: "/n", NoExec: true}, chroot.ReadOnly{"/a/b", "/a/f", "/none", "/n/sub", "/none/x", "/proc/sys"},
		chroot.Mask{"/a/none"})
	out := run(t, "cat /proc/self/mountinfo; pwd", parts...)
	require.True(t, strings.HasSuffix(out, "\n/\n"))
	options := map[string]string{}
	for _, m := range reached(t, strings.TrimSuffix(out, "/\n")) {
		options[m.Mountpoint] = m.Options
	}
	for _, name := range []string{"/a/b", "/a/f"} {
		require.True(t, strings.HasPrefix(options[name], "ro,"), name)
		require.Equal(t, strings.TrimPrefix(options["/"], "rw"), strings.TrimPrefix(options[name], "ro"))
	}
	require.Contains(t, options["/n/sub"]+",", "ro,nosuid,nodev,noexec,")
	require.Contains(t, options["/n"]+",", "rw,nosuid,nodev,noexec,")
	require.NotContains(t, options, "/none")
	out = run(t, "echo x > /a/b/x; echo x > /a/f; echo x > /n/sub/x; echo x > /proc/sys/kernel/hostname; echo x > /n/x && echo x > /a/x && echo written; cat /a/f", parts...)
	require.Equal(t, 4, strings.Count(out, "Read-only file system"), out)
	require.Contains(t, out, "written\nf\n")
	require.Equal(t, before, hostState(t))
}

// TestScriptInRoot: a program that turns out to be a script is started a second time, with mounts of its own, and finds what the first child has made.
func TestScriptInRoot(t *testing.T) {
	dir, parts := rootfs(t)
	src, err := os.Open(t.TempDir())
	require.NoError(t, err)
	defer src.Close()
	require.NoError(t, os.WriteFile(filepath.Join(src.Name(), "f"), []byte("data\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "script"), []byte("#!/bin/sh\ncat /x/f\nreadlink /made/link\n"), 0o755))
	parts = append(append([]plan.Primitive{isolated}, parts...), chroot.Symlink{Path: "/made/link", Target: "/x"})
	if os.Geteuid() == 0 {
		parts = append(parts, chroot.Bind{File: src, Target: "/x", ReadOnly: true})
	} else {
		parts = append(parts, chroot.Bind{Source: src.Name(), Target: "/x", ReadOnly: true})
	}
	_, out := pipes(t)
	cmd := &plan.Command{Candidates: []string{"/script"}, Args: []string{"script"}, Env: os.Environ(), Files: []*os.File{nil, out.W, out.W}}
	p, err := launch.Start(t.Context(), plan.Build(parts...), cmd, launch.Options{})
	require.NoError(t, err)
	out.W.Close()
	text, err := io.ReadAll(out.R)
	require.NoError(t, err)
	require.Equal(t, "data\n/x\n", string(text))
	end(t, p)
	_, err = launch.Start(t.Context(), plan.Build(parts...), cmd, launch.Options{})
	require.ErrorIs(t, err, syscall.EEXIST, "the link is there already")
}

// TestOlderLimits: what needs the newer calls says so.
func TestOlderLimits(t *testing.T) {
	if os.Getenv(olderEnv) == "" {
		c := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestOlderLimits$")
		c.Env = append(os.Environ(), olderEnv+"=5.4")
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestOlderLimits ")
		return
	}
	if os.Geteuid() == 0 {
		_, err := start(t, "true", chroot.Host{}, chroot.Bind{Source: "/etc", Target: "/mnt", IDMap: userNamespace(t, 5000)})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		require.ErrorContains(t, err, "5.12")
	}
	before := hostState(t)
	_, parts := rootfs(t)
	_, err := start(t, "true", append(parts, chroot.Tmpfs{Path: "/a/b/c"}, chroot.ReadOnly{"/a"})...)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, `"/a/b/c" cannot be made read-only`)
	dir, parts := rootfs(t)
	require.NoError(t, os.Symlink("/tmp", filepath.Join(dir, "l")))
	for name, part := range map[string]plan.Primitive{"tmpfs": chroot.Tmpfs{Path: "/l/x"}, "last": chroot.Tmpfs{Path: "/l"}, "mask": chroot.Mask{"/l/x"}, "read-only": chroot.ReadOnly{"/l/x"},
		"file": chroot.File{Path: "/l/f"}, "dir": chroot.Dir{Path: "/l/x"}} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "tmp"), 0o755))
		_, err := start(t, "true", append(parts, part)...)
		switch {
		case !lacksOpenat2():
			require.NoError(t, err, name)
		default:
			require.ErrorIs(t, err, older[os.Getenv(olderEnv)].errno, name)
			require.ErrorContains(t, err, "a symbolic link is on the way", name)
			require.Equal(t, os.Getenv(olderEnv) == "5.4", errors.Is(err, errors.ErrUnsupported), name)
		}
	}
	require.Equal(t, before, hostState(t))
}
