package caisson_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/caisson-dev/caisson/plan"
)

// behavior is one thing that os/exec does. Do does it in one of the worlds and notes what a caller can see; it must see the
// same in all.
type behavior struct {
	name string
	do   func(t *testing.T, w world, n *notes)
}

// notes are what was seen.
type notes struct{ seen []string }

func (n *notes) add(what string, v any) { n.seen = append(n.seen, fmt.Sprintf("%s: %v", what, v)) }

func (n *notes) err(what string, err error) { n.add(what, identity(err)) }

// errTest is an error of the caller's own.
var errTest = errors.New("a test's own error")

// identity gives all by which a caller may tell an error. That something is missing may be said of the name that was looked up
// (exec.ErrNotFound), of the file, or of both.
func identity(err error) []string {
	var ids []string
	for name, is := range map[string]bool{
		"nil":              err == nil,
		"missing":          errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist),
		"ErrDot":           errors.Is(err, exec.ErrDot),
		"ErrPermission":    errors.Is(err, fs.ErrPermission),
		"ErrClosed":        errors.Is(err, fs.ErrClosed),
		"ErrWaitDelay":     errors.Is(err, exec.ErrWaitDelay),
		"ErrProcessDone":   errors.Is(err, os.ErrProcessDone),
		"Canceled":         errors.Is(err, context.Canceled),
		"DeadlineExceeded": errors.Is(err, context.DeadlineExceeded),
		"errTest":          errors.Is(err, errTest),
	} {
		if is {
			ids = append(ids, name)
		}
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		ids = append(ids, "ExitError "+exit.Error())
	}
	if e := plan.Errno(err); e != 0 && e != syscall.ENOENT {
		ids = append(ids, e.Error())
	}
	if err != nil && (len(ids) == 0 || strings.HasPrefix(err.Error(), "exec: canceling")) {
		ids = append(ids, err.Error())
	}
	return ids
}

func TestLikeOSExec(t *testing.T) {
	var all []behavior
	for _, part := range [][]behavior{lookup(), environment(), directory(), input(), output(), pipes(), files(), misuse(), ends(),
		contexts(), delays(), failures(), inherited()} {
		all = append(all, part...)
	}
	want := make([]notes, len(all))
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			w.need(t)
			for i, b := range all {
				t.Run(b.name, func(t *testing.T) {
					var got notes
					b.do(t, w, &got)
					require.NotEmpty(t, got.seen)
					if want[i].seen == nil {
						want[i] = got // the first world is os/exec
					}
					require.Equal(t, want[i].seen, got.seen)
				})
			}
		})
	}
}

// script writes an executable file.
func script(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o755))
	return path
}

func lookup() []behavior {
	return []behavior{
		{"defaults", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "exit 3")
			n.add("args", *c.Args)
			n.add("rest", fmt.Sprint(*c.Env == nil, *c.Dir == "", *c.Stdin == nil, *c.Stdout == nil, *c.Stderr == nil, *c.ExtraFiles == nil,
				*c.Err == nil, *c.Cancel == nil, *c.WaitDelay, c.process() == nil, c.state() == nil))
			if w.ownRoot { // it will be looked up inside
				require.Equal(t, "sh", *c.Path)
			} else {
				want, err := exec.LookPath("sh")
				require.NoError(t, err)
				require.Equal(t, want, *c.Path)
			}
			n.err("run", c.Run())
		}},
		{"a path is left as it is", func(t *testing.T, w world, n *notes) {
			c := w.command("/bin/../bin/sh", "-c", ":")
			n.add("path", *c.Path)
			n.err("run", c.Run())
		}},
		{"arguments", func(t *testing.T, w world, n *notes) {
			c := w.command(self(), "", "a b", "-x", "\xff\n", "ü", strings.Repeat("long", 1000))
			*c.Env = helperEnviron("args")
			out, err := c.Output()
			n.err("run", err)
			n.add("out", string(out))
		}},
		{"no arguments at all", func(t *testing.T, w world, n *notes) {
			c := w.command(self(), "forgotten")
			*c.Args, *c.Env = nil, helperEnviron("args")
			out, err := c.Output()
			n.err("run", err)
			n.add("out", string(out))
		}},
		{"another name in argv[0]", func(t *testing.T, w world, n *notes) {
			c := w.command(self())
			*c.Args, *c.Env = []string{"other", "x"}, helperEnviron("args")
			out, err := c.Output()
			n.err("run", err)
			n.add("out", string(out))
		}},
		{"not found", func(t *testing.T, w world, n *notes) {
			t.Setenv("PATH", "/usr/bin:/bin") // all of it can be searched by anyone
			c := w.command("caisson-test-no-such-program")
			err := c.Start()
			require.ErrorIs(t, err, exec.ErrNotFound)
			n.err("start", err)
			n.add("process", c.process() == nil)
			n.err("wait", c.Wait())
		}},
		{"not found in an empty PATH", func(t *testing.T, w world, n *notes) {
			t.Setenv("PATH", "")
			err := w.command("sh").Start()
			require.ErrorIs(t, err, exec.ErrNotFound)
			n.err("start", err)
		}},
		{"a program in the working directory", func(t *testing.T, w world, n *notes) {
			dir := t.TempDir()
			script(t, dir, "caisson-test-here", "#!/bin/sh\necho here\n")
			t.Chdir(dir)
			t.Setenv("PATH", ".:/usr/bin:/bin")
			c := w.command("caisson-test-here")
			err := c.Start()
			if w.ownRoot { // relative directories are passed over, inside
				require.ErrorIs(t, err, exec.ErrNotFound)
				n.add("start", "[ErrDot]")
				n.add("all the same", "here\n[nil]")
				return
			}
			n.err("start", err)
			c = w.command("caisson-test-here")
			*c.Err = nil
			out, err := c.Output()
			n.add("all the same", string(out)+fmt.Sprint(identity(err)))
		}},
		{"Err", func(t *testing.T, w world, n *notes) {
			c := w.command("true")
			*c.Err = errTest
			n.err("start", c.Start())
			n.err("again", c.Start())
		}},
		{"no path", func(t *testing.T, w world, n *notes) {
			c := w.command("true")
			*c.Path = ""
			n.err("start", c.Start())
		}},
		{"a path without a slash, set by hand", func(t *testing.T, w world, n *notes) {
			dir := t.TempDir()
			script(t, dir, "caisson-test-hand", "#!/bin/sh\necho by hand\n")
			c := w.command("/bin/true")
			*c.Path, *c.Dir = "caisson-test-hand", dir
			if w.ownRoot { // it is looked up inside
				*c.Path = "./caisson-test-hand"
			}
			out, err := c.Output()
			n.err("run", err)
			n.add("out", string(out))
		}},
		{"String", func(t *testing.T, w world, n *notes) {
			n.add("path", w.command("/bin/echo", "a", "b c").String())
			n.add("missing", w.command("/caisson/test", "a").String())
			c := w.command("/bin/echo", "a")
			*c.Err = errTest
			n.add("with Err", c.String())
		}},
	}
}

func environment() []behavior {
	show := func(t *testing.T, w world, n *notes, env []string, dir string) {
		t.Helper()
		c := w.command("/usr/bin/env")
		*c.Env, *c.Dir = env, dir
		n.add("environ", fmt.Sprintf("%q", c.Environ()))
		out, err := c.Output()
		n.err("run", err)
		n.add("out", string(out))
	}
	of := func(env ...string) func(*testing.T, world, *notes) {
		return func(t *testing.T, w world, n *notes) { show(t, w, n, env, "") }
	}
	return []behavior{
		{"environment of the caller", func(t *testing.T, w world, n *notes) {
			t.Setenv("CAISSON_TEST_INHERITED", "yes")
			show(t, w, n, nil, "")
		}},
		{"empty environment", func(t *testing.T, w world, n *notes) { show(t, w, n, []string{}, "") }},
		{"environment", of("A=1", "B=", "C=a b=c")},
		{"the last of duplicates", of("A=1", "B=2", "A=3", "A=4")},
		{"odd variables", of("noequals", "=X=1", "=", "A=1", "")},
		{"variables with newlines", of("A=1\n2", "B=ü\xff")},
		{"NUL in a variable", func(t *testing.T, w world, n *notes) {
			c := w.command("/usr/bin/env")
			*c.Env = []string{"A=1", "B=x\x00C=y"}
			n.add("start refused", c.Start() != nil)
			n.add("process", c.process() == nil)
		}},
		{"PWD", func(t *testing.T, w world, n *notes) {
			t.Setenv("PWD", "/elsewhere")
			show(t, w, n, nil, "/usr")
		}},
		{"PWD of an environment of its own", func(t *testing.T, w world, n *notes) { show(t, w, n, []string{"A=1"}, "/usr") }},
		{"PWD twice", func(t *testing.T, w world, n *notes) { show(t, w, n, []string{"PWD=/a", "A=1", "PWD=/b"}, "/usr") }},
		{"the PATH of the command is no matter", func(t *testing.T, w world, n *notes) {
			if w.ownRoot { // there it is, by design
				n.err("run", nil)
				return
			}
			c := w.command("sh", "-c", ":")
			*c.Env = []string{"PATH=/nonexistent"}
			n.err("run", c.Run())
		}},
	}
}

func directory() []behavior {
	pwd := func(w world, n *notes, dir string) {
		c := w.command("/bin/sh", "-c", "pwd; pwd -P; echo $PWD")
		*c.Dir = dir
		out, err := c.Output()
		n.err("run", err)
		n.add("out", string(out))
	}
	return []behavior{
		{"directory", func(t *testing.T, w world, n *notes) { pwd(w, n, "/usr/bin/..") }},
		{"directory by a link", func(t *testing.T, w world, n *notes) {
			link := filepath.Join(os.TempDir(), "link")
			require.NoError(t, os.Symlink("/usr", link))
			defer os.Remove(link)
			pwd(w, n, link)
		}},
		{"directory of the caller", func(t *testing.T, w world, n *notes) {
			t.Chdir("/") // in a root of its own, the command is there anyhow
			pwd(w, n, "")
		}},
		{"relative program", func(t *testing.T, w world, n *notes) {
			dir := filepath.Join(os.TempDir(), "relative")
			require.NoError(t, os.MkdirAll(dir, 0o755))
			script(t, dir, "there", "#!/bin/sh\npwd\n")
			c := w.command("./there")
			*c.Dir = dir
			out, err := c.Output()
			n.err("run", err)
			n.add("out", string(out))
		}},
		{"missing directory", func(t *testing.T, w world, n *notes) {
			c := w.command("/bin/true")
			*c.Dir = "/caisson/no/such/directory"
			n.err("start", c.Start())
			n.add("process", c.process() == nil)
		}},
		{"directory is a file", func(t *testing.T, w world, n *notes) {
			c := w.command("/bin/true")
			*c.Dir = "/bin/true"
			n.err("start", c.Start())
		}},
		{"NUL in the directory", func(t *testing.T, w world, n *notes) {
			c := w.command("/bin/true")
			*c.Dir = "/\x00"
			n.add("start refused", c.Start() != nil)
		}},
	}
}

func failures() []behavior {
	start := func(name string, arg ...string) func(*testing.T, world, *notes) {
		return func(t *testing.T, w world, n *notes) {
			c := w.command(name, arg...)
			n.err("start", c.Start())
			n.add("process", c.process() == nil)
			n.add("state", c.state() == nil)
			n.err("wait", c.Wait())
			n.err("start again", c.Start())
		}
	}
	file := func(text string, mode os.FileMode) func(*testing.T, world, *notes) {
		return func(t *testing.T, w world, n *notes) {
			path := script(t, t.TempDir(), "program", text)
			require.NoError(t, os.Chmod(path, mode))
			start(path)(t, w, n)
		}
	}
	return []behavior{
		{"no such file", start("/caisson/no/such/program")},
		{"a file for a directory", start("/bin/true/program")},
		{"a directory for a program", start("/usr")},
		{"not executable", file("#!/bin/sh\n", 0o644)},
		{"wrong format", file("no program", 0o755)},
		{"empty program", file("", 0o755)},
		{"no interpreter", file("#!/caisson/no/such/interpreter\n", 0o755)},
		{"interpreter is not executable", file("#!/etc/passwd\n", 0o755)},
		{"a chain of links", func(t *testing.T, w world, n *notes) {
			link := filepath.Join(t.TempDir(), "loop")
			require.NoError(t, os.Symlink(link, link))
			start(link)(t, w, n)
		}},
		{"a long name", start("/" + strings.Repeat("x", 300))},
		{"NUL in the program", start("/bin/true\x00")},
		{"NUL in an argument", start("/bin/true", "a\x00b")},
		{"argument too long", start("/bin/true", strings.Repeat("x", 1<<20))},
		{"too many arguments", start("/bin/true", slices.Repeat([]string{strings.Repeat("x", 100<<10)}, 100)...)},
	}
}
