//go:build linux

package launch

import "golang.org/x/sys/unix"

// setID reports whether the kernel started the host program with other ids than its caller's: a set-user-ID program is at the
// mercy of its caller, and none may use this package. What counts are the ids of the start (getauxval(3)): the program may
// have changed its own since. AT_SECURE alone would be too much, some security modules set it for every service.
func setID() bool {
	v, err := unix.Auxv()
	if err != nil { // as with glibc, set-group-ID and a variable like TMPDIR: glibc removes it, and the runtime misses the vector
		return unix.Getuid() != unix.Geteuid() || unix.Getgid() != unix.Getegid()
	}
	var ids [4]uintptr
	for _, e := range v {
		if k := e[0] - atUID; k < 4 {
			ids[k] = e[1]
		}
	}
	return differ(ids)
}

// atUID is the key of the real user id; those of the effective one and of the two group ids follow.
const atUID = 11

func differ(ids [4]uintptr) bool { return ids[0] != ids[1] || ids[2] != ids[3] }
