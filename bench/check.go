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
	ours.child, theirs.child = slices.DeleteFunc(ours.child, looks), slices.DeleteFunc(theirs.child, looks)
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

// parseTrace finds the last process that executes the program, and what all others do from the request to its execution
// and later.
func parseTrace(text, program string) (t traced, err error) {
	var (
		all     []tracedCall
		last    tracedCall
		request int // where the last request was read
		began   int // where the one was read that led to the last execution
	)
	for line := range strings.Lines(text) {
		m := traceLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		c := tracedCall{pid: m[1], name: m[2]}
		if m[3] == "(" {
			all = append(all, c)
		}
		if c.name == "read" && strings.Contains(m[4], `\t`) {
			request = len(all)
		}
		if m[3] != "(" {
			continue
		}
		if c.name == "execve" && strings.HasPrefix(m[4], strconv.Quote(program)) {
			last, began = c, request
		}
	}
	if request == 0 || last.pid == "" {
		return t, fmt.Errorf("no execution of %s in the trace", program)
	}
	return split(all[began:], last.pid), nil
}

type tracedCall struct{ pid, name string }

// split separates the calls of the child, until it executes, from all others.
func split(all []tracedCall, child string) traced {
	t, executed := traced{parent: map[string]int{}}, false
	for _, c := range all {
		if c.pid != child {
			t.parent[c.name]++
		} else if !executed {
			t.child = append(t.child, c.name)
			executed = c.name == "execve"
		}
	}
	return t
}

// looks: how often a child looks for its parent's answer is a matter of chance.
func looks(call string) bool { return call == "recvfrom" || call == "sched_yield" }

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
