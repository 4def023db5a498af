//go:build linux

package kernels

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caisson-dev/caisson/kernels/internal/record"
	"github.com/caisson-dev/caisson/kernels/internal/vm"
)

// report is what the packages' test binaries wrote in one machine, and how they ended.
type report struct {
	tests  []testBinary
	output []bytes.Buffer
	exit   []*vm.Exit
	took   []time.Duration
	last   time.Time
	record string // file that keeps it all, if any
	known  map[int][]record.Result
}

func newReport(t *testing.T, machine string, tests []testBinary) *report {
	n := len(tests)
	r := &report{tests: tests, output: make([]bytes.Buffer, n), exit: make([]*vm.Exit, n), took: make([]time.Duration, n), known: map[int][]record.Result{}}
	r.last = time.Now() // so the first package's time includes the boot
	dir := os.Getenv("CAISSON_SKIPS")
	if dir == "" {
		return r
	}
	if !filepath.IsAbs(dir) { // go test runs us in another directory than the caller's
		t.Fatalf("CAISSON_SKIPS=%s is not an absolute path", dir)
	}
	r.record = filepath.Join(dir, machine+".json")
	if err := os.WriteFile(r.record, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *report) handle(e vm.Event) {
	r.output[e.Command].Write(e.Output)
	if e.Exit != nil {
		r.exit[e.Command] = e.Exit
		r.took[e.Command] = time.Since(r.last)
		r.last = time.Now()
	}
}

// failed are the packages of which there is something to complain.
func (r *report) failed(t *testing.T) (all []int) {
	for i := range r.tests {
		results, err := r.results(i)
		if err != nil {
			t.Fatal(err)
		}
		if _, complaints := r.verdict(i, results); len(complaints) > 0 {
			all = append(all, i)
		}
	}
	return all
}

// only is an empty report of some of the packages.
func (r *report) only(some []int) *report {
	n := len(some)
	second := &report{output: make([]bytes.Buffer, n), exit: make([]*vm.Exit, n), took: make([]time.Duration, n), last: time.Now(), record: r.record}
	for _, i := range some {
		second.tests = append(second.tests, r.tests[i])
	}
	return second
}

// replace takes what there is of a second run.
func (r *report) replace(some []int, second *report) {
	for k, i := range some {
		r.output[i], r.exit[i], r.took[i] = second.output[k], second.exit[k], second.took[k]
		delete(r.known, i)
	}
}

// report makes a package a subtest, which prints what failed, and of what passed only the number.
func (r *report) report(t *testing.T, i int) {
	t.Run(r.tests[i].name, func(t *testing.T) {
		results, err := r.results(i)
		if err != nil {
			t.Fatal(err)
		}
		summary, complaints := r.verdict(i, results)
		t.Log(summary)
		for _, c := range complaints {
			t.Error(c)
		}
	})
}

// verdict sums up a package. No complaints means that it passed.
func (r *report) verdict(i int, results []record.Result) (summary string, complaints []string) {
	passed, skipped := 0, 0
	for _, result := range results {
		switch {
		case result.Test == "":
		case result.Skipped():
			skipped++
		case result.Failed():
			complaints = append(complaints, fmt.Sprintf("%s: %s\n%s",
				result.Test, cmp.Or(result.Action, "did not end"), lastLines(result.Output, 200)))
		default:
			passed++
		}
	}
	summary = fmt.Sprintf("%d passed, %d skipped, %.1f s", passed, skipped, r.took[i].Seconds())
	return summary, append(complaints, r.ending(i, len(complaints) > 0)...)
}

// ending complains of how a test binary ended. Unless it is said already what failed, all that it wrote is of interest.
func (r *report) ending(i int, said bool) (complaints []string) {
	exit := r.exit[i]
	if exit == nil {
		return []string{"the tests did not come to their end"}
	}
	if exit.Code != 0 {
		if !said {
			complaints = append(complaints, lastLines(strings.Split(r.output[i].String(), "\n"), 100))
		}
		complaints = append(complaints, fmt.Sprintf("exit status %d", exit.Code))
	}
	if len(exit.Left) > 0 {
		complaints = append(complaints, "the tests left behind:\n"+strings.Join(exit.Left, "\n"))
	}
	return complaints
}

// results has the output translated to what go test -json writes, and keeps that.
func (r *report) results(i int) ([]record.Result, error) {
	if known, ok := r.known[i]; ok {
		return known, nil
	}
	c := exec.Command("go", "tool", "test2json", "-t", "-p", r.tests[i].pkg)
	c.Stdin = bytes.NewReader(r.output[i].Bytes())
	events, err := output(c)
	if err != nil {
		return nil, err
	}
	if r.record != "" {
		if err := appendTo(r.record, events+"\n"); err != nil {
			return nil, err
		}
	}
	results, err := record.Read(strings.NewReader(events))
	if err == nil {
		r.known[i] = results
	}
	return results, err
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

func lastLines(lines []string, n int) string {
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// The lane would be worth nothing if it passed what failed.
func TestVerdict(t *testing.T) {
	t.Setenv("CAISSON_SKIPS", t.TempDir())
	const pass = "\x16=== RUN   TestA\n\x16--- PASS: TestA (0.00s)\n"
	const fail = "\x16=== RUN   TestB\n    why\n\x16--- FAIL: TestB (0.00s)\n"
	for _, test := range []struct {
		name, output string
		exit         *vm.Exit
		want         []string
	}{
		{"pass", pass + "\x16PASS\n", &vm.Exit{}, nil},
		{"fail", pass + fail + "\x16FAIL\n", &vm.Exit{Code: 1}, []string{"TestB: fail\n    why", "exit status 1"}},
		{"panic", pass + "\x16=== RUN   TestC\npanic: no\n", &vm.Exit{Code: 2},
			[]string{"TestC: did not end\npanic: no", "exit status 2"}},
		{"no test", "no such variable\n", &vm.Exit{Code: 3}, []string{"no such variable\n", "exit status 3"}},
		{"leftovers", pass + "\x16PASS\n", &vm.Exit{Left: []string{"mount /x"}}, []string{"the tests left behind:\nmount /x"}},
		{"no end", pass + "\x16=== RUN   TestC\n", nil,
			[]string{"TestC: did not end\n", "the tests did not come to their end"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newReport(t, "machine", []testBinary{{pkg: "m/p"}})
			r.handle(vm.Event{Output: []byte(test.output)})
			r.handle(vm.Event{Exit: test.exit})
			results, err := r.results(0)
			if err != nil {
				t.Fatal(err)
			}
			if _, got := r.verdict(0, results); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if b, err := os.ReadFile(r.record); err != nil || len(b) == 0 {
				t.Errorf("no record: %v", err)
			}
		})
	}
}
