package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

//go:embed c/floor.c
var floorSource []byte

//go:embed c/true.c
var trueSource []byte

// workshop is the temporary directory with all that the contestants need.
type workshop struct {
	Options options
	Dir     string
	Notes   map[string]string // why a contestant is not there
}

func (w *workshop) path(name string) string { return filepath.Join(w.Dir, name) }

// program is what is started in the sandbox.
func (w *workshop) program() string {
	if w.Options.Static {
		return w.path("true")
	}
	return "/bin/true"
}

func newWorkshop(o options) (*workshop, error) {
	dir, err := os.MkdirTemp(o.Dir, "caisson-bench-")
	if err != nil {
		return nil, err
	}
	w := &workshop{Options: o, Dir: dir, Notes: map[string]string{}}
	if err := w.fill(); err != nil {
		w.remove()
		return nil, err
	}
	return w, nil
}

func (w *workshop) fill() error {
	// An ordinary user must be able to execute what is in here: go run keeps its program in a directory of mode 0700.
	if err := os.Chmod(w.Dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"rootfs", "state", "mounts", "A", "B"} {
		if err := os.Mkdir(w.path(d), 0o755); err != nil {
			return err
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.path("bench"), self, 0o755); err != nil {
		return err
	}
	if err := w.compile("floor", floorSource, "-O2"); err != nil {
		w.Notes["C"] = err.Error()
	}
	if w.Options.Static {
		if err := w.compile("true", trueSource, "-O2", "-static", "-nostdlib"); err != nil {
			return err
		}
	}
	return errors.Join(w.bundle("A"), w.bundle("B"))
}

// compile builds one of the C programs.
func (w *workshop) compile(name string, source []byte, flags ...string) error {
	file := w.path(name + ".c")
	if err := os.WriteFile(file, source, 0o644); err != nil {
		return err
	}
	out, err := exec.Command("gcc", append(flags, "-Wall", "-o", w.path(name), file)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("gcc: %w %s", err, out)
	}
	return nil
}

// remove deletes the directory. In the private mount namespace rootfs is the host's tree: here it must be empty, and what is
// not an empty directory is left alone.
func (w *workshop) remove() {
	if err := os.Remove(w.path("rootfs")); err != nil && !errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(os.Stderr, "bench: left behind:", w.Dir, err)
		return
	}
	os.RemoveAll(w.Dir)
}

const insideArg = "-inside"

// job is what the process inside is told.
type job struct {
	Workshop  *workshop
	Scenarios []scenario
}

// enter measures the scenarios in a process with a mount namespace of its own, and gives each result to f.
func (w *workshop) enter(all []scenario, f func(result) error) error {
	arg, err := json.Marshal(job{w, all})
	if err != nil {
		return err
	}
	cmd := exec.Command(w.path("bench"), insideArg, string(arg))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS // and all mounts private
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = each(out, f)
	if err != nil {
		cmd.Process.Kill()
	}
	return errors.Join(err, cmd.Wait())
}

func each(in io.Reader, f func(result) error) error {
	for d := json.NewDecoder(in); ; {
		var r result
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := f(r); err != nil {
			return err
		}
	}
}

// inside is the process with the mount namespace of its own.
func inside(arg string, out io.Writer) error {
	var j job
	if err := json.Unmarshal([]byte(arg), &j); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		if err := j.Workshop.mounts(j.Scenarios[0].Mounts); err != nil {
			return err
		}
	}
	results := json.NewEncoder(out)
	for _, s := range j.Scenarios {
		if err := results.Encode(j.Workshop.measure(s)); err != nil {
			return err
		}
	}
	return nil
}

// mounts makes the host of the contestants. crun and runc cannot use / as the root, so that they get it bound to another
// place, without the mounts below it; and they keep their state on a tmpfs, as in /run.
func (w *workshop) mounts(further bool) error {
	if err := unix.Mount("/", w.path("rootfs"), "", unix.MS_BIND, ""); err != nil {
		return os.NewSyscallError("mount rootfs", err)
	}
	if err := unix.Mount("tmpfs", w.path("state"), "tmpfs", 0, ""); err != nil {
		return os.NewSyscallError("mount state", err)
	}
	if err := uncoverCgroups(); err != nil {
		return err
	}
	for i := 0; further && i < extraMounts; i++ {
		dir := filepath.Join(w.path("mounts"), strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4k"); err != nil {
			return os.NewSyscallError("mount tmpfs", err)
		}
	}
	return nil
}

// uncoverCgroups unmounts a hybrid cgroup2 with controllers of its own, with which crun refuses to run.
func uncoverCgroups() error {
	const unified = "/sys/fs/cgroup/unified"
	if c, err := os.ReadFile(unified + "/cgroup.controllers"); err != nil || len(c) < 2 {
		return nil
	}
	return os.NewSyscallError("umount "+unified, unix.Unmount(unified, unix.MNT_DETACH))
}
