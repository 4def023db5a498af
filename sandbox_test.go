package caisson_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/plan"
)

// box is an ordinary sandbox, where there can be one.
func box(t *testing.T, parts ...plan.Primitive) caisson.Sandbox {
	t.Helper()
	if os.Geteuid() != 0 {
		needUserNamespace(t)
	}
	return caisson.New(isolated()...).With(parts...)
}

func TestSandboxIsImmutable(t *testing.T) {
	base := caisson.New(caisson.Umask(0o22))
	before := base.Plan().String()
	first, second := base.With(caisson.DieWithParent{}), base.With(caisson.Affinity{0})
	require.Equal(t, before, base.Plan().String())
	require.NotContains(t, first.Plan().String(), "affinity")
	require.NotContains(t, second.Plan().String(), "PDEATHSIG")
	require.Equal(t, caisson.New().Plan().String(), caisson.Sandbox{}.Plan().String())
	out, err := caisson.Sandbox{}.Command("echo", "zero").Output()
	require.NoError(t, err)
	require.Equal(t, "zero\n", string(out))
}

func TestSandboxIsSharedByGoroutines(t *testing.T) {
	s := box(t)
	errs := make(chan error)
	for range 8 {
		go func() { errs <- s.Command("/bin/true").Run() }()
	}
	for range 8 {
		require.NoError(t, <-errs)
	}
}

// TestNothingIsTouched: what can be known is known before the first action.
func TestNothingIsTouched(t *testing.T) {
	touched := 0
	touch := plan.Func(func(p *plan.Plan) error {
		p.Before(plan.Action{Name: "touch", Do: func(*plan.Run) error {
			touched++
			return nil
		}})
		return nil
	})
	s := caisson.New(touch)
	require.NoError(t, s.Command("/bin/true").Run())
	require.Equal(t, 1, touched, "the test's own action")
	for name, c := range map[string]struct {
		cmd *caisson.Cmd
		is  error
	}{
		"no program":          {s.Command("caisson-test-no-such-program"), exec.ErrNotFound},
		"NUL in the path":     {s.Command("/bin/true\x00"), syscall.EINVAL},
		"NUL in an argument":  {s.Command("/bin/true", "\x00"), syscall.EINVAL},
		"missing directory":   {in(s.Command("/bin/true"), "/caisson/none"), fs.ErrNotExist},
		"below a file":        {in(s.Command("/bin/true"), "/bin/true/x"), syscall.ENOTDIR},
		"NUL in a directory":  {in(s.Command("/bin/true"), "/\x00"), syscall.EINVAL},
		"NUL in a variable":   {with(s.Command("/bin/true"), "A=\x00"), syscall.EINVAL},
		"two users":           {s.With(caisson.User{}, caisson.User{}).Command("/bin/true"), syscall.EINVAL},
		"an impossible umask": {s.With(caisson.Umask(0o1000)).Command("/bin/true"), syscall.EINVAL},
		"closed file":         {reading(s.Command("/bin/true")), os.ErrClosed},
		"negative WaitDelay":  {delayed(s.Command("/bin/true")), syscall.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			touched = 0
			require.ErrorIs(t, c.cmd.Run(), c.is)
			require.Zero(t, touched)
			require.Nil(t, c.cmd.Process)
			require.Equal(t, plan.NotEnded, c.cmd.Result().Reason)
			if !errors.Is(c.is, os.ErrClosed) && name != "missing directory" && name != "below a file" { // the plan opens nothing
				require.True(t, strings.HasPrefix(c.cmd.Plan(), "error: "), c.cmd.Plan())
			}
		})
	}
}

func in(c *caisson.Cmd, dir string) *caisson.Cmd {
	c.Dir = dir
	return c
}

func with(c *caisson.Cmd, env ...string) *caisson.Cmd {
	c.Env = env
	return c
}

func delayed(c *caisson.Cmd) *caisson.Cmd {
	c.WaitDelay = -1
	return c
}

func reading(c *caisson.Cmd) *caisson.Cmd {
	f, _ := os.Open("/dev/null")
	f.Close()
	c.Stdin = f
	return c
}

func TestConflictNamesBoth(t *testing.T) {
	s := caisson.New(caisson.Session{}, caisson.Umask(0), caisson.Session{})
	var conflict *plan.ConflictError
	require.ErrorAs(t, s.Err(), &conflict)
	require.Equal(t, plan.ConflictError{What: "session", First: "caisson.Session", Second: "caisson.Session"}, *conflict)
	var e *caisson.Error
	require.ErrorAs(t, s.Command("true").Run(), &e)
	require.Zero(t, e.Step)
	require.Equal(t, "caisson.Session", e.Primitive)
}

func TestCmdMadeByHand(t *testing.T) {
	c := caisson.Cmd{Path: "/bin/true"}
	require.EqualError(t, c.Start(), "exec: Cmd was not made by a Sandbox")
}

// TestLookupInside: in a root of its own a name is looked up in the PATH of the command, not in that of the caller.
func TestLookupInside(t *testing.T) {
	s := box(t)
	dir := t.TempDir()
	for _, name := range []string{"first", "second", "third", "denied", "dir"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	script(t, filepath.Join(dir, "second"), "tool", "#!/bin/sh\necho second\n")
	script(t, filepath.Join(dir, "third"), "tool", "#!/bin/sh\necho third\n")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "denied", "tool"), []byte("#!/bin/sh\n"), 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "dir", "tool"), 0o755))
	path := func(names ...string) string {
		for i, n := range names {
			if n != "" && n != "." && n[0] != '/' && !strings.HasPrefix(n, "./") {
				names[i] = filepath.Join(dir, n)
			}
		}
		return "PATH=" + strings.Join(names, ":")
	}
	t.Setenv("PATH", filepath.Join(dir, "third"))
	for name, c := range map[string]struct {
		env []string
		dir string
		out string
		err error
	}{
		"the command's PATH":            {env: []string{path("first", "second", "third")}, out: "second\n"},
		"the last PATH counts":          {env: []string{path("second"), path("third")}, out: "third\n"},
		"no PATH":                       {env: []string{"A=1"}, err: exec.ErrNotFound},
		"an empty PATH":                 {env: []string{"PATH="}, err: exec.ErrNotFound},
		"the caller's PATH":             {env: nil, out: "third\n"},
		"relative ones are passed over": {env: []string{path(".", "", "./second", "third")}, dir: filepath.Join(dir, "second"), out: "third\n"},
		"nothing but relative ones":     {env: []string{path(".", "", "./second")}, dir: filepath.Join(dir, "second"), err: exec.ErrNotFound},
		"what may not be executed":      {env: []string{path("denied", "second")}, out: "second\n"},
		"a directory":                   {env: []string{path("dir", "second")}, out: "second\n"},
		"a file instead of a directory": {env: []string{path("second/tool", "third")}, out: "third\n"},
		"denied and nothing else":       {env: []string{path("first", "denied", "first")}, err: fs.ErrPermission},
		"a file and nothing else":       {env: []string{path("first", "second/tool")}, err: exec.ErrNotFound},
		"a slash at the end":            {env: []string{path("second") + "/"}, out: "second\n"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := s.Command("tool")
			cmd.Env, cmd.Dir = c.env, c.dir
			out, err := cmd.Output()
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.out, string(out))
		})
	}
}

// TestDefaultPath: without a PATH the usual directories are searched, as docker does.
func TestDefaultPath(t *testing.T) {
	c := box(t).Command("sh", "-c", "echo found")
	c.Env = []string{}
	out, err := c.Output()
	require.NoError(t, err)
	require.Equal(t, "found\n", string(out))
}

func TestDirInside(t *testing.T) {
	s := box(t)
	c := s.Command("pwd")
	out, err := c.Output()
	require.NoError(t, err)
	require.Equal(t, "/\n", string(out))

	err = in(s.Command("pwd"), "/caisson/none").Run()
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, exec.ErrNotFound)
	require.ErrorContains(t, err, "the working directory does not exist in the sandbox")

	host, err := os.Open("/")
	require.NoError(t, err)
	defer host.Close()
	c = in(s.Command("pwd"), "/proc/self/fd/3")
	c.ExtraFiles = []*os.File{host}
	require.ErrorIs(t, c.Run(), syscall.ELOOP, "a descriptor of the host's would be a way out")
}

// TestNothingElseIsInherited: not even what the caller forgot to mark close-on-exec.
func TestNothingElseIsInherited(t *testing.T) {
	f, err := os.Open("/")
	require.NoError(t, err)
	defer f.Close()
	leak, err := unix.Dup(int(f.Fd()))
	require.NoError(t, err)
	defer unix.Close(leak)
	for _, w := range worlds()[1:] {
		t.Run(w.name, func(t *testing.T) {
			w.need(t)
			c := w.command(self())
			*c.Env = helperEnviron("descriptor")
			out, err := c.Output()
			require.NoError(t, err)
			require.Len(t, strings.Split(strings.TrimSpace(string(out)), "\n"), 3, string(out))
		})
	}
}

// TestNofile: the os package raises the soft limit of descriptors, and neither os/exec's commands nor ours shall see that.
func TestNofile(t *testing.T) {
	for mode, want := range map[string]string{"": "60 1000", "set": "77 99"} {
		c := exec.Command("sh", "-c", "ulimit -Sn 60; ulimit -Hn 1000; exec \"$0\" \"$1\"", self(), mode)
		c.Env = helperEnviron("nofile")
		out, err := c.CombinedOutput()
		require.NoError(t, err, string(out))
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		require.GreaterOrEqual(t, len(lines), 3)
		for _, l := range lines {
			require.Equal(t, want, l)
		}
	}
}
