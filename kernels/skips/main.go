// Skips says which tests were skipped where, and fails if a test was skipped everywhere:
//
//	go test -json ./... > DIR/host.json
//	CAISSON_SKIPS=DIR go test ./kernels
//	go run ./kernels/skips DIR
//
// A lane is a file DIR/LANE.json, as go test -json writes it. The kernel lane writes one per machine.
package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caisson-dev/caisson/kernels/internal/record"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: skips DIR")
		os.Exit(2)
	}
	lanes, err := read(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "skips:", err)
		os.Exit(2)
	}
	if never := report(os.Stdout, lanes); never > 0 {
		fmt.Fprintf(os.Stderr, "skips: %d tests ran in no lane\n", never)
		os.Exit(1)
	}
}

// read returns the results of each lane, by name.
func read(dir string) (map[string][]record.Result, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no records of test runs", dir)
	}
	lanes := map[string][]record.Result{}
	for _, file := range files {
		if lanes[strings.TrimSuffix(filepath.Base(file), ".json")], err = readFile(file); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return lanes, nil
}

func readFile(file string) ([]record.Result, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return record.Read(f)
}

// report prints the skips of each lane, then the tests that ran nowhere, and returns how many those are.
func report(w io.Writer, lanes map[string][]record.Result) int {
	ran, skipped := map[string]bool{}, map[string][]string{}
	for _, lane := range slices.Sorted(maps.Keys(lanes)) {
		tests, skips, failed := 0, []string{}, []string{}
		for _, r := range lanes[lane] {
			name := r.Package + " " + r.Test
			switch {
			case r.Test == "":
				continue
			case r.Skipped():
				skips = append(skips, name+": "+r.Text())
				skipped[name] = append(skipped[name], lane+": "+r.Text())
			case r.Failed():
				failed = append(failed, name+": "+r.Text())
				ran[name] = true
			default:
				ran[name] = true
			}
			tests++
		}
		fmt.Fprintf(w, "%s: %d tests, %d skipped\n", lane, tests, len(skips))
		list(w, skips)
		if len(failed) > 0 {
			fmt.Fprintf(w, "%s: failed once, or in a lane that has failed:\n", lane)
			list(w, failed)
		}
	}
	maps.DeleteFunc(skipped, func(name string, _ []string) bool { return ran[name] })
	for _, name := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Fprintf(w, "NEVER RUN: %s\n", name)
		list(w, skipped[name])
	}
	return len(skipped)
}

func list(w io.Writer, lines []string) {
	for _, l := range lines {
		fmt.Fprintln(w, "\t"+l)
	}
}
