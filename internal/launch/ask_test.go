package launch

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// TestAsk: the child goes on with the number that the parent says of its descriptor; what is skipped is not asked.
func TestAsk(t *testing.T) {
	for name, opt := range ways {
		for _, skipped := range []bool{false, true} {
			var asked []string
			ask := func(p *plan.Plan, n uintptr) plan.Slot {
				answer := p.Slot()
				p.AskAt(plan.Names, plan.Call("openat", unix.SYS_OPENAT, plan.Int(-100), plan.Str("/"), plan.Int(unix.O_PATH|unix.O_CLOEXEC)), answer,
					func(r *plan.Run, f *os.File) (uintptr, error) {
						defer f.Close()
						var st unix.Stat_t
						asked = append(asked, plan.Int(int(n)).String())
						return n, errors.Join(unix.Fstat(int(f.Fd()), &st), syscall.Kill(r.PID, 0))
					})
				return answer
			}
			dir := t.TempDir()
			part := plan.Func(func(p *plan.Plan) error {
				first := plan.Call("chdir", unix.SYS_CHDIR, plan.Str(map[bool]string{true: "/no/such", false: dir}[skipped])).Tolerate(syscall.ENOENT).Skip(2)
				p.Child(plan.Names, first)
				mode := ask(p, 0o700)
				p.Child(plan.Names, plan.Call("mkdirat", unix.SYS_MKDIRAT, plan.Int(-100), plan.Str("made"), plan.Saved(mode)))
				other := ask(p, 0)
				p.Child(plan.Names, plan.Call("close", unix.SYS_CLOSE, plan.Saved(other)).Tolerate(syscall.EBADF))
				return nil
			})
			built := plan.Build(part)
			require.Contains(t, built.String(), "to the parent, who says $0")
			require.NoError(t, run(opt, part, takes(plan.Limits, "/", func(_ *plan.Run, f *os.File) error { asked = append(asked, "taken"); return f.Close() })), name)
			st, err := os.Stat(dir + "/made")
			if skipped {
				require.ErrorIs(t, err, os.ErrNotExist)
				require.Equal(t, "0 taken", strings.Join(asked, " "), name)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o700), st.Mode().Perm(), name)
			require.Equal(t, "448 0 taken", strings.Join(asked, " "), name)
		}
	}
}
