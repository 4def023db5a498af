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
	ids := map[uintptr]uintptr{}
	for _, e := range v {
		ids[e[0]] = e[1]
	}
	return differ(ids)
}

// The keys of the auxiliary vector that hold ids.
const (
	atUID  = 11
	atEUID = 12
	atGID  = 13
	atEGID = 14
)

func differ(ids map[uintptr]uintptr) bool {
	return ids[atUID] != ids[atEUID] || ids[atGID] != ids[atEGID]
}
