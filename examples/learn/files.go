//go:build linux

package main

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/lsm"
	"github.com/caisson-dev/caisson/lsm/learn"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp"
	"github.com/caisson-dev/caisson/seccomp/notify"
)

// fileCalls are the calls that Landlock may refuse.
var fileCalls = []string{"open", "openat", "openat2", "creat", "execve", "execveat", "truncate", "mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat",
	"unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "link", "linkat", "bind"}

// learnFiles runs the command, prints the rules of Landlock that it needs, and runs it once more under them if that is asked for.
func learnFiles(o options) error {
	w := &watcher{}
	filter, err := w.filter()
	if err != nil {
		return err
	}
	for range o.runs {
		o.learned(command(filter).Run())
	}
	if w.err != nil {
		fmt.Fprintln(os.Stderr, "learn: not all was seen:", w.err)
	}
	profile := w.rec.Profile()
	if o.fold >= 0 {
		profile = profile.Fold(o.fold)
	}
	text := profile.String()
	if o.source {
		text = profile.Go() + "\n"
	}
	if err := write(o.out, text); err != nil || !o.check {
		return err
	}
	here := lsm.ABI(max(1, min(lsm.LandlockABI(), lsm.NewestABI)))
	return command(append(profile.Rules(), here)).Run()
}

// watcher notes what is done with which file, and lets the kernel do it.
type watcher struct {
	rec learn.Recorder

	mu  sync.Mutex
	err error // the last one that kept it from noting something
}

func (w *watcher) filter() (plan.Primitive, error) {
	program, err := seccomp.Policy{Default: seccomp.Allow, Rules: []seccomp.Rule{
		{Names: fileCalls, Action: seccomp.Notify},
		// io_uring makes calls that no filter sees.
		{Names: []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}, Action: seccomp.Errno(unix.ENOSYS)},
	}}.Compile()
	return notify.Filter{Program: program, Handler: w.handle}, err
}

func (w *watcher) handle(_ context.Context, r *notify.Request) notify.Response {
	for _, u := range uses(r) {
		if err := w.note(r, u); err != nil && !errors.Is(err, notify.ErrGone) && !missing(err) {
			w.mu.Lock()
			w.err = fmt.Errorf("%s: %w", r.Name(), err)
			w.mu.Unlock()
		}
	}
	return notify.Continue()
}

// missing is of a call that fails anyway, with rules or without.
func missing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EFAULT) || errors.Is(err, unix.EBADF) || errors.Is(err, unix.ENAMETOOLONG)
}

// use is one name in a call, and what it is for.
type use struct {
	dir, name uint64 // descriptor and address
	kind      kind
	flags     int // of open
}

type kind uint8

const (
	opened kind = iota
	executed
	truncated
	made // or removed: what counts is the directory
)

// uses takes a call apart.
func uses(r *notify.Request) []use {
	const here = notify.Working
	a := r.Args
	switch r.Name() {
	case "open":
		return []use{{here, a[0], opened, int(a[1])}}
	case "creat":
		return []use{{here, a[0], opened, unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC}}
	case "openat":
		return []use{{a[0], a[1], opened, int(a[2])}}
	case "openat2":
		var how [8]byte
		if r.Read(how[:], a[2]) != nil {
			return nil
		}
		return []use{{a[0], a[1], opened, int(binary.NativeEndian.Uint64(how[:]))}}
	case "execve":
		return []use{{here, a[0], executed, 0}}
	case "execveat":
		return []use{{a[0], a[1], executed, 0}}
	case "truncate":
		return []use{{here, a[0], truncated, 0}}
	case "mkdir", "mknod", "unlink", "rmdir":
		return []use{{here, a[0], made, 0}}
	case "mkdirat", "mknodat", "unlinkat":
		return []use{{a[0], a[1], made, 0}}
	case "symlink":
		return []use{{here, a[1], made, 0}}
	case "symlinkat":
		return []use{{a[1], a[2], made, 0}}
	case "rename", "link":
		return []use{{here, a[0], made, 0}, {here, a[1], made, 0}}
	case "renameat", "renameat2", "linkat":
		return []use{{a[0], a[1], made, 0}, {a[2], a[3], made, 0}}
	case "bind":
		return boundSocket(r)
	}
	return nil
}

// boundSocket is a socket in the file system (unix(7)).
func boundSocket(r *notify.Request) []use {
	var head [3]byte
	const name = 2 // offset of sun_path
	if r.Args[2] <= name || r.Read(head[:], r.Args[1]) != nil || binary.NativeEndian.Uint16(head[:]) != unix.AF_UNIX || head[name] == 0 {
		return nil
	}
	return []use{{notify.Working, r.Args[1] + name, made, 0}}
}

func (w *watcher) note(r *notify.Request, u use) error {
	p, err := r.Path(u.dir, u.name)
	if err != nil {
		return err // an empty name is a descriptor's: it was opened before
	}
	defer p.Close()
	err = w.notePath(p, u)
	if errors.Is(err, unix.EACCES) && !errors.Is(err, notify.ErrRefused) { // where we may not go, neither may the target
		return nil
	}
	return err
}

func (w *watcher) notePath(p *notify.Path, u use) error {
	switch u.kind {
	case made:
		return w.noteMade(p)
	case executed:
		return w.noteProgram(p, 0)
	case truncated:
		return w.noteFile(p, unix.O_WRONLY)
	}
	if u.flags&unix.O_PATH != 0 { // Landlock leaves it alone
		return nil
	}
	err := w.noteFile(p, u.flags)
	if errors.Is(err, unix.ENOENT) && u.flags&unix.O_CREAT != 0 {
		return w.noteMade(p)
	}
	return err
}

func (w *watcher) noteMade(p *notify.Path) error {
	dir, _, err := p.Parent()
	if err != nil {
		return err
	}
	defer dir.Close()
	return w.noteAt(p, dir, learn.Make)
}

func (w *watcher) noteFile(p *notify.Path, flags int) error {
	f, err := p.Open(unix.O_PATH|flags&unix.O_NOFOLLOW, 0)
	if errors.Is(err, notify.ErrRefused) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOENT) && ownProc(p) {
		return w.noteProc(p, flags)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	return w.noteAt(p, f, accessOf(st.Mode, flags))
}

// accessOf is what a file of a type is opened for.
func accessOf(mode uint32, flags int) learn.Access {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if flags&unix.O_TMPFILE == unix.O_TMPFILE {
			return learn.Make
		}
		return learn.List
	case unix.S_IFLNK, unix.S_IFSOCK: // cannot be opened
		return 0
	case unix.S_IFCHR, unix.S_IFBLK: // may be asked what it is by ioctl(2)
		return learn.Read | learn.Write
	}
	access := learn.Access(0)
	if flags&unix.O_ACCMODE != unix.O_WRONLY {
		access |= learn.Read
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0 {
		access |= learn.Write
	}
	return access
}

// ownProc reports whether the name leads to /proc/self, which is not there for a supervisor that has no number in the target's pid namespace: by itself, or by
// links as /etc/mtab and /dev/stdin.
func ownProc(p *notify.Path) bool {
	name, err := p.Absolute()
	for range 8 {
		if name = path.Clean(name); err != nil || strings.HasPrefix(name, "/proc/self") || strings.HasPrefix(name, "/proc/thread-self") {
			return err == nil
		}
		var link *os.File
		if link, err = (&notify.Path{Name: name, Base: p.Root, Root: p.Root}).Open(unix.O_PATH|unix.O_NOFOLLOW, 0); err != nil {
			return false
		}
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(int(link.Fd()), "", b)
		link.Close()
		if err != nil || n == 0 {
			return false
		}
		if name = path.Dir(name) + "/" + string(b[:n]); b[0] == '/' {
			name = string(b[:n])
		}
	}
	return false
}

// noteProc is for what a supervisor does not open: files on procfs, where links lead to itself.
func (w *watcher) noteProc(p *notify.Path, flags int) error {
	name, err := p.Absolute()
	if err != nil {
		return err
	}
	if name = path.Clean(name); !strings.HasPrefix(name, "/proc/") { // a link to there
		name = "/proc"
	}
	return w.rec.Note(name, accessOf(unix.S_IFREG, flags))
}

// noteAt notes a file that was opened, by its name in the target's root. What the kernel prints is a guess from another mount
// namespace, so it has to lead to the file.
func (w *watcher) noteAt(p *notify.Path, f *os.File, access learn.Access) error {
	name, err := printed(f)
	if err != nil {
		return err
	}
	root, err := printed(p.Root)
	if err != nil {
		return err
	}
	if root != "/" {
		name = strings.TrimPrefix(name, root)
	}
	name = path.Join("/", name)
	again, err := (&notify.Path{Name: name, Base: p.Root, Root: p.Root}).Open(unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer again.Close()
	if !same(f, again) {
		return fmt.Errorf("the name of %v is not %q: %w", p, name, unix.EXDEV)
	}
	return w.rec.Note(name, access)
}

func printed(f *os.File) (string, error) {
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
}

func same(f, g *os.File) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := g.Stat()
	return err == nil && os.SameFile(a, b)
}

// noteProgram notes a program, and the one that the kernel executes for it: the interpreter of a script, the loader of libraries.
func (w *watcher) noteProgram(p *notify.Path, depth int) error {
	const most = 5 // scripts of scripts, as the kernel has it
	f, err := p.Open(unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := w.noteAt(p, f, learn.Execute); err != nil || depth == most {
		return err
	}
	program, err := p.Open(unix.O_RDONLY, 0)
	if err != nil { // that cannot be read, only executed
		return err
	}
	defer program.Close()
	if name := interpreter(program); name != "" {
		return w.noteProgram(&notify.Path{Name: name, Base: p.Root, Root: p.Root}, depth+1)
	}
	return nil
}

// interpreter reads a program's beginning (execve(2)): "" if it needs no other one.
func interpreter(program io.ReaderAt) string {
	var head [256]byte
	n, _ := program.ReadAt(head[:], 0)
	if line, ok := strings.CutPrefix(string(head[:n]), "#!"); ok {
		line, _, _ = strings.Cut(line, "\n")
		name, _, _ := strings.Cut(strings.TrimLeft(line, " \t"), " ")
		return strings.TrimRight(name, "\t")
	}
	f, err := elf.NewFile(program)
	if err != nil {
		return ""
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz <= unix.PathMax {
			b := make([]byte, p.Filesz)
			n, _ := p.ReadAt(b, 0)
			return strings.TrimRight(string(b[:n]), "\x00")
		}
	}
	return ""
}
