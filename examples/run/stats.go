//go:build linux

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/caisson-dev/caisson"
)

// printStats prints what the command has used, as far as it is known: without a control group only of the command itself.
func printStats(w io.Writer, r caisson.Result) {
	const mib = 1 << 20
	fmt.Fprintf(w, "run: %v, %v elapsed, %v user, %v system, largest process %.1f MiB\n", r.Reason, r.Elapsed.Round(time.Microsecond), r.UserTime, r.SystemTime,
		float64(r.MaxRSS)/mib)
	if r.CPUTime|time.Duration(r.MemoryPeak|r.PIDsPeak|r.IORead|r.IOWritten) != 0 {
		fmt.Fprintf(w, "run: all processes: %v CPU, memory %.1f MiB at most, %d processes at most, %d bytes read, %d written\n",
			r.CPUTime, float64(r.MemoryPeak)/mib, r.PIDsPeak, r.IORead, r.IOWritten)
	}
}
