//go:build linux

package lsm

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/plan"
)

// SELinux labels the command (selinux(8)). A context that the policy does not know is EINVAL; one that the caller may not go over to, EACCES, at the
// latest at execve; a kernel without SELinux is errors.ErrUnsupported; a label that is not the one asked for a [*LabelError].
//
// With no_new_privs, and where the command is on a mount with nosuid, as all of chroot.Host is, or is executed by way of an init process, the policy
// must allow the transition twice: process2 { nnp_transition nosuid_transition }, as that of container-selinux does.
//
// That SELinux is permissive is no error: the Detail of the result says that nothing is denied.
type SELinux struct {
	Process Context // of the command; the zero value leaves it to the policy
	Keyring Context // of a new session keyring for the command (keyrings(7)); the zero value leaves the caller's
}

// Apply implements plan.Primitive.
func (s SELinux) Apply(p *plan.Plan) error { return s.apply(p, here()) }

func (s SELinux) apply(p *plan.Plan, h host) error {
	if s == (SELinux{}) {
		return invalid("SELinux", "no context is given")
	}
	if err := p.Claim("SELinux context"); err != nil {
		return err
	}
	dir, err := h.need("selinux", "attr/")
	if err != nil {
		return err
	}
	if s.Keyring != (Context{}) {
		if err := s.keyring(p, h, dir); err != nil {
			return err
		}
	}
	if s.Process == (Context{}) {
		return nil
	}
	if err := s.Process.check(); err != nil {
		return err
	}
	text := s.Process.String()
	change{module: "selinux", ask: dir + "exec", current: dir + "current", request: text, want: text, same: sameContext, hints: contextHints}.record(p, h)
	return nil
}

var contextHints = map[syscall.Errno]string{
	syscall.EINVAL: "the policy does not know the context, or no policy is loaded",
	syscall.EACCES: "the policy does not let the caller choose contexts",
}

// keyring makes a session keyring. The kernel forgets the label for keys at execve.
func (s SELinux) keyring(p *plan.Plan, h host, dir string) error {
	if err := s.Keyring.check(); err != nil {
		return err
	}
	const joinSession = 1 // KEYCTL_JOIN_SESSION_KEYRING
	proc := p.Open(`"/proc" as proc`, func(*plan.Run) (*os.File, error) { return h.openProc() })
	file, got, text := p.Slot(), p.Answer(labelSize), s.Keyring.String()
	p.Child(plan.Labels,
		openAttr(proc, "self/"+dir+"keycreate").Save(file),
		plan.Call("write", unix.SYS_WRITE, plan.Saved(file), plan.Str(text), plan.Int(len(text))).
			Hint(syscall.EINVAL, contextHints[syscall.EINVAL]).Hint(syscall.EACCES, contextHints[syscall.EACCES]),
		plan.Call("pread64", unix.SYS_PREAD64, plan.Saved(file), plan.Into(got), plan.Int(labelSize-1), plan.Int(0), plan.Int(0)),
		plan.Call("close", unix.SYS_CLOSE, plan.Saved(file)),
		closeProc(proc),
		plan.Call("keyctl", unix.SYS_KEYCTL, plan.Number(joinSession, "KEYCTL_JOIN_SESSION_KEYRING"), plan.Null(), plan.Int(0), plan.Int(0), plan.Int(0)))
	p.After(plan.Action{Name: "look for the label of the keyring", Each: true, Do: func(r *plan.Run) error {
		if have := string(bytes.TrimRight(r.Answer(got), "\x00\n")); !sameContext(have, text) {
			return &LabelError{"selinux", text, have}
		}
		return nil
	}})
	return nil
}

// Creating are the contexts that SELinux gives to what the calling thread makes. A zero value leaves that to the policy.
type Creating struct {
	File   Context // files, directories, sockets in the file system
	Key    Context // keys and keyrings
	Socket Context // sockets, the ones of a socketpair too
}

// Do calls f on a thread whose creations are labelled. Other goroutines are not concerned, nor those that f starts. Where the labels cannot be taken back afterwards, the
// thread is thrown away.
func (c Creating) Do(f func() error) error { return c.do(here(), f) }

func (c Creating) do(h host, f func() error) error {
	labels := map[string]Context{"fscreate": c.File, "keycreate": c.Key, "sockcreate": c.Socket}
	dir, err := h.need("selinux", "attr/")
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer close(done) // also where f ends its goroutine
		runtime.LockOSThread()
		err, clean := labelled(h, dir, labels, f)
		if clean {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	err, ok := <-done
	if !ok {
		return invalid("Do", "the function has ended its goroutine")
	}
	return err
}

func labelled(h host, dir string, labels map[string]Context, f func() error) (err error, clean bool) {
	proc, err := h.openProc()
	if err != nil {
		return err, true
	}
	defer proc.Close()
	clean = true
	for name, c := range labels {
		if c == (Context{}) {
			continue
		}
		if err = setAttr(proc, dir+name, c); err != nil {
			break
		}
	}
	if err == nil {
		err = f()
	}
	for name := range labels {
		clean = clearAttr(proc, dir+name) == nil && clean
	}
	return err, clean
}

// setAttr labels the calling thread, and reads back what the kernel has understood.
func setAttr(proc *os.File, name string, c Context) error {
	if err := c.check(); err != nil {
		return err
	}
	f, err := openIn(proc, "thread-self/"+name, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeAll(f, []byte(c.String())); err != nil {
		return fail(err, "write %s to %s", c, f.Name())
	}
	b := make([]byte, labelSize)
	n, err := unix.Pread(int(f.Fd()), b, 0)
	if err != nil {
		return fail(err, "read %s", f.Name())
	}
	if have := text(b[:n]); !sameContext(have, c.String()) {
		return &LabelError{"selinux", c.String(), have}
	}
	return nil
}

// clearAttr takes a label back: a lone newline is how the kernel is told so.
func clearAttr(proc *os.File, name string) error {
	f, err := openIn(proc, "thread-self/"+name, unix.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	return writeAll(f, []byte("\n"))
}

// CheckContext asks the policy whether it knows the context. One that it does not know is EINVAL.
func CheckContext(c Context) error { return here().checkContext(c) }

func (h host) checkContext(c Context) error {
	if err := c.check(); err != nil {
		return err
	}
	err := h.write("/sys/fs/selinux", selinuxMagic, "context", []byte(c.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return unsupported("ask for a context", "the kernel does not have SELinux enabled, or selinuxfs is not mounted")
	}
	return err
}

// ContainerContexts gives the contexts that the host's policy has for containers' processes and files, most often container_t and
// container_file_t, without categories. A host whose policy has none is errors.ErrUnsupported.
func ContainerContexts() (process, file Context, err error) { return here().containerContexts() }

func (h host) containerContexts() (process, file Context, err error) {
	settings, err := h.settings("/etc/selinux/config")
	if err != nil {
		return process, file, err
	}
	kind := settings["SELINUXTYPE"]
	if kind == "" || strings.ContainsFunc(kind, notInWord) {
		return process, file, unsupported("read /etc/selinux/config", "it names no policy")
	}
	name := "/etc/selinux/" + kind + "/contexts/lxc_contexts"
	if settings, err = h.settings(name); err != nil {
		return process, file, err
	}
	for _, c := range []struct {
		key string
		to  *Context
	}{{"process", &process}, {"file", &file}} {
		if *c.to, err = ParseContext(settings[c.key]); err != nil {
			return Context{}, Context{}, &Error{"read " + name, err, "no context for " + c.key}
		}
	}
	return process, file, nil
}

// settings reads lines key = "value".
func (h host) settings(name string) (map[string]string, error) {
	f, err := os.Open(h.root + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unsupported("read "+name, "the host has no policy of SELinux for containers")
	}
	if err != nil {
		return nil, fail(bare(err), "read %s", name)
	}
	defer f.Close()
	values := map[string]string{}
	for s := bufio.NewScanner(f); s.Scan(); {
		key, value, ok := strings.Cut(s.Text(), "=")
		if key = strings.TrimSpace(key); ok && !strings.HasPrefix(key, "#") {
			values[key] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return values, nil
}
