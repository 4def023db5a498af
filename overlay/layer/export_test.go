//go:build linux

package layer

// OpenDir and OpenDirByHand are the two ways to open a directory by one word.
var OpenDir, OpenDirByHand = openDir, openDirByHand
