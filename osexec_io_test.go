package caisson_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// reader is a reader made of a function, and no *os.File.
type reader func([]byte) (int, error)

func (r reader) Read(b []byte) (int, error) { return r(b) }

// writer is a writer made of a function. Functions cannot be compared.
type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// wrapped can be compared by its type, and not by its value.
type wrapped struct{ io.Writer }

func input() []behavior {
	cat := func(r io.Reader) func(*testing.T, world, *notes) {
		return func(t *testing.T, w world, n *notes) {
			c := w.command("cat")
			*c.Stdin = r
			out, err := c.Output()
			n.err("run", err)
			n.add("out", string(out))
		}
	}
	return []behavior{
		{"no input", func(t *testing.T, w world, n *notes) { cat(nil)(t, w, n) }},
		{"input from a reader", func(t *testing.T, w world, n *notes) { cat(strings.NewReader("text\x00\n"))(t, w, n) }},
		{"input from an empty reader", func(t *testing.T, w world, n *notes) { cat(strings.NewReader(""))(t, w, n) }},
		{"input from a file", func(t *testing.T, w world, n *notes) {
			f, err := os.Open("/etc/passwd")
			require.NoError(t, err)
			defer f.Close()
			_, err = f.Seek(2, io.SeekStart)
			require.NoError(t, err)
			cat(f)(t, w, n)
			at, err := f.Seek(0, io.SeekCurrent)
			require.NoError(t, err)
			n.add("it is the same open file", at > 2)
		}},
		{"input from a nil file", func(t *testing.T, w world, n *notes) {
			c := w.command(self())
			*c.Env, *c.Stdin = helperEnviron("descriptor"), (*os.File)(nil)
			out, err := c.Output()
			n.err("run", err)
			n.add("out", string(out))
		}},
		{"much input", func(t *testing.T, w world, n *notes) {
			c := w.command("wc", "-c")
			*c.Stdin = io.LimitReader(reader(func(b []byte) (int, error) { return len(b), nil }), 1<<20)
			out, err := c.Output()
			n.err("run", err)
			n.add("out", string(out))
		}},
		{"input that nobody reads", func(t *testing.T, w world, n *notes) {
			c := w.command("true")
			*c.Stdin = reader(func(b []byte) (int, error) { return len(b), nil }) // without an end
			n.err("run", c.Run())
		}},
		{"input that fails", func(t *testing.T, w world, n *notes) {
			c := w.command("cat")
			*c.Stdin = io.MultiReader(strings.NewReader("begun"), reader(func([]byte) (int, error) { return 0, errTest }))
			out, err := c.Output()
			n.err("run", err)
			n.add("out", string(out))
		}},
		{"the command's failure counts more than the input's", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "cat; exit 4")
			*c.Stdin = reader(func([]byte) (int, error) { return 0, errTest })
			n.err("run", c.Run())
		}},
	}
}

func output() []behavior {
	return []behavior{
		{"output to a file", func(t *testing.T, w world, n *notes) {
			f, err := os.Create(filepath.Join(t.TempDir(), "out"))
			require.NoError(t, err)
			defer f.Close()
			c := w.command("sh", "-c", "echo out; echo err >&2")
			*c.Stdout, *c.Stderr = f, f
			n.err("run", c.Run())
			b, err := os.ReadFile(f.Name())
			n.err("read", err)
			n.add("file", string(b))
			_, err = f.WriteString("still open")
			n.err("write", err)
		}},
		{"one writer for both", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "echo 1; echo 2 >&2; echo 3; echo 4 >&2")
			var b bytes.Buffer
			*c.Stdout, *c.Stderr = &b, &b
			n.err("run", c.Run())
			n.add("out", b.String())
		}},
		{"two writers", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "echo 1; echo 2 >&2; echo 3; echo 4 >&2")
			var out, err bytes.Buffer
			*c.Stdout, *c.Stderr = &out, &err
			n.err("run", c.Run())
			n.add("out", out.String())
			n.add("err", err.String())
		}},
		{"writers that cannot be compared", func(t *testing.T, w world, n *notes) {
			for _, wrap := range []func(writer) io.Writer{
				func(f writer) io.Writer { return f },
				func(f writer) io.Writer { return wrapped{f} },
			} {
				var b bytes.Buffer
				c := w.command("sh", "-c", "echo out")
				*c.Stdout, *c.Stderr = wrap(b.Write), wrap(func([]byte) (int, error) { return 0, errTest })
				n.err("run", c.Run())
				n.add("out", b.String())
			}
		}},
		{"a writer that fails", func(t *testing.T, w world, n *notes) {
			c := w.command("echo", "text")
			*c.Stdout = writer(func([]byte) (int, error) { return 0, errTest })
			n.err("run", c.Run())
		}},
		{"a writer that fails does not hold up the command", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "trap '' PIPE; head -c 1000000 /dev/zero; exit 5")
			*c.Stdout = writer(func([]byte) (int, error) { return 0, errTest })
			n.err("run", c.Run())
		}},
		{"much output", func(t *testing.T, w world, n *notes) {
			out, err := w.command("head", "-c", "3000000", "/dev/zero").Output()
			n.err("run", err)
			n.add("zeros", bytes.Count(out, []byte{0}))
		}},
		{"Output keeps the error output", func(t *testing.T, w world, n *notes) {
			out, err := w.command("sh", "-c", "echo out; echo err >&2; exit 3").Output()
			n.err("run", err)
			n.add("out", string(out))
			noteStderr(t, n, err)
		}},
		{"Output keeps both ends of the error output", func(t *testing.T, w world, n *notes) {
			for _, size := range []int{32 << 10, 32<<10 + 1, 64 << 10, 64<<10 + 1, 200 << 10} {
				c := w.command("sh", "-c", "cat >&2; exit 3")
				*c.Stdin = strings.NewReader(numbered(size))
				_, err := c.Output()
				n.err("run", err)
				noteStderr(t, n, err)
			}
		}},
		{"Output keeps no error output that has a place", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "echo err >&2; exit 3")
			var b bytes.Buffer
			*c.Stderr = &b
			_, err := c.Output()
			noteStderr(t, n, err)
			n.add("err", b.String())
		}},
		{"CombinedOutput", func(t *testing.T, w world, n *notes) {
			out, err := w.command("sh", "-c", "echo 1; echo 2 >&2; echo 3; exit 3").CombinedOutput()
			n.err("run", err)
			n.add("out", string(out))
			noteStderr(t, n, err)
		}},
	}
}

// numbered is a text of which no two stretches are equal.
func numbered(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "%d ", i)
	}
	return b.String()[:size]
}

func noteStderr(t *testing.T, n *notes, err error) {
	t.Helper()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	n.add("kept", string(exit.Stderr))
}

func pipes() []behavior {
	return []behavior{
		{"StdinPipe", func(t *testing.T, w world, n *notes) {
			c := w.command("cat")
			var out bytes.Buffer
			*c.Stdout = &out
			in, err := c.StdinPipe()
			n.err("pipe", err)
			n.err("start", c.Start())
			_, err = io.WriteString(in, "text")
			n.err("write", err)
			n.err("close", in.Close())
			n.err("wait", c.Wait())
			n.add("out", out.String())
			n.err("close again", in.Close())
		}},
		{"Wait closes the pipes", func(t *testing.T, w world, n *notes) {
			c := w.command("true")
			in, err1 := c.StdinPipe()
			out, err2 := c.StdoutPipe()
			errs, err3 := c.StderrPipe()
			n.add("pipes", fmt.Sprint(err1, err2, err3))
			n.err("run", c.Run())
			_, err := in.Write([]byte("x"))
			n.err("write", err)
			_, err = out.Read(make([]byte, 1))
			n.err("read", err)
			_, err = errs.Read(make([]byte, 1))
			n.err("read", err)
		}},
		{"StdoutPipe and StderrPipe", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "echo out; echo err >&2; exit 6")
			out, err1 := c.StdoutPipe()
			errs, err2 := c.StderrPipe()
			n.add("pipes", fmt.Sprint(err1, err2))
			n.err("start", c.Start())
			a, err1 := io.ReadAll(out)
			b, err2 := io.ReadAll(errs)
			n.add("read", fmt.Sprint(string(a), string(b), err1, err2))
			n.err("wait", c.Wait())
		}},
		{"a pipe that is closed early", func(t *testing.T, w world, n *notes) {
			c := w.command("sh", "-c", "trap '' PIPE; cat; exit 7")
			in, err := c.StdinPipe()
			n.err("pipe", err)
			out, err := c.StdoutPipe()
			n.err("pipe", err)
			n.err("start", c.Start())
			n.err("close", out.Close())
			io.WriteString(in, "text")
			n.err("close", in.Close())
			n.err("wait", c.Wait())
		}},
		{"a start that fails closes the pipes", func(t *testing.T, w world, n *notes) {
			c := w.command("/caisson/no/such/program")
			in, err1 := c.StdinPipe()
			out, err2 := c.StdoutPipe()
			n.add("pipes", fmt.Sprint(err1, err2))
			n.err("start", c.Start())
			_, err := in.Write([]byte("x"))
			n.err("write", err)
			_, err = out.Read(make([]byte, 1))
			n.err("read", err)
		}},
		{"a pipe for what is set", func(t *testing.T, w world, n *notes) {
			c := w.command("true")
			*c.Stdin, *c.Stdout, *c.Stderr = os.Stdin, os.Stdout, os.Stderr
			_, err := c.StdinPipe()
			n.err("in", err)
			_, err = c.StdoutPipe()
			n.err("out", err)
			_, err = c.StderrPipe()
			n.err("err", err)
			_, err = c.Output()
			n.err("output", err)
			_, err = c.CombinedOutput()
			n.err("combined", err)
			*c.Stdout = nil
			_, err = c.CombinedOutput()
			n.err("combined", err)
		}},
		{"a pipe twice", func(t *testing.T, w world, n *notes) {
			c := w.command("true")
			for range 2 {
				_, err := c.StdinPipe()
				n.err("in", err)
				_, err = c.StdoutPipe()
				n.err("out", err)
				_, err = c.StderrPipe()
				n.err("err", err)
			}
			n.err("run", c.Run())
		}},
		{"a pipe after the start", func(t *testing.T, w world, n *notes) {
			c := w.command("true")
			n.err("start", c.Start())
			_, err := c.StdinPipe()
			n.err("in", err)
			_, err = c.StdoutPipe()
			n.err("out", err)
			_, err = c.StderrPipe()
			n.err("err", err)
			n.err("wait", c.Wait())
		}},
	}
}

func files() []behavior {
	contents := func(t *testing.T, w world, n *notes, files []*os.File) {
		t.Helper()
		c := w.command(self(), strconv.Itoa(3+len(files)))
		*c.Env, *c.ExtraFiles = helperEnviron("contents"), files
		out, err := c.CombinedOutput()
		n.err("run", err)
		n.add("out", string(out))
	}
	return []behavior{
		{"extra files", func(t *testing.T, w world, n *notes) {
			f := numberedFiles(t, 2)
			defer closeAll(f)
			contents(t, w, n, []*os.File{f[0], nil, f[1], nil, f[0]})
			b := make([]byte, 6)
			_, err := f[0].ReadAt(b, 0)
			n.err("still open", err)
		}},
		{"nothing but closed extra files", func(t *testing.T, w world, n *notes) { contents(t, w, n, make([]*os.File, 20)) }},
		{"a closed file among the extra files", func(t *testing.T, w world, n *notes) {
			f := numberedFiles(t, 3)
			defer closeAll(f)
			f[1].Close()
			if w.name == "os/exec" { // it takes a file that was closed by mistake for one that shall be closed
				n.err("start", os.ErrClosed)
				return
			}
			c := w.command("/bin/true")
			*c.ExtraFiles = f
			n.err("start", c.Start())
		}},
		{"extra files whose numbers collide", func(t *testing.T, w world, n *notes) {
			f := numberedFiles(t, 24)
			defer closeAll(f)
			require.Less(t, f[0].Fd(), uintptr(24), "the files have numbers that others shall get")
			random := rand.New(rand.NewSource(1)) // the same in each world
			for range 6 {
				pick := make([]*os.File, 40)
				for i := range pick {
					if k := random.Intn(len(f) + 4); k < len(f) {
						pick[i] = f[k]
					}
				}
				contents(t, w, n, pick)
			}
		}},
		{"extra files in a ring", func(t *testing.T, w world, n *notes) {
			f := numberedFiles(t, 30)
			defer closeAll(f)
			for shift := range 3 {
				pick := make([]*os.File, 40)
				for _, file := range f { // each one goes where its neighbour comes from
					if at := int(file.Fd()) - 3 + shift; at < len(pick) {
						pick[at] = file
					}
				}
				contents(t, w, n, pick)
			}
		}},
		{"standard files crosswise", func(t *testing.T, w world, n *notes) {
			r, out, err := os.Pipe()
			require.NoError(t, err)
			defer r.Close()
			c := w.command(self(), "0", "1", "2")
			*c.Env, *c.Stdin, *c.Stdout, *c.Stderr = helperEnviron("number"), os.Stderr, os.Stdin, os.Stdout
			*c.ExtraFiles = []*os.File{out}
			n.err("start", c.Start())
			out.Close()
			got, err := io.ReadAll(r)
			n.err("read", err)
			n.err("wait", c.Wait())
			n.add("out", string(got))
			require.Equal(t, fmt.Sprint(where(t, 2, 0), where(t, 0, 1), where(t, 1, 2)), string(got))
		}},
		{"open descriptors", func(t *testing.T, w world, n *notes) {
			f := numberedFiles(t, 2)
			defer closeAll(f)
			c := w.command(self())
			*c.Env, *c.ExtraFiles = helperEnviron("descriptor"), []*os.File{nil, f[0], nil, f[1]}
			out, err := c.Output()
			n.err("run", err)
			n.add("out", string(out))
		}},
	}
}

// where says what helpNumbers prints for a descriptor of ours that a command has as number as.
func where(t *testing.T, fd, as int) string {
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &st))
	return fmt.Sprintf("%d is %d:%d\n", as, st.Dev, st.Ino)
}

// numberedFiles are open files that hold their own number, with the lowest descriptors that are free.
func numberedFiles(t *testing.T, count int) (files []*os.File) {
	t.Helper()
	dir := t.TempDir()
	for i := range count {
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
		require.NoError(t, err)
		_, err = fmt.Fprintf(f, "file %d", i)
		require.NoError(t, err)
		files = append(files, f)
	}
	return files
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
