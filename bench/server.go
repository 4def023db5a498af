package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is a process that starts sandboxes when it is asked to: a host program in Go, or the C program. Both speak the
// same lines: "A 5" asks for five starts of sandbox A, "ok NS NS NS NS NS" is how long each took, measured in the
// server. Fields are separated by tabs.
type server struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// nobody is the user of -user: on Debian and its kin, nobody and nogroup.
const nobody = 65534

func startServer(user bool, argv ...string) (*server, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr, cmd.Dir, cmd.Env = os.Stderr, "/", []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if user && os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, in: in, out: bufio.NewReader(out)}
	if _, err := s.receive(); err != nil {
		s.close()
		return nil, fmt.Errorf("%s: %w", argv[0], err)
	}
	return s, nil
}

func (s *server) send(fields ...string) error {
	_, err := io.WriteString(s.in, strings.Join(fields, "\t")+"\n")
	return err
}

func (s *server) receive() ([]time.Duration, error) {
	line, err := s.out.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	words := strings.Fields(line)
	if len(words) == 0 || words[0] != "ok" {
		return nil, errors.New(strings.TrimSpace(line))
	}
	d := make([]time.Duration, len(words)-1)
	for i, w := range words[1:] {
		n, err := strconv.ParseInt(w, 10, 64)
		if err != nil {
			return nil, err
		}
		d[i] = time.Duration(n)
	}
	return d, nil
}

// ask sends one request and waits for the answer.
func (s *server) ask(fields ...string) ([]time.Duration, error) {
	if err := s.send(fields...); err != nil {
		return nil, err
	}
	return s.receive()
}

func (s *server) close() {
	s.in.Close()
	s.cmd.Wait()
}
