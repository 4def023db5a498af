//go:build linux

package caps

import (
	"strconv"
	"strings"
)

// Parse reads capabilities with commas between them, as String, Docker, the OCI runtime specification and /proc/PID/status
// write them:
//
//   - a name, in any case, with or without "cap_": "NET_ADMIN", "CAP_NET_ADMIN", "net_admin";
//   - "all", "none";
//   - a number, 0 to 63: "12";
//   - a mask: "0x1000", or the 16 digits without 0x that the kernel prints.
//
// A word with a ! before it is taken from what stands before it: "all,!sys_admin". The error is a [*NameError].
func Parse(text string) (Set, error) {
	var s Set
	for word := range strings.SplitSeq(text, ",") {
		name, less := strings.CutPrefix(strings.TrimSpace(word), "!")
		c, ok := parseWord(name)
		switch {
		case !ok:
			return 0, &NameError{Text: word}
		case less:
			s &^= c
		default:
			s |= c
		}
	}
	return s, nil
}

func parseWord(word string) (Set, bool) {
	switch {
	case fold(word, "all"):
		return All, true
	case fold(word, "none"):
		return 0, true
	case len(word) == 16:
		if s, ok := parseMask(word); ok {
			return s, true
		}
	case strings.HasPrefix(word, "0x"):
		return parseMask(word[2:])
	}
	if c, ok := parseNumber(word, 10); ok {
		return c, true
	}
	return parseName(word)
}

// parseName reads the name of one capability, with or without "cap_".
func parseName(word string) (Set, bool) {
	if len(word) > 4 && fold(word[:4], "cap_") {
		word = word[4:]
	}
	for i, n := range names {
		if fold(n, word) {
			return 1 << i, true
		}
	}
	return 0, false
}

// parseNumber reads the number of one capability. A sign, which strconv would accept elsewhere, is none.
func parseNumber(word string, base int) (Set, bool) {
	n, err := strconv.ParseUint(word, base, 8)
	if err != nil || n > 63 {
		return 0, false
	}
	return 1 << n, true
}

func parseMask(digits string) (Set, bool) {
	n, err := strconv.ParseUint(digits, 16, 64)
	return Set(n), err == nil
}

// fold compares without regard to case. Of the letters that Unicode takes for ASCII ones none is as short.
func fold(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }
