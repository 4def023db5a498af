//go:build linux

package vm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Machine describes a virtual machine. It exists while [Machine.Run] runs.
type Machine struct {
	// Kernel is a directory as kernels/prepare.sh makes it: vmlinux (amd64) or vmlinuz (arm64), one
	// lib/modules/VERSION, and root, the user land of a kernel of another architecture than the host's; or programs, with
	// libraries beside them, which come first in the commands' PATH.
	Kernel string
	// Init is a static program for the kernel's architecture that calls Guest when it is process 1. Empty means the
	// running program.
	Init string
	// Append is appended to the kernel's parameters.
	Append string
	// SELinux is a compiled policy, which the guest loads and enforces before the first command. Empty leaves the
	// kernel's default, which is AppArmor on Debian.
	SELinux string
	// Systemd is a user land of the guest's own, as kernels/prepare.sh makes it, with a systemd that becomes process 1. Empty
	// means that the guest's init stays process 1.
	Systemd string
	// Show lists directories of the host that the commands need. It matters for what would not be seen otherwise:
	// below /tmp, or anywhere if the kernel has a user land of its own.
	Show []string
	// Work is a directory of the host in which the guest may leave files. Empty means none.
	Work string
	// Timeout ends the machine. Zero means 5 minutes.
	Timeout time.Duration
}

// Command is a program for the guest to run, as root. All paths are the host's.
type Command struct {
	Args []string // the program's absolute path, and its arguments
	Env  []string // see Env
	Dir  string   // absolute
}

// Event is what the guest reports: either output of a command, or its end.
type Event struct {
	Command int // index of the command
	Output  []byte
	Exit    *Exit // nil for output
}

// Exit says how a command ended.
type Exit struct {
	Code int // as a shell has it: 128+n for death by signal n
	// Left names what the command left behind that was not there before: processes (which have been killed since),
	// mounts and cgroups.
	Left []string
}

// job is what the host hands to the guest's init, as the file /job of the initrd.
type job struct {
	Commands []Command
	Root     string // the directory of the host that is to be /
	Systemd  bool   // becomes process 1
	Show     []string
	Work     string
	Modules  string // the directory lib/modules/VERSION
	Time     time.Time
}

// Env returns the running program's environment as commands in the guest should have it. VMRUN=1 tells them where they
// are.
func Env(more ...string) []string {
	return append(append(os.Environ(), "VMRUN=1", "TMPDIR=/tmp"), more...)
}

// Run boots the machine and runs the commands one after another, whatever becomes of each. It passes all events to
// handle, in order. The error is for a machine that did not come to its end, and quotes the guest's console.
func (m Machine) Run(ctx context.Context, commands []Command, handle func(Event)) error {
	limit := cmp.Or(m.Timeout, 5*time.Minute)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the machine did not end within %v", limit))
	defer cancel()
	tmp, err := os.MkdirTemp("", "vm")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	qemu, err := m.prepare(commands, filepath.Join(tmp, "initrd"))
	if err != nil {
		return err
	}
	running := len(commands)
	console, err := boot(ctx, qemu, func(e Event) {
		if e.Exit != nil {
			running--
		}
		handle(e)
	})
	if running == 0 {
		return nil
	}
	if err = errors.Join(err, context.Cause(ctx)); err == nil {
		err = errors.New("the guest went down")
	}
	return fmt.Errorf("%d of %d commands did not end: %w; the guest's console:\n%s",
		running, len(commands), err, tail(console, 8000))
}

// prepare writes the initrd and returns qemu's command line.
func (m Machine) prepare(commands []Command, initrd string) ([]string, error) {
	b, err := boardOf(m.Kernel)
	if err != nil {
		return nil, err
	}
	init := cmp.Or(m.Init, "/proc/self/exe")
	if err := b.checkInit(init); err != nil {
		return nil, err
	}
	j, err := m.job(commands)
	if err != nil {
		return nil, err
	}
	image, err := j.initrd(init, m.SELinux)
	if err != nil {
		return nil, err
	}
	return m.arguments(b, initrd), os.WriteFile(initrd, image, 0o600)
}

func (m Machine) job(commands []Command) (job, error) {
	modules, err := filepath.Glob(m.Kernel + "/lib/modules/*")
	if err != nil || len(modules) != 1 {
		return job{}, fmt.Errorf("%s is no kernel made by kernels/prepare.sh", m.Kernel)
	}
	j := job{Commands: slices.Clone(commands), Root: "/", Modules: modules[0], Time: time.Now()}
	if _, err := os.Stat(m.Kernel + "/root"); err == nil {
		j.Root = m.Kernel + "/root"
	}
	if m.Systemd != "" {
		j.Root, j.Systemd = m.Systemd, true
	}
	j.Show, j.Work = append(slices.Clone(m.Show), j.Modules), m.Work
	if programs, err := filepath.EvalSymlinks(m.Kernel + "/programs"); err == nil {
		j.addPrograms(programs)
	}
	if err := j.resolve(); err != nil {
		return job{}, err
	}
	j.Show = slices.DeleteFunc(j.Show, func(dir string) bool {
		return j.Root == "/" && !strings.HasPrefix(dir, "/tmp/")
	})
	return j, nil
}

// addPrograms has the commands find what is in the directory, and shows it.
func (j *job) addPrograms(dir string) {
	j.Show = append(j.Show, dir)
	for i, c := range j.Commands {
		path := ""
		for _, v := range c.Env {
			if p, ok := strings.CutPrefix(v, "PATH="); ok {
				path = p
			}
		}
		j.Commands[i].Env = append(slices.Clone(c.Env), "PATH="+dir+":"+path, "LD_LIBRARY_PATH="+dir)
	}
}

// resolve follows symbolic links on the host, because in the guest an absolute one would lead out of the shared directory.
func (j *job) resolve() error {
	paths := []*string{&j.Root, &j.Modules}
	if j.Work != "" {
		paths = append(paths, &j.Work)
	}
	for i := range j.Show {
		paths = append(paths, &j.Show[i])
	}
	for i := range j.Commands {
		c := &j.Commands[i]
		c.Args = slices.Clone(c.Args)
		paths = append(paths, &c.Args[0], &c.Dir)
	}
	for _, p := range paths {
		var err error
		if *p, err = filepath.EvalSymlinks(*p); err != nil {
			return err
		}
	}
	return nil
}

// boot runs qemu to its end and returns what was written to the console.
func boot(ctx context.Context, qemu []string, handle func(Event)) ([]byte, error) {
	// A pipe of our own: -chardev stdio would close the guest's port at the end of qemu's input.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var console bytes.Buffer
	q := exec.CommandContext(ctx, qemu[0], qemu[1:]...)
	q.Stdout, q.Stderr, q.ExtraFiles = &console, &console, []*os.File{w}
	q.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = q.Start()
	w.Close()
	if err != nil {
		return nil, err
	}
	err = events(r, handle)
	return console.Bytes(), errors.Join(err, q.Wait())
}

func events(r io.Reader, handle func(Event)) error {
	for d := json.NewDecoder(r); ; {
		var e Event
		switch err := d.Decode(&e); err {
		case nil:
			handle(e)
		case io.EOF:
			return nil
		default:
			// qemu must not block on a full pipe.
			io.Copy(io.Discard, r)
			return fmt.Errorf("reading the guest's events: %w", err)
		}
	}
}

func tail(b []byte, n int) []byte {
	return b[max(0, len(b)-n):]
}
