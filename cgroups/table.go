//go:build linux

package cgroups

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// row is one limit that is a number: where it is and how it is written, in both versions.
type row struct {
	field    string
	file     string // version 2; "" means that it has none
	legacy   string // version 1
	alt      string // in place of either, where the kernel has another scheduler
	at       func(*Limits) *int64
	min, max int64
	code     code
	old      code // version 1's, where it differs
}

// code writes a number as a file wants it, and reads it.
type code struct {
	write func(int64) string
	read  func(string) (int64, bool)
}

// table is all limits that are numbers, in the order in which they are written.
var table = []row{
	{"Memory", "memory.max", "memory.limit_in_bytes", "", func(l *Limits) *int64 { return &l.Memory }, 1, most, orMax, orMinusOne},
	{"Swap", "memory.swap.max", "", "", func(l *Limits) *int64 { return &l.Swap }, 0, most, orMax, code{}},
	{"MemoryHigh", "memory.high", "", "", func(l *Limits) *int64 { return &l.MemoryHigh }, 0, most, orMax, code{}},
	{"MemoryLow", "memory.low", "memory.soft_limit_in_bytes", "", func(l *Limits) *int64 { return &l.MemoryLow }, 0, most, orMax, orMinusOne},
	{"MemoryMin", "memory.min", "", "", func(l *Limits) *int64 { return &l.MemoryMin }, 0, most, orMax, code{}},
	{"OOMGroup", "memory.oom.group", "", "", func(l *Limits) *int64 { return (*int64)(&l.OOMGroup) }, 1, 2, onOff, code{}},
	{"OOMKill", "", "memory.oom_control", "", func(l *Limits) *int64 { return (*int64)(&l.OOMKill) }, 1, 2, code{}, oomControl},
	{"CPUWeight", "cpu.weight", "cpu.shares", "", func(l *Limits) *int64 { return &l.CPUWeight }, 1, 10000, plain, weightAsShares},
	{"CPUShares", "cpu.weight", "cpu.shares", "", func(l *Limits) *int64 { return &l.CPUShares }, 2, 262144, sharesAsWeight, plain},
	{"CPUIdle", "cpu.idle", "cpu.idle", "", func(l *Limits) *int64 { return (*int64)(&l.CPUIdle) }, 1, 2, onOff, onOff},
	{"PIDs", "pids.max", "pids.max", "", func(l *Limits) *int64 { return &l.PIDs }, 0, math.MaxInt32, orMax, orMax},
	{"IOWeight", "io.weight", "blkio.weight", "bfq.weight", func(l *Limits) *int64 { return &l.IOWeight }, 1, 10000, defaultWeight, legacyWeight},
	{"Descendants", "cgroup.max.descendants", "", "", func(l *Limits) *int64 { return &l.Descendants }, 0, math.MaxInt32, orMax, code{}},
	{"Depth", "cgroup.max.depth", "", "", func(l *Limits) *int64 { return &l.Depth }, 0, math.MaxInt32, orMax, code{}},
}

const most = math.MaxInt64 - 1

var (
	plain      = code{func(n int64) string { return strconv.FormatInt(n, 10) }, readNumber}
	orMax      = code{func(n int64) string { return number(n, "max") }, readNumber}
	orMinusOne = code{func(n int64) string { return number(n, "-1") }, readNumber}
	onOff      = code{func(n int64) string { return strconv.FormatInt(2-n, 10) }, readSwitch}
	oomControl = code{func(n int64) string { return strconv.FormatInt(n-1, 10) }, readOOMControl}

	weightAsShares = code{func(n int64) string { return strconv.FormatInt(sharesOf(n), 10) }, nil}
	sharesAsWeight = code{func(n int64) string { return strconv.FormatInt(weightOf(n), 10) }, nil}
	defaultWeight  = code{func(n int64) string { return "default " + strconv.FormatInt(n, 10) }, readDefault}
	schedulers     = code{nil, func(s string) (int64, bool) {
		n, ok := readDefault(s)
		return weightOfBFQ(n), ok
	}}
	legacyWeight = code{func(n int64) string { return strconv.FormatInt(oldWeight(n), 10) }, func(s string) (int64, bool) {
		n, ok := readDefault(s)
		return newWeight(n), ok
	}}
)

func number(n int64, none string) string {
	switch n {
	case NoLimit:
		return none
	case None:
		return "0"
	}
	return strconv.FormatInt(n, 10)
}

// readNumber reads a limit. Version 1 rounds no limit at all down to whole pages.
func readNumber(s string) (int64, bool) {
	if s == "max" || s == "-1" {
		return NoLimit, true
	}
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case n >= math.MaxInt64&^0xffff:
		n = NoLimit
	case n == 0:
		n = None
	}
	return n, err == nil
}

func readSwitch(s string) (int64, bool) {
	if s == "1" {
		return int64(On), true
	}
	return int64(Off), s == "0"
}

func readOOMControl(s string) (int64, bool) {
	n, ok := field(s, "oom_kill_disable")
	return n + 1, ok && n < 2
}

func readDefault(s string) (int64, bool) {
	line, _, _ := strings.Cut(s, "\n")
	n, err := strconv.ParseInt(strings.TrimPrefix(line, "default "), 10, 64)
	return n, err == nil
}

// field finds a number by its key in lines of "key number".
func field(s, key string) (int64, bool) {
	for len(s) > 0 {
		var line string
		line, s, _ = strings.Cut(s, "\n")
		if rest, ok := strings.CutPrefix(line, key); ok && len(rest) > 1 && rest[0] == ' ' {
			n, err := strconv.ParseInt(rest[1:], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// weightOf turns shares into a weight by the quadratic function that fits both scales' least, normal and greatest value: 2 is 1,
// 1024 is 100, 262144 is 10000, as in opencontainers/cgroups. On a straight line between the ends, which older runtimes took, the
// normal 1024 shares were a weight of 39.
func weightOf(shares int64) int64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return int64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// sharesOf is the inverse: the most shares that have the weight, 1024 for 100.
func sharesOf(weight int64) int64 {
	l := (math.Sqrt(125*125+4*612*(math.Log10(float64(weight))+7.0/34)) - 125) / 2
	return min(max(int64(math.Exp2(l)+1e-6), 2), 262144)
}

// oldWeight turns a weight of 1 to 10000 into one of 10 to 1000, the range of version 1 and of the BFQ scheduler; newWeight
// turns it back. The straight line is the field's.
func oldWeight(n int64) int64 { return 10 + (n-1)*990/9999 }

func newWeight(n int64) int64 { return 1 + (n-10)*9999/990 }

// bfqWeight turns a weight into one of 1 to 1000, which the BFQ scheduler has in version 2: 100 is normal in both, and above it eleven are one, as
// systemd has it. weightOfBFQ turns it back.
func bfqWeight(n int64) int64 { return min(n, 100) + max(n-100, 0)/11 }

func weightOfBFQ(n int64) int64 { return min(n, 100) + max(n-100, 0)*11 }

// check says what is wrong with a number.
func (r *row) check(n int64) error {
	switch {
	case n == 0, n >= r.min && n <= r.max, n == NoLimit && r.max >= math.MaxInt32, n == None && r.min == 0:
		return nil
	case n < 0:
		return &LimitError{r.field, strconv.FormatInt(n, 10), "is negative"}
	}
	return &LimitError{r.field, strconv.FormatInt(n, 10), fmt.Sprintf("is not between %d and %d", r.min, r.max)}
}
