//go:build linux

package namespaces

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/caisson-dev/caisson/plan"
)

// SubordinateIDs gives the maps with the ids that /etc/subuid and /etc/subgid grant to a user (subuid(5)), by name or
// by decimal uid; "" is the caller's own. The ranges follow each other inside, in the order of the files. For the
// caller's own ids they begin at 1, and 0 is the caller itself, unless the caller is root: then, and for another user,
// they begin at 0.
//
// A user without a range is a [*SubordinateError] with fs.ErrNotExist; so is each file that is missing. A line that
// cannot be read, or that overlaps an earlier one of the same user, is a [*SubordinateError] with EINVAL that names it.
// The uid of a name is looked up in /etc/passwd only.
//
// It needs no privilege; what a sandbox with the maps needs stands at [IDs].
func SubordinateIDs(user string) (IDs, error) {
	u, err := findUser(user)
	if err != nil {
		return IDs{}, err
	}
	var m IDs
	if m.UIDs, err = subordinate("/etc/subuid", u, uint32(os.Geteuid())); err != nil {
		return IDs{}, err
	}
	m.GIDs, err = subordinate("/etc/subgid", u, uint32(os.Getegid()))
	return m, err
}

// SubordinateError says what is wrong in a file of subordinate ids.
type SubordinateError struct {
	File string // "/etc/subuid"
	Line int    // counted from 1; 0 for the file as a whole
	Text string // the line, or the user who has no range
	Err  error
}

// Error gives all that is known on one line.
func (e *SubordinateError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s: %v", e.File, e.Text, e.Err)
	}
	return fmt.Sprintf("%s:%d: %q: %v", e.File, e.Line, e.Text, e.Err)
}

// Unwrap gives Err.
func (e *SubordinateError) Unwrap() error { return e.Err }

// subUser is a user by both names that the files may use.
type subUser struct {
	name string // "" where it has none
	uid  string // decimal, "" where it is unknown
	own  bool   // is the caller
}

func (u subUser) String() string {
	if u.name != "" {
		return u.name
	}
	return u.uid
}

func findUser(user string) (subUser, error) {
	own := strconv.FormatUint(uint64(uint32(os.Geteuid())), 10)
	f, err := os.Open("/etc/passwd")
	if err != nil && !os.IsNotExist(err) {
		return subUser{}, fail(plan.Errno(err), "open /etc/passwd")
	}
	if err == nil {
		defer f.Close()
		return readUser(f, user, own)
	}
	return readUser(strings.NewReader(""), user, own)
}

// readUser finds the user in the text of /etc/passwd (passwd(5)).
func readUser(passwd io.Reader, user, own string) (subUser, error) {
	u := subUser{name: user}
	if user == "" {
		user = own
	}
	if _, ok := parseID(user); ok {
		u = subUser{uid: user}
	}
	lines := bufio.NewScanner(passwd)
	for lines.Scan() {
		if f := strings.Split(lines.Text(), ":"); len(f) > 2 && f[0] != "" && (f[0] == u.name || u.name == "" && f[2] == u.uid) {
			u.name, u.uid = f[0], f[2]
			break
		}
	}
	u.own = u.uid == own
	return u, fail(lines.Err(), "read /etc/passwd")
}

func subordinate(file string, u subUser, id uint32) ([]Range, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, &SubordinateError{File: file, Text: u.String(), Err: plan.Errno(err)}
	}
	defer f.Close()
	granted, err := readSubordinate(f, file, u)
	if err != nil {
		return nil, err
	}
	var m []Range
	if u.own && id != 0 {
		m = append(m, Range{0, id, 1})
	}
	return appendRanges(m, granted, file)
}

// appendRanges lets the granted ranges follow each other inside.
func appendRanges(m, granted []Range, file string) ([]Range, error) {
	next := uint64(len(m)) // what is there already has one id
	for _, g := range granted {
		g.Inside = uint32(next)
		if next += uint64(g.Size); next > noID {
			return nil, &SubordinateError{File: file, Text: "all ranges", Err: &reason{"they have more ids than there are", syscall.EINVAL}}
		}
		m = append(m, g)
	}
	return m, nil
}

// readSubordinate reads the lines "user:first:number" that grant something to u.
func readSubordinate(r io.Reader, file string, u subUser) (granted []Range, err error) {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		g, mine, why := parseSubordinate(text, u)
		if why == "" && mine && !slices.Contains(granted, g) {
			why = clashing(g, granted)
			granted = append(granted, g)
		}
		if why != "" {
			return nil, &SubordinateError{File: file, Line: n, Text: text, Err: &reason{why, syscall.EINVAL}}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, &SubordinateError{File: file, Text: u.String(), Err: err}
	}
	if len(granted) == 0 {
		return nil, &SubordinateError{File: file, Text: u.String(), Err: &reason{"no ids are granted to this user", syscall.ENOENT}}
	}
	return granted, nil
}

func parseSubordinate(text string, u subUser) (g Range, mine bool, why string) {
	f := strings.Split(text, ":")
	if len(f) != 3 || f[0] == "" {
		return g, false, "not user:first:number"
	}
	first, ok1 := parseID(f[1])
	size, ok2 := parseID(f[2])
	if !ok1 || !ok2 {
		return g, false, "not a number below 2^32"
	}
	g = Range{0, first, size}
	return g, f[0] == u.name || f[0] == u.uid, g.fault()
}

func clashing(g Range, earlier []Range) string {
	for _, e := range earlier {
		if overlap(g.Outside, e.Outside, g.Size, e.Size) {
			return fmt.Sprintf("overlaps %d:%d", e.Outside, e.Size)
		}
	}
	return ""
}
