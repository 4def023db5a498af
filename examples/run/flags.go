//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/chroot"
)

const usage = `Usage: run [flags] [--] command [argument...]

Runs a command in a sandbox, as docker run does.

File system
      --rootfs DIR             root directory (default: the host's, read-only, with scratch /tmp and /run)
      --read-only              make the root directory read-only; volumes and tmpfs stay writable
  -v, --volume SRC:DST[:ro]    show a file or directory of the host in the sandbox; SRC must exist. In the host's
                               own root DST must exist too, or be below /tmp, /run or a --tmpfs
      --tmpfs DST[:OPTIONS]    scratch directory in memory; options size=64m (b, k, m, g) and mode=1777
  -w, --workdir DIR            working directory, absolute; must exist (default: /)

Identity
  -u, --user USER[:GROUP]      names or numbers; names as in the root directory's /etc/passwd and /etc/group
      --group-add GROUP        further group; may be repeated
  -h, --hostname NAME          (default: random)
      --domainname NAME        NIS domain name
      --userns MODE            host: none, as docker run has it; keep-id: one's own ids inside;
                               auto: root inside is nobody outside, with subordinate ids (subuid(5))
                               (default: host for root; for others one in which they are root)
                               Root inside has docker run's capabilities, less mknod

Isolation
      --network none|host      (default: none, a loopback interface that is down)
      --pid host               share the host's processes; likewise --ipc host and --uts host
      --cgroupns private|host  (default: private)
      --ulimit NAME=SOFT[:HARD]
                               resource limit, such as nofile=1024; may be repeated

Execution
  -e, --env NAME[=VALUE]       without =VALUE it is the caller's own value
      --env-file FILE          lines NAME=VALUE, NAME, or # comment
  -i, --interactive            pass standard input on (default: /dev/null)
  -t, --tty                    give the command a terminal of its own
      --init                   run an init process that reaps orphans and forwards signals
      --rm                     for docker run's sake: nothing is ever kept
      --timeout DURATION       kill everything after 1m30s or the like
      --explain                print what would be done, system call by system call, and do nothing
      --help

The exit code is the command's; 128 and the signal that ended it, also with --timeout (137, and a line on standard
error; timeout(1) has 124); 125 for errors of run itself, 126 if the command cannot be executed, 127 if it is not there.
Without --tty signals are passed on to the command. Without --init the command is process 1, which ignores those that
it has no handler for.
`

// flags is what the command line says. Empty means what the usage text calls the default.
type flags struct {
	rootfs   string
	readOnly bool
	volumes  []chroot.Bind
	tmpfs    []chroot.Tmpfs
	workdir  string

	user, userns         string
	groups               []string
	hostname, domainname string

	network, pid, ipc, uts, cgroupns string

	limits []caisson.Rlimit

	fileEnv, env []string // NAME or NAME=value
	interactive  bool
	tty          bool
	init         bool
	rm           bool
	timeout      time.Duration
	explain      bool
	help         bool

	command []string
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
	case len(f.command) == 0:
		return errors.New("no command; see run --help")
	case f.uts == "host" && (f.hostname != "" || f.domainname != ""):
		return errors.New("--hostname and --domainname do not go with --uts host: they would be the host's own")
	}
	return nil
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
	def(each(&f.volumes, parseVolume), "volume", "v")
	def(each(&f.tmpfs, parseTmpfs), "tmpfs")
	def(f.setWorkdir, "workdir", "w")
	def(text(&f.user), "user", "u")
	def(text(&f.hostname), "hostname", "h")
	def(text(&f.domainname), "domainname")
	def(choice(&f.userns, "host", "keep-id", "auto"), "userns")
	def(choice(&f.network, "none", "host"), "network", "net")
	def(choice(&f.pid, "private", "host"), "pid")
	def(choice(&f.ipc, "private", "host"), "ipc")
	def(choice(&f.uts, "private", "host"), "uts")
	def(choice(&f.cgroupns, "private", "host"), "cgroupns")
	def(each(&f.groups, nonEmpty), "group-add")
	def(each(&f.limits, caisson.ParseRlimit), "ulimit")
	def(each(&f.env, parseEnv), "env", "e")
	def(f.addEnvFile, "env-file")
	def(f.setTimeout, "timeout")
	for name, p := range map[string]*bool{"read-only": &f.readOnly, "interactive": &f.interactive, "i": &f.interactive,
		"tty": &f.tty, "t": &f.tty, "init": &f.init, "rm": &f.rm, "explain": &f.explain, "help": &f.help} {
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

// parseArgs sets the flags and gives the arguments behind them. Package flag does not know that -it is -i -t, and that
// -eA=1 is -e A=1; so its FlagSet has the names and the values here, and the syntax is this.
func parseArgs(fs *flag.FlagSet, args []string) (rest []string, err error) {
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		a := args[0]
		args = args[1:]
		switch {
		case a == "--":
			return args, nil
		case strings.HasPrefix(a, "--"):
			args, err = parseLong(fs, a[2:], args)
		default:
			args, err = parseShort(fs, a[1:], args)
		}
		if err != nil {
			return nil, err
		}
	}
	return args, nil
}

// parseLong parses name=value or name, whose value may be the next argument.
func parseLong(fs *flag.FlagSet, a string, args []string) ([]string, error) {
	name, value, given := strings.Cut(a, "=")
	if fs.Lookup(name) == nil || len(name) == 1 {
		return nil, fmt.Errorf("unknown flag --%s; see run --help", name)
	}
	if !given && isBool(fs, name) {
		value, given = "true", true
	}
	return set(fs, "--"+name, value, given, args)
}

// parseShort parses letters without values, of which the last may have one: i, it, eA=1, e=A=1, ite.
func parseShort(fs *flag.FlagSet, a string, args []string) ([]string, error) {
	for a != "" {
		name := a[:1]
		if a = a[1:]; fs.Lookup(name) == nil {
			return nil, fmt.Errorf("unknown flag -%s in -%s; see run --help", name, name+a)
		}
		if !isBool(fs, name) || strings.HasPrefix(a, "=") {
			return set(fs, "-"+name, strings.TrimPrefix(a, "="), a != "", args)
		}
		if _, err := set(fs, "-"+name, "true", true, nil); err != nil {
			return nil, err
		}
	}
	return args, nil
}

func isBool(fs *flag.FlagSet, name string) bool {
	b, ok := fs.Lookup(name).Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// set sets one flag, by the next argument where no value was given.
func set(fs *flag.FlagSet, name, value string, given bool, args []string) ([]string, error) {
	if !given {
		if len(args) == 0 {
			return nil, fmt.Errorf("%s needs a value", name)
		}
		value, args = args[0], args[1:]
	}
	if err := fs.Set(strings.TrimLeft(name, "-"), value); err != nil {
		return nil, fmt.Errorf("%s %q: %w", name, value, err)
	}
	return args, nil
}
