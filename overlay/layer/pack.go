//go:build linux

package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Pack says how a layer is made. The zero value makes an uncompressed base layer of a plain tree.
type Pack struct {
	// Form is how the directory says what is deleted: [Overlay] or [UserOverlay] for the upper directory of an overlay mount, [AUFS]; [Plain], the zero value, is
	// a tree from which nothing is missing.
	Form Form

	Compression Compression // of the layer

	// Contents makes Compare read files that have the same size and time of modification. By default they are the same.
	Contents bool

	// Progress is called now and then, at most ten times a second, and at the end; nil is nobody. Diff waits for it.
	Progress func(Totals)
}

// Diff makes an uncompressed layer of the upper directory of an overlay mount. It is Pack{Form: Overlay}.Diff.
func Diff(ctx context.Context, w io.Writer, upper string) (Totals, error) {
	return Pack{Form: Overlay}.Diff(ctx, w, upper)
}

// Diff writes a layer with all that is in a directory. Of an overlay mount only the upper directory is read, so that it costs what has changed and not what is
// there. Names are sorted, and of one directory whiteouts come first; the root directory is an entry, "./". Two names of one file are a hard link. Holes are
// written as zeros. Sockets are left out, and counted. Attributes are those of user and trusted, access control lists and file capabilities; labels of
// security modules are the host's, and left out.
//
// The directory may be hostile, and may change: no link is followed, only regular files are opened, and one that changes while it is read is an error,
// IsChanged. Form Overlay takes CAP_SYS_ADMIN in the initial user namespace: without it the kernel hides which directories are opaque. What was made with metacopy or redirect_dir is refused
// (IsNeedsLower). Errors are [*Error].
func (p Pack) Diff(ctx context.Context, w io.Writer, upper string) (Totals, error) {
	return p.run(ctx, w, upper, func(k *packer) error { return k.whole() })
}

// Compare writes a layer with what is in the plain tree upper and not, or not like that, in the plain tree lower, and whiteouts for what is only there. It visits all of
// both. Files are the same if their types, modes, owners, sizes, times of modification and attributes are, and their contents where Contents asks for it.
// Directories in which something has changed are entries, too. Form must be Plain.
func (p Pack) Compare(ctx context.Context, w io.Writer, lower, upper string) (Totals, error) {
	if p.Form != Plain {
		return Totals{}, fail("diff", "", errBadValue)
	}
	return p.run(ctx, w, upper, func(k *packer) error { return k.against(lower) })
}

func (p Pack) run(ctx context.Context, w io.Writer, upper string, pack func(*packer) error) (Totals, error) {
	if p.Form > AUFS {
		return Totals{}, fail("diff", "", errBadValue)
	}
	if p.Form == Overlay {
		if err := seesTrusted(); err != nil {
			return Totals{}, err
		}
	}
	z, err := p.Compression.Compress(w)
	if err != nil {
		return Totals{}, err
	}
	k := &packer{Pack: p, ctx: ctx, links: map[inode]string{}}
	if err = k.open(upper); err == nil {
		defer k.close()
		b := bufio.NewWriterSize(z, blockSize)
		k.tar = tar.NewWriter(b)
		if err = pack(k); err == nil {
			k.entry = ""
			err = errors.Join(k.tar.Close(), b.Flush())
		}
	}
	if err == nil {
		err = z.Close()
	}
	k.report(time.Time{})
	return k.totals, fail("diff", k.entry, err)
}

// seesTrusted asks by an act that changes nothing: without privilege reading answers as if there were no attribute, but removing tells.
func seesTrusted() error {
	fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC)
	if err != nil {
		return fail("diff", "", err)
	}
	defer unix.Close(fd)
	if unix.Fremovexattr(fd, "trusted.overlay.opaque") == syscall.EPERM {
		return &Error{Op: "diff", Err: syscall.EPERM, Hint: "trusted attributes can be seen with CAP_SYS_ADMIN of the host only"}
	}
	return nil
}
