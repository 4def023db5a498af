//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/caisson-dev/caisson/overlay/layer"
	"github.com/caisson-dev/caisson/overlay/store"
)

// source makes the files of a layer in an empty directory.
type source struct {
	name string
	fill func(b *builder, dir string) error
}

// built is a layer in the store.
type built struct {
	name string
	store.Layer
	packed int64 // bytes of its compressed archive: what is transferred
	took   time.Duration
	known  bool
}

// builder makes layers and keeps them.
type builder struct {
	dir    string
	store  *store.Store
	out    io.Writer
	bar    *bar
	python string // of the host, and of the layers
}

func newBuilder(dir string, out io.Writer) (b *builder, err error) {
	b = &builder{dir: dir, out: out, bar: newBar()}
	b.store, err = store.Dir{Path: filepath.Join(dir, "store"), Unprivileged: os.Geteuid() != 0, Progress: b.bar.progress}.Open()
	return b, err
}

// layer fills a directory, packs it as a registry would hold it, and takes that archive into the store.
func (b *builder) layer(ctx context.Context, s source) (l built, err error) {
	files, err := os.MkdirTemp(b.dir, "files")
	if err != nil {
		return l, err
	}
	defer os.RemoveAll(files)
	if err := os.Chmod(files, 0o755); err != nil {
		return l, err
	}
	if err := s.fill(b, files); err != nil {
		return l, err
	}
	archive := files + ".tar.zst"
	defer os.Remove(archive)
	begin := time.Now()
	if l.packed, err = pack(ctx, archive, files); err != nil {
		return l, err
	}
	b.bar.name = s.name
	l.Layer, err = b.store.Add(ctx, func() (io.ReadCloser, error) { return os.Open(archive) }, store.Expect{Size: l.packed})
	l.name, l.took = s.name, time.Since(begin)
	b.bar.clear()
	return l, err
}

// pack writes the archive of a directory and gives its size.
func pack(ctx context.Context, archive, dir string) (int64, error) {
	f, err := os.Create(archive)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := (layer.Pack{Compression: layer.Zstd}).Diff(ctx, f, dir); err != nil {
		return 0, err
	}
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), f.Close()
}

// show prints the stack as it lies, and what of it is new.
func (b *builder) show(title string, stack []built) {
	fmt.Fprintf(b.out, "%s\n\n", title)
	var stored, sent int64
	for i := len(stack) - 1; i >= 0; i-- {
		l := &stack[i]
		state := "new"
		if l.known {
			state = "known: nothing is stored, sent or read"
		} else {
			stored, sent = stored+l.Bytes, sent+l.packed
		}
		fmt.Fprintf(b.out, "   +------------------------------+\n   | %-10s %6d files %s |  %8s on disk  %8s to transfer  %s\n", l.name, l.Totals.Files, short(l.DiffID.Encoded()), mib(l.Bytes), mib(l.packed), state)
		l.known = true
	}
	fmt.Fprintf(b.out, "   +------------------------------+\n   to store: %s, to transfer: %s\n\n", mib(stored), mib(sent))
}

func short(id string) string { return id[:4] }

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
