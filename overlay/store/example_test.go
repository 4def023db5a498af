package store_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/caisson-dev/caisson/overlay/layer"
	"github.com/caisson-dev/caisson/overlay/store"
)

// A layer is unpacked once; a lease gives the directory to mount.
func Example() {
	dir, _ := os.MkdirTemp("", "store")
	defer os.RemoveAll(dir)
	s, err := store.Dir{Path: filepath.Join(dir, "layers"), Unprivileged: true}.Open()
	if err != nil {
		log.Fatal(err)
	}
	ctx, archive := context.Background(), new(bytes.Buffer)
	layer.Pack{}.Diff(ctx, archive, "testdata/rootfs")
	id := digest.FromBytes(archive.Bytes())
	for range 2 {
		_, err := s.Add(ctx, func() (io.ReadCloser, error) {
			fmt.Println("unpacking")
			return io.NopCloser(archive), nil
		}, store.Expect{DiffID: id})
		if err != nil {
			log.Fatal(err)
		}
	}
	lease, err := s.Lease(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	defer lease.Release()
	text, _ := os.ReadFile(filepath.Join(lease.Lowers()[0], "hello"))
	fmt.Printf("%s", text)
	fmt.Println(s.Delete(ctx, id) != nil)
	// Output:
	// unpacking
	// hello from a layer
	// true
}
