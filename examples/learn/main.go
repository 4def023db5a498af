//go:build linux

// Command learn runs a command in a sandbox and prints the smallest profile of system calls that lets it run, or the smallest Landlock rules.
//
//	learn -- ls /                           # for docker run --security-opt seccomp=FILE, with what the runtime needs itself
//	learn -bare -- ls /                     # without
//	learn -go -args -- python3 -c 'print(1)'
//	learn -runs 5 -o ls.json -- ls -l /     # what any of five runs did
//	learn -names -- date
//	learn -check -- ls /                    # then runs it once more under the profile
//	learn -files -- ls /                    # what it does with files: rules for package lsm
//	learn -files -fold 20 -go -- python3 -c 'import json'
//
// The command sees the host's files, read-only, with a scratch directory on /tmp, and no network. It may do what it likes there: do not learn from
// programs that are not trusted.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp"
	"github.com/caisson-dev/caisson/seccomp/learn"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "learn:", err)
		os.Exit(1)
	}
}

// options are those of the command line.
type options struct {
	source, check, arguments, names, withInit, bare bool
	runs, fold                                      int
	out, otherwise                                  string
}

func run() error {
	var o options
	flag.BoolVar(&o.arguments, "args", false, "tell apart what socket, ioctl, prctl and their like are called for")
	flag.BoolVar(&o.source, "go", false, "print Go source")
	flag.BoolVar(&o.names, "names", false, "print the names alone")
	flag.BoolVar(&o.withInit, "init", false, "add what an init process needs")
	flag.BoolVar(&o.bare, "bare", false, "leave out what runc and crun need themselves")
	flag.BoolVar(&o.check, "check", false, "run the command again under the profile")
	flag.IntVar(&o.runs, "runs", 1, "how often to run the command")
	flag.StringVar(&o.out, "o", "", "file for the profile (default: standard output, after that of the command)")
	flag.StringVar(&o.otherwise, "otherwise", "errno EPERM", "what happens to other calls: errno NAME, kill process, kill thread, log")
	files := flag.Bool("files", false, "learn which files it needs, and print rules for Landlock")
	flag.IntVar(&o.fold, "fold", -1, "with -files: allow a directory as a whole of which more than so many files were read")
	flag.Parse()
	switch {
	case flag.NArg() == 0:
		return errors.New("no command")
	case *files && (o.arguments || o.names || o.withInit || o.bare):
		return errors.New("-args, -names, -init and -bare are about system calls, and not for -files")
	case *files:
		return learnFiles(o)
	}
	return learnCalls(o)
}

// learned reports how a run has ended: it counts all the same.
func (o options) learned(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "learn: the command:", err)
	}
}

func learnCalls(o options) error {
	action, err := seccomp.ParseAction(o.otherwise)
	if err != nil {
		return err
	}
	rec := &learn.Recorder{Arguments: o.arguments}
	for range o.runs {
		o.learned(command(learn.Calls{Into: rec}).Run())
	}
	profile := rec.Profile()
	if o.withInit {
		profile = profile.WithInit()
	}
	text, err := o.print(profile, action)
	if err != nil {
		return err
	}
	if err := write(o.out, text); err != nil || !o.check {
		return err
	}
	return command(seccomp.New(profile.Policy(action))).Run()
}

// command is the command of the command line in a sandbox.
func command(filter plan.Primitive) *caisson.Cmd {
	set := namespaces.Mount | namespaces.PID | namespaces.IPC | namespaces.Net | namespaces.UTS
	if os.Geteuid() != 0 {
		set |= namespaces.User
	}
	sandbox := caisson.New(set, chroot.Host{}, chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"}, caisson.DieWithParent{}, caps.Drop(caps.All), filter)
	cmd := sandbox.Command(flag.Arg(0), flag.Args()[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

func (o options) print(p learn.Profile, otherwise seccomp.Action) (string, error) {
	switch {
	case o.names:
		return strings.Join(p.Names(), "\n") + "\n", nil
	case o.source:
		return p.Go(otherwise) + "\n", nil
	}
	if !o.bare {
		p = p.WithRuntime()
	}
	oci, err := p.OCI(otherwise)
	if err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(oci, "", "\t")
	return string(text) + "\n", err
}

func write(name, text string) error {
	if name == "" {
		_, err := os.Stdout.WriteString(text)
		return err
	}
	return os.WriteFile(name, []byte(text), 0o666)
}
