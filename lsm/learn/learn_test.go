package learn_test

import (
	"go/ast"
	"go/parser"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/lsm/learn"
)

func TestRecorder(t *testing.T) {
	var r learn.Recorder
	var all sync.WaitGroup
	for _, e := range []learn.Entry{{"/etc/passwd", learn.Read}, {"/etc//./passwd", learn.Read}, {"/tmp", learn.Make}, {"/tmp/x", learn.Write}, {"/proc/4711/maps", learn.Read}, {"/proc/self", learn.List},
		{"/proc/sys/kernel/ostype", learn.Read}, {"/proc/12x", learn.Read}, {"/dev/pts/7", learn.Write}, {"/proc", learn.List}, {"/nothing", 0}} {
		all.Go(func() {
			if err := r.Note(e.Path, e.Access); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.Equal(t, learn.Profile{{"/dev/pts", learn.Write}, {"/etc/passwd", learn.Read}, {"/proc", learn.Read | learn.List}, {"/proc/12x", learn.Read}, {"/proc/sys/kernel/ostype", learn.Read},
		{"/tmp", learn.Make}, {"/tmp/x", learn.Write}}, r.Profile())
	for _, bad := range []string{"", "etc", "./x", "/a\x00b"} {
		require.ErrorIs(t, r.Note(bad, learn.Read), syscall.EINVAL, "%q", bad)
	}
}

// TestRules: each path in the rules that it needs, and in none that one above gives.
func TestRules(t *testing.T) {
	p := learn.Profile{{"/usr/bin/ls", learn.Execute}, {"/usr/lib/libc.so.6", learn.Read}, {"/etc/passwd", learn.Read}, {"/tmp", learn.Make}, {"/tmp/a/b", learn.Write}, {"/tmp/run", learn.Execute | learn.Write},
		{"/", learn.List}, {"/usr", learn.List}, {"/var/lib", learn.Read}, {"/var/lib/x", learn.List | learn.Read}, {"/var/lib/y", learn.Write}, {"/dev/null", learn.Read | learn.Write}}
	require.Equal(t, strings.Join([]string{"execute /tmp/run", "execute /usr/bin/ls", "read-write /dev/null", "read-write /tmp", "read-write /var/lib/y", "read-only /etc/passwd", "read-only /usr/lib/libc.so.6",
		"read-only /var/lib", "list /", ""}, "\n"), p.String())
	require.Equal(t, lsm.Landlock{lsm.Execute("/tmp/run", "/usr/bin/ls"), lsm.ReadWrite("/dev/null", "/tmp", "/var/lib/y"), lsm.ReadOnly("/etc/passwd", "/usr/lib/libc.so.6", "/var/lib"), lsm.List("/")}, p.Rules())
	require.Equal(t, lsm.Landlock{lsm.ReadOnly()}, learn.Profile(nil).Rules(), "nothing, and not no rules")
	require.Equal(t, "lsm.Landlock{\n\tlsm.ReadOnly(),\n}", learn.Profile{}.Go())
	require.Equal(t, "read-only \"/a b\"\n", learn.Profile{{"/a b", learn.Read}}.String())
}

func TestMerge(t *testing.T) {
	a, b := learn.Profile{{"/a", learn.Read}, {"/b", learn.Write}}, learn.Profile{{"/a/", learn.Execute}, {"/c", learn.List}}
	want := learn.Profile{{"/a", learn.Read | learn.Execute}, {"/b", learn.Write}, {"/c", learn.List}}
	require.Equal(t, want, learn.Merge(a, b))
	require.Equal(t, want, learn.Merge(b, a, want))
	require.Empty(t, learn.Merge())
	require.Equal(t, "list|execute", (learn.List | learn.Execute).String())
	require.Equal(t, "none", learn.Access(0).String())
}

func TestFold(t *testing.T) {
	p := learn.Profile{{"/lib/a", learn.Read}, {"/lib/b", learn.Read}, {"/lib/py/x/1", learn.Read}, {"/lib/py/x/2", learn.Read}, {"/lib/py/x/3", learn.Execute}, {"/lib/py/y/1", learn.List},
		{"/tmp/1", learn.Write}, {"/tmp/2", learn.Write | learn.Read}, {"/tmp/3", learn.Make}, {"/x", learn.Read}, {"/y", learn.Read}, {"/z", learn.Read}}
	require.Equal(t, "execute /lib/py/x\nread-write /tmp/1\nread-write /tmp/2\nread-write /tmp/3\nread-only /lib/a\nread-only /lib/b\nread-only /tmp\nread-only /x\nread-only /y\nread-only /z\nlist /lib/py/y/1\n", p.Fold(2).String())
	require.Equal(t, "execute /lib\nread-write /tmp/1\nread-write /tmp/2\nread-write /tmp/3\nread-only /tmp\nread-only /x\nread-only /y\nread-only /z\n", p.Fold(0).String(), "but never /")
	require.Equal(t, p, p.Fold(100))
}

// FuzzProfile: whatever was noted is allowed by the rules that are printed, which are Go, and each line of the list is one rule.
func FuzzProfile(f *testing.F) {
	f.Add("/usr/bin/ls", "/usr", uint8(16), uint8(2), 1)
	f.Add("/tmp", "/tmp/a\n\"b", uint8(8), uint8(20), 0)
	f.Add("/proc/1/fd", "/", uint8(31), uint8(1), 2)
	f.Fuzz(func(t *testing.T, one, two string, a, b uint8, most int) {
		var r learn.Recorder
		for name, access := range map[string]uint8{one: a, two: b} {
			if r.Note(name, learn.Access(access)&31) != nil {
				require.True(t, !path.IsAbs(name) || strings.Contains(name, "\x00"))
			}
		}
		for _, p := range []learn.Profile{r.Profile(), r.Profile().Fold(most)} {
			require.Equal(t, p, learn.Merge(p))
			given := parse(t, p.Go())
			for _, e := range r.Profile() {
				require.Zero(t, e.Access&^allowed(given, e.Path), "%v in %s", e, p.Go())
			}
			require.Equal(t, strings.Count(p.String(), "\n"), len(given))
			require.NoError(t, rulesError(p))
		}
	})
}

// rulesError makes the rules as far as that needs no file.
func rulesError(p learn.Profile) error {
	for _, r := range p.Rules() {
		if r.String() == "none" {
			return syscall.EINVAL
		}
	}
	return nil
}

// given is one path of a rule.
type given struct {
	access learn.Access
	path   string
}

var meaning = map[string]learn.Access{"Execute": learn.Execute | learn.Read | learn.List, "ReadWrite": learn.Read | learn.List | learn.Write | learn.Make, "ReadOnly": learn.Read | learn.List, "List": learn.List}

// parse reads the printed Go.
func parse(t *testing.T, source string) (all []given) {
	expr, err := parser.ParseExpr(source)
	require.NoError(t, err, source)
	for _, e := range expr.(*ast.CompositeLit).Elts {
		call := e.(*ast.CallExpr)
		access := meaning[call.Fun.(*ast.SelectorExpr).Sel.Name]
		require.NotZero(t, access)
		for _, arg := range call.Args {
			name, err := strconv.Unquote(arg.(*ast.BasicLit).Value)
			require.NoError(t, err)
			all = append(all, given{access, name})
		}
	}
	return all
}

// allowed is the union of the rules for a path and all above it, as Landlock has it.
func allowed(all []given, name string) (a learn.Access) {
	for _, g := range all {
		if g.path == name || g.path == "/" || strings.HasPrefix(name, g.path+"/") {
			a |= g.access
		}
	}
	return a
}
