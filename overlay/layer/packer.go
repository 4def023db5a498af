//go:build linux

package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/internal/procfs"
)

// packer is one packing.
type packer struct {
	Pack
	ctx    context.Context
	tree   *tree
	lower  *tree // of Compare
	proc   *procfs.FS
	tar    *tar.Writer
	path   []byte // of the directory that is visited, with a slash at its end; "" is the root
	stack  []*visit
	links  map[inode]string
	entry  string
	totals Totals
	said   time.Time
	buffer []byte
}

type inode struct{ dev, ino uint64 }

// visit is a directory on the way to where the walk is.
type visit struct {
	node    *node
	st      unix.Stat_t
	end     int // of its name in path
	written bool
}

func (k *packer) open(upper string) (err error) {
	if err := ownProc(); err != nil {
		return err
	}
	if k.tree, err = openTree(upper, NoLimit); err != nil {
		return err
	}
	if k.proc, err = procfs.Open(); err != nil {
		k.tree.close()
	}
	return err
}

func (k *packer) close() {
	k.tree.close()
	k.proc.Close()
	if k.lower != nil {
		k.lower.close()
	}
}

func (k *packer) report(now time.Time) {
	if k.Progress != nil && (now.IsZero() || now.Sub(k.said) >= time.Second/10) {
		k.said = now
		k.Progress(k.totals)
	}
}

// whole packs all of the tree.
func (k *packer) whole() error { return k.visit(k.tree.root, k.directory) }

// visit does something with a directory that has been entered, with its place on the stack.
func (k *packer) visit(n *node, do func(*visit) error) error {
	k.entry = string(k.path)
	fd, err := k.tree.fd(n)
	if err != nil {
		return err
	}
	v := &visit{node: n, end: len(k.path)}
	if err := unix.Fstat(fd, &v.st); err != nil {
		return err
	}
	k.stack = append(k.stack, v)
	defer func() { k.stack = k.stack[:len(k.stack)-1] }()
	return do(v)
}

// down goes into a directory below, and comes back.
func (k *packer) down(n *node, name string, do func(*visit) error) error {
	defer func(end int) { k.path = k.path[:end] }(len(k.path))
	k.path = append(append(k.path, name...), '/')
	k.entry = string(k.path)
	sub, err := k.tree.enter(n, name)
	if err != nil {
		return err
	}
	defer k.tree.leave(sub)
	return k.visit(sub, do)
}

// directory packs a directory and all below it.
func (k *packer) directory(v *visit) error {
	if err := k.flush(); err != nil {
		return err
	}
	list, err := k.list(k.tree, v.node)
	if err != nil {
		return err
	}
	rest, err := k.whiteouts(v.node, list)
	if err != nil {
		return err
	}
	for _, f := range rest {
		if f.isDir() {
			err = k.down(v.node, f.name, k.directory)
		} else {
			err = k.file(v.node, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// flush writes the directories on the way that have not been written yet.
func (k *packer) flush() error {
	for _, v := range k.stack {
		if v.written {
			continue
		}
		v.written = true
		name := string(k.path[:v.end])
		if name == "" {
			name = "./"
		}
		k.entry = name
		fd, err := k.tree.fd(v.node)
		if err != nil {
			return err
		}
		h := header(name, &v.st)
		h.Typeflag = tar.TypeDir
		isOpaque, err := k.attrs(h, openFile(fd))
		if err != nil {
			return err
		}
		if err := k.write(h); err != nil {
			return err
		}
		if isOpaque {
			if err := k.deleted(name, opaque); err != nil {
				return err
			}
		}
	}
	return nil
}

// write begins an entry.
func (k *packer) write(h *tar.Header) error {
	if err := k.ctx.Err(); err != nil {
		return err
	}
	k.totals.Entries++
	k.report(time.Now())
	return k.tar.WriteHeader(h)
}

// deleted writes a whiteout, which is nobody's and of no time.
func (k *packer) deleted(dir, name string) error {
	k.totals.Whiteouts++
	return k.write(&tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(dir, "./") + name, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

// header is an entry with what stat(2) knows. In this format times are exact and names as long as they are; records are written where they are needed only.
func header(name string, st *unix.Stat_t) *tar.Header {
	return &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(int64(st.Mtim.Sec), int64(st.Mtim.Nsec)), Format: tar.FormatPAX}
}

// attrs puts the attributes into an entry, and reports whether overlay's says that a directory is opaque.
func (k *packer) attrs(h *tar.Header, f attrFile) (isOpaque bool, err error) {
	names, err := f.names()
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if k.Form.kernels() && strings.HasPrefix(name, k.Form.attr("")) {
			switch strings.TrimPrefix(name, k.Form.attr("")) {
			case "opaque":
				value, err := f.read(name)
				if err != nil {
					return false, err
				}
				isOpaque = value == "y"
			case "redirect", "metacopy":
				return false, refuse(IsNeedsLower, name)
			}
		}
		if keep, err := carried(name, false); err != nil || !keep {
			continue // the mount's, or the host's
		}
		value, err := f.read(name)
		if err == syscall.ENODATA {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("read the attribute %s: %w", name, err)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxAttr+name] = value
	}
	return isOpaque, nil
}
