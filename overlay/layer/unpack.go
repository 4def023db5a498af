//go:build linux

package layer

import (
	"context"
	"io"
	"math"
	"time"
)

// Unpack says how a layer is unpacked. The zero value unpacks an image's layer into a plain tree, with everything exact.
type Unpack struct {
	// Form is how whiteouts are written down: [Plain], the zero value, removes what they name; [Overlay] and [UserOverlay] make the directory
	// a lower directory of an overlay mount; [AUFS] keeps the files of the archive.
	Form Form

	// Devices says what becomes of device nodes; the zero value refuses the layer. A device 0:0 is refused in any case: it is a whiteout.
	Devices Devices

	// Unprivileged is for an ordinary user: the caller owns all files, set-user-ID and set-group-ID bits of files are dropped, and devices and attributes of security and trusted are
	// skipped, whatever Devices says. What is left out is counted in Totals.Skipped.
	Unprivileged bool

	Limits Limits

	// Progress is called now and then, at most ten times a second, and at the end; nil is nobody. Apply waits for it.
	Progress func(Totals)
}

// Devices says what becomes of device nodes.
type Devices uint8

// What can become of them.
const (
	RefuseDevices Devices = iota // the layer is refused: IsDevice
	SkipDevices                  // they are left out, and counted in Totals.Skipped
	MakeDevices                  // they are made; takes CAP_MKNOD in the initial user namespace
)

// NoLimit is a limit for those who trust what they unpack.
const NoLimit int64 = math.MaxInt64

// Limits are what a layer may be at most. Zero in a field is the default.
type Limits struct {
	Entries int64 // names in the archive, and directories on the way that have no entry; by default 2 million, which may take some hundred megabytes of memory
	Bytes   int64 // contents of all files together, holes included, and what follows the end of the archive; by default 1 TiB
	Depth   int64 // levels of directories; by default 16,384
}

func (l Limits) orDefault() Limits {
	for _, f := range []struct {
		field *int64
		value int64
	}{{&l.Entries, 2_000_000}, {&l.Bytes, 1 << 40}, {&l.Depth, 16384}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	return l
}

// Totals count what has been done.
type Totals struct {
	Entries   int64 // of the archive
	Files     int64 // regular ones
	Bytes     int64 // their contents
	Whiteouts int64 // opaque directories included
	Skipped   int64 // what was left out because the caller allowed it: devices, attributes, sockets
}

// Apply unpacks a layer into the directory dst, as Unpack{} does: plain or compressed with gzip or zstd, which it finds out by itself.
func Apply(ctx context.Context, dst string, layer io.Reader) (Totals, error) {
	return Unpack{}.Apply(ctx, dst, layer)
}

// Apply unpacks a layer into the directory dst, which must exist. The layer is read to its end, also behind the end of the archive, so that checksums
// of the compression are verified. Errors are [*Error], and leave in dst what was unpacked until then.
//
// When the context ends so does Apply, even while a Read of layer does not return.
func (u Unpack) Apply(ctx context.Context, dst string, layer io.Reader) (Totals, error) {
	if u.Form > AUFS || u.Devices > MakeDevices {
		return Totals{}, fail("apply", "", errBadValue)
	}
	if u.Unprivileged {
		u.Devices = SkipDevices
	}
	u.Limits = u.Limits.orDefault()
	t, err := openTree(dst, u.Limits.Depth)
	if err != nil {
		return Totals{}, fail("apply", "", err)
	}
	defer t.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := readAhead(ctx, layer)
	defer in.stop()
	w := &unpacker{Unpack: u, ctx: ctx, tree: t, in: in, made: map[uint64]struct{}{}}
	w.crew = newCrew(w.file)
	err = w.run()
	w.report(time.Time{})
	return w.totals, fail("apply", w.entry, err)
}
