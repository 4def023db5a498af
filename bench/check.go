package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// check traces one start of caisson and one of the C program, and compares the calls that the child makes until it
// executes the program, and those of the parent while it starts.
func (f *field) check() (string, error) {
	program := f.w.program()
	ours, err := f.trace([]string{f.w.path("bench"), hostArg, "0"}, f.s.Sandbox, program, "1", "1")
	if err != nil {
		return "", err
	}
	theirs, err := f.trace([]string{f.w.path("floor")}, f.s.Sandbox, program, "1")
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("child: %d calls by caisson, %d by C\n", len(ours.child), len(theirs.child))
	text += fmt.Sprintf("parent, its helper included: %d calls by caisson, %d by C\n  caisson: %s\n  C:       %s\n",
		total(ours.parent), total(theirs.parent), counts(ours.parent), counts(theirs.parent))
	if f.w.Options.Verbose {
		text += strings.Join(ours.child, " ") + "\n"
	}
	// How many ranges are closed at first depends on the descriptors that the host happens to have.
	ours.child, theirs.child = slices.CompactFunc(ours.child, bothClose), slices.CompactFunc(theirs.child, bothClose)
	if !slices.Equal(ours.child, theirs.child) {
		return text, fmt.Errorf("the children differ:\n  caisson: %s\n  C:       %s", strings.Join(ours.child, " "), strings.Join(theirs.child, " "))
	}
	return text + "the children make the same calls in the same order\n", nil
}

// trace lets a server make one start to warm up and one under observation.
func (f *field) trace(argv []string, request ...string) (t traced, err error) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return t, err
	}
	file, err := os.CreateTemp(f.w.Options.Dir, "trace")
	if err != nil {
		return t, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := file.Chmod(0o666); err != nil { // for strace as an ordinary user
		return t, err
	}
	s, err := startServer(f.w.Options.User, append([]string{strace, "-f", "-qq", "-o", file.Name()}, argv...)...)
	if err != nil {
		return t, err
	}
	_, err1 := s.ask(request...)
	_, err2 := s.ask(request...)
	s.close()
	if err := errors.Join(err1, err2); err != nil {
		return t, err
	}
	text, err := os.ReadFile(file.Name())
	if err != nil {
		return t, err
	}
	return parseTrace(string(text), request[1])
}

// traced are the names of the calls of one start.
type traced struct {
	child  []string
	parent map[string]int
}

var traceLine = regexp.MustCompile(`^(\d+) +(?:<\.\.\. )?(\w+)(\(| resumed>)(.*)`)

// parseTrace finds the last process that executes the program, and what all others do from the end of the start before
// to its own end.
func parseTrace(text, program string) (t traced, err error) {
	type call struct {
		pid, name, rest string
	}
	var all []call
	var executions []int
	for line := range strings.Lines(text) {
		m := traceLine.FindStringSubmatch(line)
		if m == nil || m[3] != "(" {
			continue
		}
		all = append(all, call{m[1], m[2], m[4]})
		if m[2] == "execve" && strings.HasPrefix(m[4], strconv.Quote(program)) {
			executions = append(executions, len(all)-1)
		}
	}
	if len(executions) < 2 {
		return t, fmt.Errorf("%d executions of %s in the trace", len(executions), program)
	}
	first, second := executions[len(executions)-2], executions[len(executions)-1]
	t.parent = map[string]int{}
	began := first // the start begins when the second request has been read
	for i := first; i < second; i++ {
		if all[i].name == "read" && strings.Contains(all[i].rest, `\t`) {
			began = i
		}
	}
	for i, c := range all {
		switch {
		case c.pid == all[second].pid && i <= second:
			t.child = append(t.child, c.name)
		case i > began && c.pid != all[second].pid:
			t.parent[c.name]++
		}
	}
	return t, nil
}

func bothClose(a, b string) bool { return a == b && a == "close_range" }

func total(m map[string]int) (n int) {
	for _, c := range m {
		n += c
	}
	return n
}

func counts(m map[string]int) string {
	var words []string
	for name, n := range m {
		words = append(words, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}
