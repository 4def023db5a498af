package layer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// A tree becomes a compressed layer, and the layer another tree.
func Example() {
	from, _ := os.MkdirTemp("", "from")
	to, _ := os.MkdirTemp("", "to")
	defer os.RemoveAll(from)
	defer os.RemoveAll(to)
	os.WriteFile(filepath.Join(from, "hello"), []byte("hello"), 0o644)

	var packed bytes.Buffer
	totals, err := layer.Pack{Compression: layer.Zstd}.Diff(context.Background(), &packed, from)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(totals.Files, "file,", totals.Bytes, "bytes")
	if _, err := layer.Apply(context.Background(), to, &packed); err != nil {
		log.Fatal(err)
	}
	text, _ := os.ReadFile(filepath.Join(to, "hello"))
	fmt.Printf("%s\n", text)
	// Output:
	// 1 file, 5 bytes
	// hello
}

// What no honest layer has is refused, and the error says what and where.
func ExampleRefusedError() {
	to, _ := os.MkdirTemp("", "to")
	defer os.RemoveAll(to)
	_, err := layer.Apply(context.Background(), to, bytes.NewReader(hostileLayer()))
	var refused *layer.RefusedError
	if errors.As(err, &refused) && refused.Why == layer.IsDotDot {
		fmt.Println(err)
	}
	// Output: apply "../../etc/passwd": refused: ".." in a name
}

// An ordinary user unpacks a layer as a lower directory of an overlay mount with userxattr.
func ExampleUnpack() {
	to, _ := os.MkdirTemp("", "to")
	defer os.RemoveAll(to)
	u := layer.Unpack{
		Form:         layer.UserOverlay,
		Unprivileged: true,
		Limits:       layer.Limits{Bytes: 10 << 30},
	}
	totals, err := u.Apply(context.Background(), to, bytes.NewReader(debianLayer()))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(totals.Entries, "entries,", totals.Whiteouts, "whiteout,", totals.Skipped, "left out")
	// Output: 3 entries, 1 whiteout, 1 left out
}
