//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// space is a network namespace, held by a process that sleeps.
type space struct{ holder *exec.Cmd }

// newSpace makes one beside that of the calling thread, which must be locked: the holder dies with it. Loopback is up.
func newSpace() (*space, error) {
	s, err := newSpaceWithout()
	if err == nil {
		_, err = s.run("ip", "link", "set", "lo", "up")
	}
	return s, err
}

func newSpaceWithout() (*space, error) {
	c := exec.Command("sleep", "100000")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		return nil, err
	}
	return &space{c}, nil
}

func (s *space) pid() string { return strconv.Itoa(s.holder.Process.Pid) }

func (s *space) end() {
	s.holder.Process.Kill()
	s.holder.Wait()
}

// command is one of a program in the namespace.
func (s *space) command(words ...string) *exec.Cmd {
	c := exec.Command("nsenter", append([]string{"-t", s.pid(), "-n", "--"}, words...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

func (s *space) run(words ...string) (string, error) { return output(s.command(words...)) }

// script runs the lines of a shell's script.
func (s *space) script(text string) error {
	_, err := s.run("sh", "-ec", text)
	return err
}

func output(c *exec.Cmd) (string, error) {
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// connected makes a host and the world outside of it, which is at 192.0.2.1, with a cable between them, and a server for iperf3(1) outside.
func connected() (host, outside *space, err error) {
	if host, err = newSpace(); err != nil {
		return nil, nil, err
	}
	if outside, err = newSpace(); err != nil {
		host.end()
		return nil, nil, err
	}
	err = host.script("ip link add up0 type veth peer name up0 netns " + outside.pid() + "; ip addr add 192.0.2.9/24 dev up0; ip link set up0 up")
	if err == nil {
		err = outside.script("ip addr add 192.0.2.1/24 dev up0; ip link set up0 up")
	}
	if err == nil {
		err = outside.serve()
	}
	if err != nil {
		host.end()
		outside.end()
		return nil, nil, err
	}
	return host, outside, nil
}

// serve starts a server for iperf3(1), which ends with the thread.
func (s *space) serve() error {
	if err := s.command("iperf3", "-s").Start(); err != nil {
		return err
	}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		text, err := s.run("cat", "/proc/net/tcp", "/proc/net/tcp6")
		if err != nil || strings.Contains(text, ":1451 ") { // port 5201
			return err
		}
		if time.Since(begin) > 5*time.Second {
			return fmt.Errorf("iperf3 -s does not listen")
		}
	}
}
