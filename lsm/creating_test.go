package lsm

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCreatingSimulated: what can go wrong before, in and after the function; TestCreating has the kernel.
func TestCreatingSimulated(t *testing.T) {
	const attr = "/proc/thread-self/attr/"
	enabled := map[string]string{"/sys/kernel/security/lsm": "selinux", attr + "fscreate": "", attr + "keycreate": "", attr + "sockcreate": ""}
	with := func(name, content string) map[string]string {
		all := map[string]string{name: content}
		for k, v := range enabled {
			if _, ok := all[k]; !ok {
				all[k] = v
			}
		}
		return all
	}
	own := errors.New("own")
	called := false
	h := simulated(t, enabled)
	require.Equal(t, own, Creating{File: container}.do(h, func() error {
		called = true
		b, err := os.ReadFile(h.root + attr + "fscreate")
		require.NoError(t, err)
		require.Equal(t, container.String(), string(b))
		return own
	}))
	require.True(t, called)
	b, err := os.ReadFile(h.root + attr + "fscreate")
	require.NoError(t, err)
	require.Equal(t, "\n", string(b[:1]), "taken back")

	never := func() error { t.Error("called"); return nil }
	var label *LabelError
	require.ErrorAs(t, Creating{File: container}.do(simulated(t, with(attr+"fscreate", container.String()+",c1")), never), &label, "the kernel has understood something else")
	require.ErrorIs(t, Creating{Key: Context{"a", "b", "c\n", ""}}.do(simulated(t, enabled), never), syscall.EINVAL)
	require.ErrorIs(t, Creating{Socket: container}.do(simulated(t, map[string]string{"/sys/kernel/security/lsm": "selinux"}), never), fs.ErrNotExist)
	require.ErrorIs(t, Creating{Socket: container}.do(simulated(t, map[string]string{"/sys/kernel/security/lsm": "apparmor"}), never), errors.ErrUnsupported)
	h = simulated(t, enabled)
	require.NoError(t, os.Remove(h.root+attr+"sockcreate"))
	require.NoError(t, os.Symlink("/etc/hostname", h.root+attr+"sockcreate"))
	require.ErrorIs(t, Creating{Socket: container}.do(h, never), syscall.EXDEV)
	require.ErrorIs(t, Creating{File: container}.do(simulated(t, enabled), func() error { runtime.Goexit(); return nil }), syscall.EINVAL)
}

// TestUsedLevelsErrors: who cannot see what others have reserves nothing; who has just ended has nothing.
func TestUsedLevelsErrors(t *testing.T) {
	p := pool(t, 3, map[string]string{"/proc/7/attr/current/x": "", "/proc/8/other": ""})
	_, err := p.reserve()
	require.ErrorIs(t, err, syscall.EISDIR)
	p = pool(t, 3, map[string]string{"/proc/8/other": "", "/proc/9/attr/current": "no context", "/proc/10/attr/current": "u:r:t:s0:c1"})
	r, err := p.reserve()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.NoError(t, os.RemoveAll(p.host.root+"/proc"))
	_, err = p.reserve()
	require.ErrorIs(t, err, fs.ErrNotExist)
	p = pool(t, 3, nil)
	require.NoError(t, os.WriteFile(p.dir, nil, 0o600))
	_, err = p.reserve()
	require.ErrorIs(t, err, syscall.ENOTDIR)
}

// TestCheckContextSimulated: what is not a context does not get as far as the kernel.
func TestCheckContextSimulated(t *testing.T) {
	h := simulated(t, map[string]string{"/sys/fs/selinux/context": ""})
	require.ErrorIs(t, h.checkContext(Context{"a", "b", "c d", ""}), syscall.EINVAL)
	b, err := os.ReadFile(h.root + "/sys/fs/selinux/context")
	require.NoError(t, err)
	require.Empty(t, b)
	require.NoError(t, h.checkContext(container))
	b, err = os.ReadFile(h.root + "/sys/fs/selinux/context")
	require.NoError(t, err)
	require.Equal(t, container.String(), string(b))
}

// TestErrorText: what the errors say, which is for people.
func TestErrorText(t *testing.T) {
	for want, err := range map[string]error{
		"load: operation not permitted (be root)":                    &Error{"load", syscall.EPERM, "be root"},
		`rule "connect 443": needs Landlock ABI 4, the kernel has 3`: &RuleError{Rule: Connect(443), ABI: 4, Have: 3, Err: errors.ErrUnsupported},
		`rule "read-only /a": "/a b": no such file or directory`:     &RuleError{Rule: ReadOnly("/a"), Path: "/a b", Err: syscall.ENOENT},
		`the selinux label is "a:b:c" and not "d:e:f"`:               &LabelError{"selinux", "d:e:f", "a:b:c"},
		`relabel /a/b: operation not permitted`:                      &RelabelError{"/a/b", syscall.EPERM},
		`rule "scope signals": needs Landlock ABI 6; the kernel has no Landlock, or it is not enabled (lsm= of its command line)`: &RuleError{Rule: ScopeSignals(), ABI: 6, Err: errors.ErrUnsupported},
	} {
		require.EqualError(t, err, want)
	}
	require.Equal(t, []string{"no mode", "enforcing", "mode 9"}, []string{NoMode.String(), Enforcing.String(), Mode(9).String()})
	require.Equal(t, []string{"p (enforce)", "a:b:c"}, []string{Label{"apparmor", "p", "enforce"}.String(), Label{"selinux", "a:b:c", ""}.String()})
}
