package main

import (
	"fmt"
	"strings"
	"time"
)

// scenario is one table: the conditions under which all contestants start one sandbox.
type scenario struct {
	Name    string
	Sandbox string // A or B; "" for gc
	Pause   bool   // 40 ms before each start
	Heap    bool   // hosts with 1 and 4 GiB of live heap too
	Two     bool   // two starters at once
	Mounts  bool   // 500 further mounts on the host
	GC      bool   // the host's longest stop instead of the time of a start
	Check   bool   // system calls instead of time
}

const (
	pause       = 40 * time.Millisecond
	extraMounts = 500
)

// scenarios parses the flag: "A,B+pause+heap,gc". As an ordinary user there is no sandbox A, which needs root, and no
// further mounts.
func scenarios(o options) (all []scenario, err error) {
	if o.Check {
		return checks(o), nil
	}
	list := o.Scenarios
	if list == "" {
		list = standard
	}
	for name := range strings.SplitSeq(list, ",") {
		s, err := parseScenario(name)
		if err != nil {
			return nil, err
		}
		if o.User && (s.Sandbox == "A" || s.Mounts) {
			if o.Scenarios != "" {
				return nil, fmt.Errorf("scenario %q needs root", name)
			}
			continue
		}
		all = append(all, s)
	}
	return all, nil
}

func checks(o options) (all []scenario) {
	for _, sandbox := range []string{"A", "B"} {
		if sandbox == "B" || !o.User {
			all = append(all, scenario{Name: "check " + sandbox, Sandbox: sandbox, Check: true})
		}
	}
	return all
}

func parseScenario(name string) (scenario, error) {
	s := scenario{Name: name}
	for i, word := range strings.Split(name, "+") {
		switch {
		case i == 0 && (word == "A" || word == "B"):
			s.Sandbox = word
		case i == 0 && word == "gc":
			s.GC = true
		case i == 0 || s.GC:
			return s, fmt.Errorf("scenario %q: neither A nor B nor gc", name)
		case word == "pause":
			s.Pause = true
		case word == "heap":
			s.Heap = true
		case word == "two":
			s.Two = true
		case word == "mounts":
			s.Mounts = true
		default:
			return s, fmt.Errorf("scenario %q: there is no %q", name, word)
		}
	}
	return s, nil
}

// byMounts groups the scenarios that can share a mount namespace.
func byMounts(all []scenario) [][]scenario {
	var groups [2][]scenario
	for _, s := range all {
		i := 0
		if s.Mounts {
			i = 1
		}
		groups[i] = append(groups[i], s)
	}
	var out [][]scenario
	for _, g := range groups {
		if len(g) > 0 {
			out = append(out, g)
		}
	}
	return out
}

// title says what the scenario is in words.
func (s scenario) title() string {
	if s.GC {
		return "longest stop of the host by its garbage collection"
	}
	words := []string{"sandbox " + s.Sandbox, "back to back"}
	if s.Pause {
		words[1] = fmt.Sprintf("%v before each start", pause)
	}
	if s.Heap {
		words = append(words, "live heap in the host program")
	}
	if s.Two {
		words = append(words, "two starters at once")
	}
	if s.Mounts {
		words = append(words, fmt.Sprintf("%d further mounts on the host", extraMounts))
	}
	return strings.Join(words, ", ")
}
