//go:build linux

package namespaces

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Range maps Size ids that follow each other: Inside, Inside+1 and so on in a user namespace are Outside, Outside+1 and
// so on in its parent, which is the caller's (user_namespaces(7)). The id 4294967295 cannot be mapped, it means "none".
type Range struct {
	Inside  uint32 // the first id in the new user namespace
	Outside uint32 // the first id in the caller's user namespace
	Size    uint32 // how many ids; 0 is an error
}

// String gives the three numbers: "0:100000:65536".
func (r Range) String() string { return fmt.Sprintf("%d:%d:%d", r.Inside, r.Outside, r.Size) }

// ParseRange reads what [Range.String] gives: three decimal numbers. The error is a [*RangeError].
func ParseRange(text string) (Range, error) { return parseRange(text, strings.Split(text, ":")) }

func parseRange(text string, fields []string) (r Range, err error) {
	if len(fields) != 3 {
		return Range{}, &RangeError{Text: text, Reason: "not three numbers"}
	}
	for i, n := range []*uint32{&r.Inside, &r.Outside, &r.Size} {
		v, ok := parseID(fields[i])
		if !ok {
			return Range{}, &RangeError{Text: text, Reason: fmt.Sprintf("%q is not a number below 2^32", fields[i])}
		}
		*n = v
	}
	if why := r.fault(); why != "" {
		return Range{}, &RangeError{Text: text, Range: r, Reason: why}
	}
	return r, nil
}

// parseID reads digits and nothing else: no sign, no prefix, no space.
func parseID(text string) (uint32, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil
}

// ParseMap reads the text of /proc/PID/uid_map and gid_map (user_namespaces(7)): a range per line, numbers with spaces
// between them. The error is a [*RangeError].
func ParseMap(text string) ([]Range, error) {
	var m []Range
	for line := range strings.Lines(text) {
		r, err := parseRange(strings.TrimSpace(line), strings.Fields(line))
		if err != nil {
			return nil, err
		}
		m = append(m, r)
	}
	return m, nil
}

const (
	noID      = 1<<32 - 1 // the id that is none
	maxRanges = 340       // UID_GID_MAP_MAX_EXTENTS, since Linux 4.15
)

// fault says what is wrong with the range by itself.
func (r Range) fault() string {
	switch {
	case r.Size == 0:
		return "its size is 0"
	case r.Inside == noID || r.Outside == noID:
		return "4294967295 is no id"
	case uint64(r.Inside)+uint64(r.Size) > noID || uint64(r.Outside)+uint64(r.Size) > noID:
		return "it goes beyond the last id, 4294967294"
	}
	return ""
}

func overlap(a, b, sizeA, sizeB uint32) bool {
	return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
}

// clash says what is wrong with two ranges in one map.
func (r Range) clash(o Range) string {
	switch {
	case overlap(r.Inside, o.Inside, r.Size, o.Size):
		return fmt.Sprintf("its inside ids are also those of %v", o)
	case overlap(r.Outside, o.Outside, r.Size, o.Size):
		return fmt.Sprintf("its outside ids are also those of %v", o)
	}
	return ""
}

// RangeError says which range of an id map is wrong, and why. It is an EINVAL for errors.Is.
type RangeError struct {
	Map    string // "uid" or "gid"; "" for a range by itself
	Range  Range  // zero where the map as a whole is wrong, or the text could not be read
	Text   string // what was to be read; "" for a value
	Reason string
}

// Error names the map, the range and the reason.
func (e *RangeError) Error() string {
	text := strings.TrimSpace(e.Map + " map")
	switch {
	case e.Text != "" || e.Map == "":
		text = fmt.Sprintf("range %q", e.Text)
	case e.Range != Range{} || e.Reason == Range{}.fault():
		text += fmt.Sprintf(": range %v", e.Range)
	}
	return text + ": " + e.Reason
}

// Unwrap gives EINVAL.
func (e *RangeError) Unwrap() error { return syscall.EINVAL }

func checkMap(name string, m []Range) error {
	if len(m) == 0 {
		return &RangeError{Map: name, Reason: "it is empty"}
	}
	if len(m) > maxRanges {
		return &RangeError{Map: name, Reason: fmt.Sprintf("it has %d ranges, the kernel takes %d", len(m), maxRanges)}
	}
	for i, r := range m {
		why := r.fault()
		for _, o := range m[:i] {
			if why == "" {
				why = r.clash(o)
			}
		}
		if why != "" {
			return &RangeError{Map: name, Range: r, Reason: why}
		}
	}
	if n := len(mapText(m)); n >= os.Getpagesize() {
		return &RangeError{Map: name, Reason: fmt.Sprintf("its text has %d bytes, the kernel takes less than %d", n, os.Getpagesize())}
	}
	return nil
}

// mapText is what is written to uid_map and gid_map.
func mapText(m []Range) string {
	lines := make([]string, len(m))
	for i, r := range m {
		lines[i] = fmt.Sprintf("%d %d %d", r.Inside, r.Outside, r.Size)
	}
	return strings.Join(lines, "\n")
}

// inside gives the id by which the command goes: 0 where 0 is mapped; else the caller's own; else the first one.
func inside(m []Range, own uint32) uint32 {
	if slices.ContainsFunc(m, func(r Range) bool { return r.Inside == 0 }) {
		return 0
	}
	for _, r := range m {
		if overlap(own, r.Outside, 1, r.Size) {
			return r.Inside + (own - r.Outside)
		}
	}
	return m[0].Inside
}
