package chroot_test

import (
	"os"
	"time"
)

// rounds is how often a race is tried: n times; ten times as often where CAISSON_SLOW asks for a long run, but fewer
// in an emulated machine, which is up to 40 times slower.
func rounds(n int) int {
	switch {
	case os.Getenv("VMRUN") != "":
		return max(10, n/10)
	case os.Getenv("CAISSON_SLOW") != "":
		return 10 * n
	}
	return n
}

// deadlines of a race: when its rounds are enough, and when one that never succeeds has failed.
func deadlines() (enough, tooLong time.Time) {
	now := time.Now()
	if os.Getenv("CAISSON_SLOW") != "" && os.Getenv("VMRUN") == "" {
		return now.Add(time.Minute), now.Add(2 * time.Minute)
	}
	return now.Add(1500 * time.Millisecond), now.Add(20 * time.Second)
}
