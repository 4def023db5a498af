//go:build linux

// Command layers builds an environment for a model as four layers (base, Python, libraries, model), stores each once, runs from the stack, and then shows what
// a changed model costs:
//
//	go run ./examples/layers               with 256 MiB of model
//	go run ./examples/layers -model 1g
//
// The model and the libraries are generated data. It needs python3, and root or, since Linux 6.6, an ordinary user who may make user namespaces.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/caisson-dev/caisson"
	"github.com/caisson-dev/caisson/caps"
	"github.com/caisson-dev/caisson/cgroups"
	"github.com/caisson-dev/caisson/chroot"
	"github.com/caisson-dev/caisson/namespaces"
	"github.com/caisson-dev/caisson/overlay"
	"github.com/caisson-dev/caisson/overlay/store"
	"github.com/caisson-dev/caisson/plan"
	"github.com/caisson-dev/caisson/seccomp"
)

func main() {
	size := flag.String("model", "256m", "size of the model")
	dir := flag.String("dir", "", "where the layers are kept; a directory that is removed in the end if not given")
	flag.Parse()
	n, err := cgroups.ParseBytes(*size)
	if err == nil {
		err = inDir(*dir, func(dir string) error { return run(context.Background(), dir, n, os.Stdout) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "layers:", err)
		os.Exit(1)
	}
}

// inDir calls f with the directory, or with one that is there meanwhile.
func inDir(dir string, f func(string) error) error {
	if dir != "" {
		return f(dir)
	}
	dir, err := os.MkdirTemp("", "caisson-layers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return f(dir)
}

func run(ctx context.Context, dir string, model int64, out io.Writer) error {
	b, err := newBuilder(dir, out)
	if err != nil {
		return err
	}
	first, err := b.image(ctx, "model-v1", []source{{"base", base}, {"python", python}, {"libraries", libraries}, {"model", weights(model)}})
	if err != nil {
		return err
	}
	b.show("The first image", first)
	if err := b.execute(ctx, first); err != nil {
		return err
	}
	changed := append(first[:3:3], built{})
	changed[3], err = b.layer(ctx, source{"model", tuned(model)})
	if err != nil {
		return err
	}
	if err := b.tag(ctx, "model-v2", changed); err != nil {
		return err
	}
	b.show("One file of the model has changed, in a layer of the whole model", changed)
	patched, err := b.layer(ctx, source{"tuned", onlyTuned(model)})
	if err != nil {
		return err
	}
	stacked := append(first[:4:4], patched)
	if err := b.tag(ctx, "model-v3", stacked); err != nil {
		return err
	}
	b.show("The same, in a layer of what has changed only", stacked)
	return b.execute(ctx, stacked)
}

// execute runs a program from the stack that reads all of the model.
func (b *builder) execute(ctx context.Context, stack []built) error {
	lease, err := b.store.Lease(ctx, chain(stack)...)
	if err != nil {
		return err
	}
	defer lease.Release()
	parts := []plan.Primitive{namespaces.PID | namespaces.Net | namespaces.IPC | namespaces.UTS, overlay.Root{Lower: lease.Lowers(), Size: 16 << 20},
		chroot.Proc{}, chroot.Dev{}, chroot.Tmpfs{Path: "/tmp"}, caps.Drop(caps.All), seccomp.DockerDefault()}
	if b.store.Unprivileged {
		parts = append(parts, namespaces.User)
	}
	cmd := caisson.New(parts...).CommandContext(ctx, b.python, "-IBc", program)
	cmd.Stdout, cmd.Stderr = b.out, b.out
	return cmd.Run()
}

// program finds what the layers hold.
const program = `import os
files = sorted(os.scandir("/model"), key=lambda f: f.name)
total = sum(len(open(f, "rb").read()) for f in files)
print("   python inside reads %d files of the model, %d MiB; tuned: %s\n" % (len(files), total >> 20, open(files[-1], "rb").read(5) == b"tuned"))`

// tag makes an image of the layers.
func (b *builder) tag(ctx context.Context, name string, stack []built) error {
	return b.store.Tag(ctx, store.Image{Name: name, Layers: chain(stack)})
}

func chain(stack []built) (ids []digest.Digest) {
	for _, l := range stack {
		ids = append(ids, l.DiffID)
	}
	return ids
}

// image builds an image of all the layers.
func (b *builder) image(ctx context.Context, name string, sources []source) (stack []built, err error) {
	for _, s := range sources {
		l, err := b.layer(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		stack = append(stack, l)
	}
	return stack, b.tag(ctx, name, stack)
}

// place is where a file of the host's, or a new one, goes in a layer.
func place(dir, name string) string { return filepath.Join(dir, name) }
