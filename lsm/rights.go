//go:build linux

package lsm

import "github.com/caisson-dev/caisson/plan"

// NewestABI is the version of Landlock whose kinds of access this package knows: that of Linux 7.1.
const NewestABI = 9

// The kinds of access, by the names and bits of linux/landlock.h.
const (
	fsExecute = 1 << iota
	fsWriteFile
	fsReadFile
	fsReadDir
	fsRemoveDir
	fsRemoveFile
	fsMakeChar
	fsMakeDir
	fsMakeReg
	fsMakeSock
	fsMakeFifo
	fsMakeBlock
	fsMakeSym
	fsRefer
	fsTruncate
	fsIoctlDev
	fsResolveUnix
)

const (
	netBind    = 1
	netConnect = 2

	scopedAbstract = 1
	scopedSignal   = 2
)

var fsNames = []plan.Flag{{Bits: fsExecute, Name: "EXECUTE"}, {Bits: fsWriteFile, Name: "WRITE_FILE"}, {Bits: fsReadFile, Name: "READ_FILE"},
	{Bits: fsReadDir, Name: "READ_DIR"}, {Bits: fsRemoveDir, Name: "REMOVE_DIR"}, {Bits: fsRemoveFile, Name: "REMOVE_FILE"},
	{Bits: fsMakeChar, Name: "MAKE_CHAR"}, {Bits: fsMakeDir, Name: "MAKE_DIR"}, {Bits: fsMakeReg, Name: "MAKE_REG"},
	{Bits: fsMakeSock, Name: "MAKE_SOCK"}, {Bits: fsMakeFifo, Name: "MAKE_FIFO"}, {Bits: fsMakeBlock, Name: "MAKE_BLOCK"},
	{Bits: fsMakeSym, Name: "MAKE_SYM"}, {Bits: fsRefer, Name: "REFER"}, {Bits: fsTruncate, Name: "TRUNCATE"}, {Bits: fsIoctlDev, Name: "IOCTL_DEV"},
	{Bits: fsResolveUnix, Name: "RESOLVE_UNIX"}}

var netNames = []plan.Flag{{Bits: netBind, Name: "BIND_TCP"}, {Bits: netConnect, Name: "CONNECT_TCP"}}

var scopeNames = []plan.Flag{{Bits: scopedAbstract, Name: "ABSTRACT_UNIX_SOCKET"}, {Bits: scopedSignal, Name: "SIGNAL"}}

var logNames = []plan.Flag{{Bits: uint64(NotSameExec), Name: "LOG_SAME_EXEC_OFF"}, {Bits: uint64(NewExec), Name: "LOG_NEW_EXEC_ON"},
	{Bits: uint64(NotSubdomains), Name: "LOG_SUBDOMAINS_OFF"}}

const (
	abiRefer    = 2
	abiTruncate = 3
	abiNet      = 4
	abiIoctl    = 5
	abiScope    = 6
	abiLog      = 7
	abiAll      = 8 // LANDLOCK_RESTRICT_SELF_TSYNC: all threads at once
	abiUnix     = 9
)

// fsRights are the kinds of access to files that a version of Landlock knows, all but the connection to sockets: that is a matter of ConnectUnix alone.
func fsRights(abi int) uint64 {
	rights := uint64(fsRefer - 1)
	for _, later := range []struct {
		abi   int
		right uint64
	}{{1, 0}, {abiRefer, fsRefer}, {abiTruncate, fsTruncate}, {abiIoctl, fsIoctlDev}} {
		if abi >= later.abi {
			rights |= later.right
		}
	}
	return rights
}

// What an intent allows: on any file, and what only makes sense for a directory, which the kernel refuses for anything else.
const (
	allReadWrite = fsReadFile | fsWriteFile | fsTruncate | fsIoctlDev
	allMake      = fsRemoveDir | fsRemoveFile | fsMakeDir | fsMakeReg | fsMakeSock | fsMakeFifo | fsMakeSym | fsRefer
)

func (i intent) rights() (file, dir uint64) {
	switch i {
	case readWrite:
		return allReadWrite, fsReadDir | allMake
	case list:
		return 0, fsReadDir
	case execute:
		return fsReadFile | fsExecute, fsReadDir
	}
	return fsReadFile, fsReadDir
}

// landlock is what the kernel can do.
type landlock struct {
	abi    int    // 0: none
	errata uint32 // that are fixed; bit 0 is erratum 1
}

func (k landlock) fixed(erratum int) bool { return k.errata&(1<<(erratum-1)) != 0 }

// The errata that matter here; landlock(7) lists them all. None of them is a reason to restrict less.
const (
	erratumTCP     = 1 // other protocols than TCP are restricted as well
	erratumSignals = 2 // threads of one process cannot signal each other when each has restricted itself
	erratumRefer   = 3 // a directory that is moved out of a bind mount may gain rights
)
