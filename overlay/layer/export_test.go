//go:build linux

package layer

// OpenDir and OpenDirByHand are the two ways to open a directory by one word.
var OpenDir, OpenDirByHand = openDir, openDirByHand

// PlainHeader is the reader of headers without anything special, which archive/tar is compared with.
var PlainHeader = plainHeader
