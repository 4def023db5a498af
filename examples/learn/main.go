//go:build linux

// Command learn runs a command in a sandbox and prints the smallest profile of system calls that lets it run.
//
//	learn -- ls /                           # for docker run --security-opt seccomp=FILE
//	learn -go -args -- python3 -c 'print(1)'
//	learn -runs 5 -o ls.json -- ls -l /     # what any of five runs did
//	learn -names -- date
//	learn -check -- ls /                    # then runs it once more under the profile
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

func run() error {
	arguments := flag.Bool("args", false, "tell apart what socket, ioctl, prctl and their like are called for")
	source := flag.Bool("go", false, "print Go source")
	names := flag.Bool("names", false, "print the names alone")
	withInit := flag.Bool("init", false, "add what an init process needs")
	check := flag.Bool("check", false, "run the command again under the profile")
	runs := flag.Int("runs", 1, "how often to run the command")
	out := flag.String("o", "", "file for the profile (default: standard output, after that of the command)")
	otherwise := flag.String("otherwise", "errno EPERM", "what happens to other calls: errno NAME, kill process, kill thread, log")
	flag.Parse()
	if flag.NArg() == 0 {
		return errors.New("no command")
	}
	action, err := seccomp.ParseAction(*otherwise)
	if err != nil {
		return err
	}
	rec := &learn.Recorder{Arguments: *arguments}
	for range *runs {
		if err := command(learn.Calls{Into: rec}).Run(); err != nil {
			fmt.Fprintln(os.Stderr, "learn: the command:", err) // it was learned all the same
		}
	}
	profile := rec.Profile()
	if *withInit {
		profile = profile.WithInit()
	}
	text, err := print(profile, action, *source, *names)
	if err != nil {
		return err
	}
	if err := write(*out, text); err != nil || !*check {
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

func print(p learn.Profile, otherwise seccomp.Action, source, names bool) (string, error) {
	switch {
	case names:
		return strings.Join(p.Names(), "\n") + "\n", nil
	case source:
		return p.Go(otherwise) + "\n", nil
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
