// Package record reads what go test -json writes (go doc test2json): which tests ran, how they ended, and what they said.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Result is one test, subtest, example or fuzz target, or a package as a whole, whose Test is empty.
type Result struct {
	Package, Test string
	// Action is "pass", "fail" or "skip", and "" for what did not come to its end.
	Action string
	Output []string // lines, without what only frames them: "=== RUN" and the like
}

// Failed says whether a test failed or never ended.
func (r Result) Failed() bool { return r.Action == "fail" || r.Action == "" }

// Skipped says whether a test was skipped. A package is skipped that has no tests, which is no matter.
func (r Result) Skipped() bool { return r.Action == "skip" && r.Test != "" }

// Text returns the output on one line: the reason of a skip.
func (r Result) Text() string {
	lines := make([]string, len(r.Output))
	for i, l := range r.Output {
		lines[i] = strings.TrimSpace(l)
	}
	return strings.Join(lines, " ")
}

type event struct{ Action, Package, Test, Output string }

// Read returns the results in the order in which they began.
func Read(r io.Reader) ([]Result, error) {
	var results []*Result
	index := map[[2]string]*Result{}
	for d := json.NewDecoder(r); ; {
		var e event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return values(results), nil
		} else if err != nil {
			return nil, fmt.Errorf("this is not what go test -json writes: %w", err)
		}
		if e.Package == "" { // the compiler's complaints
			continue
		}
		key := [2]string{e.Package, e.Test}
		if index[key] == nil {
			index[key] = &Result{Package: e.Package, Test: e.Test}
			results = append(results, index[key])
		}
		index[key].add(e)
	}
}

func (r *Result) add(e event) {
	switch e.Action {
	case "pass", "fail", "skip":
		r.Action = e.Action
	case "output":
		if !frame(e.Output) {
			r.Output = append(r.Output, strings.TrimRight(e.Output, "\n"))
		}
	}
}

func frame(line string) bool {
	line = strings.TrimSpace(line)
	for _, p := range []string{"=== RUN", "=== PAUSE", "=== CONT", "=== NAME", "--- PASS", "--- FAIL", "--- SKIP"} {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	return false
}

func values(results []*Result) []Result {
	v := make([]Result, len(results))
	for i, r := range results {
		v[i] = *r
	}
	return v
}
