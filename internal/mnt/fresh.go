//go:build linux

package mnt

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Seen is the state of the mounts of the host, as far as it takes to tell whether something has been mounted since, or some mounts have gone from their places. On kernels that cannot tell
// (before Linux 6.8) anything may have happened.
type Seen struct {
	last   uint64            // the newest mount; 0: cannot be told
	places map[string]uint64 // the numbers of the mounts at some places
}

// See is to be called before the table is read.
func See() Seen {
	s := Seen{places: map[string]uint64{}}
	buf := make([]uint64, 256)
	for {
		n, ok := listmount(s.last, buf)
		if !ok {
			return Seen{}
		}
		if n > 0 {
			s.last = buf[n-1]
		}
		if n < len(buf) {
			s.Watch("/")
			return s
		}
	}
}

// Watch notes which mount is at the place.
func (s *Seen) Watch(place string) {
	if s.last != 0 {
		s.places[place] = mountAt(place)
	}
}

// Unchanged reports whether no mount has come, and each is at its place. It takes some microseconds, and the table ten times as many.
func (s Seen) Unchanged() bool {
	if s.last == 0 {
		return false
	}
	var one [1]uint64
	if n, ok := listmount(s.last, one[:]); !ok || n != 0 {
		return false
	}
	for place, id := range s.places {
		if id == 0 || mountAt(place) != id {
			return false
		}
	}
	return true
}

// listmount gives the numbers of the mounts after last that can be reached from the root, in their order: these numbers are never used again (listmount(2), Linux 6.8).
func listmount(last uint64, buf []uint64) (n int, ok bool) {
	request := struct {
		size, spare uint32
		id, last    uint64
		namespace   uint64
	}{32, 0, ^uint64(0), last, 0} // LSMT_ROOT
	r, _, e := unix.Syscall6(unix.SYS_LISTMOUNT, uintptr(unsafe.Pointer(&request)), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
	return int(r), e == 0
}

// mountAt is the number of the mount at a place, or 0.
func mountAt(place string) uint64 {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, place, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID_UNIQUE, &st)
	if err != nil || st.Mask&unix.STATX_MNT_ID_UNIQUE == 0 || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 {
		return 0
	}
	return st.Mnt_id
}
