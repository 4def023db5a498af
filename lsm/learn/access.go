//go:build linux

package learn

import "strings"

// Access is what is done with a file. The values can be combined; zero is none, as for stat(2), chdir(2) and readlink(2), which Landlock leaves alone.
type Access uint8

// The kinds of access.
const (
	List    Access = 1 << iota // the directory's entries are listed
	Read                       // the file is opened for reading
	Write                      // it is opened for writing or truncated; or it is a device, which is controlled by ioctl(2)
	Make                       // something in the directory is made, removed or renamed
	Execute                    // the program is executed, or loads one that is (ELF interpreter, #!)
)

var accessNames = []string{"list", "read", "write", "make", "execute"}

// String gives the names, with | between them.
func (a Access) String() string {
	var names []string
	for i, name := range accessNames {
		if a&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, "|")
}

// grants is what the rule that allows the access allows with it, on the path and below.
func (a Access) grants() Access {
	var all Access
	if a&(Write|Make) != 0 {
		all |= List | Read | Write | Make
	}
	if a&Execute != 0 {
		all |= List | Read | Execute
	}
	if a&Read != 0 {
		all |= List | Read
	}
	return all | a
}
