//go:build linux

package main

import (
	"cmp"
	"errors"
	"flag"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/chroot"
)

// flags is what the command line says. Empty means what the usage text calls the default.
type flags struct {
	rootfs string
	layers
	readOnly bool
	volumes  []volume
	tmpfs    []chroot.Tmpfs
	devices  []device
	shmSize  int64
	workdir  string

	user, userns         string
	groups               []string
	hostname, domainname string

	network                 network
	pid, ipc, uts, cgroupns string

	capAdd, capDrop caps.Set
	privileged      bool
	security

	limits []caisson.Rlimit
	resources
	oomKillDisable bool
	stats          bool

	fileEnv, env []string // NAME or NAME=value
	imageEnv     []string
	interactive  bool
	tty          bool
	init         bool
	rm           bool
	timeout      time.Duration
	explain      bool
	help         bool

	command []string

	categories io.Closer // holds the command's SELinux categories as long as we live
}

// parse reads the command line. Flags end at the first argument that is none, or at "--".
func parse(args []string) (*flags, error) {
	f := new(flags)
	var err error
	if f.command, err = parseArgs(f.define(), args); err != nil || f.help {
		return f, err
	}
	return f, f.check()
}

// check finds flags that do not go together.
func (f *flags) check() error {
	switch {
	case f.ipc == "host" && f.shmSize != 0:
		return errors.New("--shm-size does not go with --ipc host, whose /dev/shm is the host's own")
	case f.uts == "host" && (f.hostname != "" || f.domainname != ""):
		return errors.New("--hostname and --domainname do not go with --uts host: they would be the host's own")
	}
	return cmp.Or(f.checkLayers(), f.network.check())
}

// define gives the flags their names.
func (f *flags) define() *flag.FlagSet {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	def := func(set func(string) error, names ...string) {
		for _, name := range names {
			fs.Func(name, "", set)
		}
	}
	def(text(&f.rootfs), "rootfs")
	f.layers.define(def)
	def(each(&f.volumes, parseVolume), "volume", "v")
	def(each(&f.tmpfs, parseTmpfs), "tmpfs")
	def(f.setMount, "mount")
	def(each(&f.devices, parseDevice), "device")
	def(value(&f.shmSize, parseSize), "shm-size")
	def(f.setWorkdir, "workdir", "w")
	def(text(&f.user), "user", "u")
	def(text(&f.hostname), "hostname", "h")
	def(text(&f.domainname), "domainname")
	def(choice(&f.userns, "host", "keep-id", "auto"), "userns")
	f.network.define(def)
	def(choice(&f.pid, "private", "host"), "pid")
	def(choice(&f.ipc, "private", "host"), "ipc")
	def(choice(&f.uts, "private", "host"), "uts")
	def(choice(&f.cgroupns, "private", "host"), "cgroupns")
	def(each(&f.groups, nonEmpty), "group-add")
	def(addCapability(&f.capAdd), "cap-add")
	def(addCapability(&f.capDrop), "cap-drop")
	def(f.setSecurity, "security-opt")
	def(each(&f.limits, caisson.ParseRlimit), "ulimit")
	f.defineLimits(def)
	def(each(&f.env, parseEnv), "env", "e")
	def(f.addEnvFile, "env-file")
	def(f.setTimeout, "timeout")
	for name, p := range map[string]*bool{"read-only": &f.readOnly, "interactive": &f.interactive, "i": &f.interactive,
		"tty": &f.tty, "t": &f.tty, "init": &f.init, "rm": &f.rm, "explain": &f.explain, "help": &f.help,
		"publish-all": &f.network.all, "P": &f.network.all, "privileged": &f.privileged, "oom-kill-disable": &f.oomKillDisable, "stats": &f.stats} {
		fs.BoolVar(p, name, false, "")
	}
	return fs
}

func text(p *string) func(string) error {
	return func(s string) error {
		*p = s
		return nil
	}
}

// choice takes one of the words, or nothing for the default.
func choice(p *string, words ...string) func(string) error {
	return func(s string) error {
		if s != "" && !slices.Contains(words, s) {
			return errors.New("not one of " + strings.Join(words, ", "))
		}
		*p = s
		return nil
	}
}

// each collects the values of a flag that may be repeated.
func each[T any](list *[]T, parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		v, err := parse(s)
		*list = append(*list, v)
		return err
	}
}

func nonEmpty(s string) (string, error) {
	if s == "" {
		return "", errors.New("empty")
	}
	return s, nil
}

func (f *flags) setWorkdir(s string) error {
	if !path.IsAbs(s) {
		return errors.New("not an absolute path")
	}
	f.workdir = s
	return nil
}

func (f *flags) setTimeout(s string) (err error) {
	f.timeout, err = time.ParseDuration(s)
	if err == nil && f.timeout <= 0 {
		err = errors.New("not above zero")
	}
	return err
}
