package lsm

import "flag"

var update = flag.Bool("update", false, "write the golden files anew")

// Update is the flag for tests outside.
var Update = update

// AllThreads restricts all threads as on a kernel with that version of Landlock.
func AllThreads(l Landlock, abi int) error {
	s, err := l.Prepare()
	if err != nil {
		return err
	}
	defer s.Close()
	return s.control(func(fd uintptr) error { return allThreads(fd, 0, landlock{abi, ^uint32(0)}) })
}
