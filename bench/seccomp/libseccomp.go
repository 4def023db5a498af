//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/seccomp"
)

// libseccomp is the small C program of package seccomp's tests, and Docker's default profile in its form.
type libseccomp struct {
	dir, bin, script string
}

func newLibseccomp() (*libseccomp, error) {
	dir, err := os.MkdirTemp("", "bench-seccomp")
	if err != nil {
		return nil, err
	}
	l := &libseccomp{dir: dir, bin: filepath.Join(dir, "compile")}
	source := "../seccomp/testdata/libseccomp/compile.c"
	if _, err := os.Stat(source); err != nil {
		return nil, fmt.Errorf("run it in bench/: %w", err)
	}
	if out, err := exec.Command("gcc", "-O2", "-o", l.bin, source, "-lseccomp").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("gcc: %w\n%s", err, out)
	}
	l.script, err = script()
	return l, err
}

func (l *libseccomp) close() { os.RemoveAll(l.dir) }

// script writes the policy's rules down, as runc gives them to libseccomp.
func script() (string, error) {
	target := seccomp.Target{Caps: []string{"SYS_CHROOT"}, NoENOSYS: true}
	p, err := seccomp.DockerProfile().Policy(target)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "default %#x\n", p.Default.Return())
	for _, a := range p.Arches {
		token := a.Token()
		if a == seccomp.X32 {
			token = 1<<30 | 62 // SCMP_ARCH_X32
		}
		fmt.Fprintf(&b, "arch %#x\n", token)
	}
	for _, r := range p.Rules {
		alternatives := r.When
		if alternatives == nil {
			alternatives = seccomp.Any{nil}
		}
		for _, name := range r.Names {
			for _, all := range alternatives {
				fmt.Fprintf(&b, "rule %#x %s%s\n", r.Action.Return(), name, arguments(all))
			}
		}
	}
	return b.String(), nil
}

var ops = map[seccomp.Op]int{seccomp.NotEqual: 1, seccomp.Less: 2, seccomp.LessEqual: 3, seccomp.Equal: 4, seccomp.GreaterEqual: 5,
	seccomp.Greater: 6, seccomp.MaskedEqual: 7}

func arguments(all seccomp.All) (text string) {
	for _, c := range all {
		first, second := c.Value, uint64(0)
		if c.Op == seccomp.MaskedEqual {
			first, second = c.Mask, c.Value
		}
		text += fmt.Sprintf(" %d %d %#x %#x", c.Arg, ops[c.Op], first, second)
	}
	return text
}

func (l *libseccomp) run(args ...string) ([]byte, error) {
	cmd := exec.Command(l.bin, args...)
	cmd.Stdin = strings.NewReader(l.script)
	var out bytes.Buffer
	cmd.Stdout = &out
	err := cmd.Run()
	return out.Bytes(), err
}

func (l *libseccomp) compile(how string) ([]unix.SockFilter, error) {
	out, err := l.run(how)
	var list []unix.SockFilter
	for ; len(out) >= 8; out = out[8:] {
		list = append(list, unix.SockFilter{Code: binary.NativeEndian.Uint16(out), Jt: out[2], Jf: out[3], K: binary.NativeEndian.Uint32(out[4:])})
	}
	return list, err
}

func (l *libseccomp) time(n int) (list []time.Duration, err error) {
	out, err := l.run("time", fmt.Sprint(n))
	for line := range strings.Lines(string(out)) {
		var d int64
		if _, err := fmt.Sscan(line, &d); err != nil {
			return nil, err
		}
		list = append(list, time.Duration(d))
	}
	return list, err
}
