package caisson_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/plan"
)

// without drops capabilities from the bounding set, as package caps will.
func without(caps ...int) plan.Primitive {
	return plan.Func(func(p *plan.Plan) error {
		for _, c := range caps {
			p.Child(plan.Credentials, plan.Call("prctl", unix.SYS_PRCTL, plan.Number(unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP"), plan.Int(c)))
		}
		return nil
	})
}

// TestExecRefusesTracers: root of a sandbox that could trace the entering child, and could not reach the host otherwise, is not given the chance.
func TestExecRefusesTracers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: an ordinary user's sandbox has a user namespace")
	}
	for name, c := range map[string]struct {
		part    plan.Primitive
		refused bool
	}{
		"all capabilities":  {without(), false},
		"ptrace, not admin": {without(unix.CAP_SYS_ADMIN), true},
		"neither":           {without(unix.CAP_SYS_ADMIN, unix.CAP_SYS_PTRACE), false},
		"in a user namespace": {plan.Func(func(p *plan.Plan) error {
			p.Include(userNamespace())
			p.Include(without(unix.CAP_SYS_ADMIN))
			return nil
		}), false},
	} {
		t.Run(name, func(t *testing.T) {
			first := caisson.New(append(isolated(), c.part)...).Command("sleep", "60")
			require.NoError(t, first.Start())
			defer first.Wait()
			defer first.Process.Kill()
			err := first.Process.Exec("/bin/true").Run()
			if !c.refused {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, syscall.EPERM)
			require.Contains(t, fmt.Sprint(err), "CAP_SYS_PTRACE")
		})
	}
}
