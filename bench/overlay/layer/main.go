// Layer measures how fast a layer is unpacked: by caisson's overlay/layer, by umoci's library and by GNU tar, all behind the same decompressor, and how
// long it takes to find ten changed files above a tree of 100,000. All rows are measured in turns. The row "floor" only decompresses, and writes nothing.
//
//	go run ./overlay/layer                       # as root; 300 MB, about a minute
//	go run ./overlay/layer -size 1000 -rounds 5
//	go run ./overlay/layer -dir /dev/shm -ext4
//
// On ext4 it matters what has been removed before: for five minutes the kernel steps over each inode that has been free for a short time only, which
// takes longer than to unpack. So -ext4 makes a file system of its own for each unpacking, in a file in -dir.
package main

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	umoci "github.com/opencontainers/umoci/oci/layer"

	"github.com/caisson-dev/caisson/overlay/layer"
)

var (
	size   = flag.Int("size", 300, "megabytes in a layer")
	rounds = flag.Int("rounds", 3, "times that each row is measured")
	ext4   = flag.Bool("ext4", false, "unpack to a fresh ext4 on a loop device each time")
	noDiff = flag.Bool("nodiff", false, "do not measure Diff")
	kinds  = flag.String("kinds", "many small,few large", "the layers")
	comps  = flag.String("compressions", "none,gzip,zstd", "how they are compressed")
	where  = flag.String("dir", "", "the file system to unpack to; the temporary directory by default")
	tool   = flag.String("tool", "", "used by the program itself")
)

func main() {
	flag.Parse()
	var err error
	switch *tool {
	case "":
		err = measure()
	case "caisson":
		_, err = layer.Unpack{Devices: layer.MakeDevices}.Apply(context.Background(), flag.Arg(0), os.Stdin)
	case "floor":
		err = withDecompressor(func(r io.Reader) error { return errOf(io.Copy(io.Discard, r)) })
	case "umoci":
		err = withDecompressor(func(r io.Reader) error { return umoci.UnpackLayer(flag.Arg(0), r, nil) })
	case "tar":
		err = withDecompressor(func(r io.Reader) error { return runTar(flag.Arg(0), r) })
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "layer:", err)
		os.Exit(1)
	}
}

func withDecompressor(f func(io.Reader) error) error {
	d, err := layer.Decompress(os.Stdin)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.Compression == layer.Uncompressed {
		if _, err := os.Stdin.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return f(os.Stdin) // tar reads the file itself
	}
	return f(d)
}

func runTar(dir string, r io.Reader) error {
	cmd := exec.Command("tar", "--extract", "--file=-", "--directory="+dir, "--numeric-owner", "--same-permissions", "--xattrs", "--xattrs-include=*")
	cmd.Stdin, cmd.Stderr = r, os.Stderr
	return cmd.Run()
}

func errOf(_ int64, err error) error { return err }

var tools = []string{"caisson", "umoci", "tar", "floor"}

func measure() error {
	top, err := os.MkdirTemp(*where, "layer-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(top)
	fmt.Printf("%-12s %-6s %-8s %9s %9s %7s %9s\n", "layer", "comp.", "tool", "median", "MB/s", "ratio", "memory")
	if *ext4 { // mounts end with this thread
		runtime.LockOSThread()
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
			return err
		}
	}
	for kind := range strings.SplitSeq(*kinds, ",") {
		plain := filepath.Join(top, "plain")
		if err := generate(plain, kind, int64(*size)<<20); err != nil {
			return err
		}
		for _, c := range []layer.Compression{layer.Uncompressed, layer.Gzip, layer.Zstd} {
			if !slices.Contains(strings.Split(*comps, ","), c.String()) {
				continue
			}
			file := filepath.Join(top, "layer")
			if err := compress(file, c, plain); err != nil {
				return err
			}
			if err := table(kind, c, file, filepath.Join(top, "to")); err != nil {
				return err
			}
		}
	}
	if *noDiff {
		return nil
	}
	return diff(top)
}

func table(kind string, c layer.Compression, file, to string) error {
	times, memory := map[string][]time.Duration{}, map[string]int64{}
	for i := range *rounds {
		for j := range tools {
			name := tools[(i+j)%len(tools)]
			d, m, err := one(name, file, to)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			times[name], memory[name] = append(times[name], d), max(memory[name], m)
		}
	}
	ours := median(times["caisson"])
	for _, name := range tools {
		d := median(times[name])
		fmt.Printf("%-12s %-6s %-8s %8.2fs %9.0f %6.2fx %6d MB\n", kind, c, name, d.Seconds(), float64(*size)/d.Seconds(), float64(d)/float64(ours), memory[name]>>20)
	}
	return nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// one unpacks once, in a process of its own, and gives its peak memory.
func one(name, file, to string) (time.Duration, int64, error) {
	if err := errors.Join(os.RemoveAll(to), os.Mkdir(to, 0o755)); err != nil {
		return 0, 0, err
	}
	if *ext4 {
		image := to + ".ext4"
		defer os.Remove(image)
		if err := exec.Command("sh", "-ec", `truncate -s "$2"M "$0"; mkfs.ext4 -q -E lazy_itable_init=1,lazy_journal_init=1 -N 300000 "$0"; mount -o loop "$0" "$1"`,
			image, to, strconv.Itoa(*size*2+500)).Run(); err != nil {
			return 0, 0, fmt.Errorf("ext4: %w", err)
		}
		defer unix.Unmount(to, 0)
	}
	syscall.Sync()
	in, err := os.Open(file)
	if err != nil {
		return 0, 0, err
	}
	defer in.Close()
	cmd := exec.Command("/proc/self/exe", "-tool", name, to)
	cmd.Stdin, cmd.Stderr = in, os.Stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, 0, err
	}
	return time.Since(began), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10, nil
}

// generate makes a layer: sizes of small files are spread as in a file system with programs and libraries.
func generate(to, kind string, total int64) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	b := bufio.NewWriterSize(f, 1<<20)
	r := rand.New(rand.NewPCG(1, 2))
	w := tar.NewWriter(b)
	for n, i := int64(0), 0; n < total; i++ {
		name, size := fmt.Sprintf("large/%d", i), total/4
		if kind == "many small" {
			size = int64(r.ExpFloat64() * 8000)
			name = fmt.Sprintf("usr/lib/package%d/sub%d/file%d", i/200, i/20, i)
			if i%20 == 0 {
				w.WriteHeader(&tar.Header{Name: filepath.Dir(name) + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1e9, 0)})
			}
		}
		w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(1e9, 0)})
		io.Copy(w, io.LimitReader(&text{r: r}, size))
		n += size
	}
	return errors.Join(w.Close(), b.Flush())
}

// text compresses to about a half.
type text struct {
	r    *rand.Rand
	rest []byte
}

func (t *text) Read(p []byte) (int, error) {
	if len(t.rest) == 0 {
		t.rest = fmt.Appendf(t.rest, "%x the quick brown fox jumps over %d\n", t.r.Uint64(), t.r.IntN(1000))
	}
	n := copy(p, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}

// compress is made from a file, so that this process stays small: a child's peak of memory counts from before execve.
func compress(file string, c layer.Compression, plain string) error {
	in, err := os.Open(plain)
	if err != nil {
		return err
	}
	defer in.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w, err := c.Compress(f)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, in); err != nil {
		return err
	}
	return w.Close()
}

// diff measures Diff of an upper directory with ten changed files, and the comparison of whole trees that it spares.
func diff(top string) error {
	lower, upper, merged := filepath.Join(top, "lower"), filepath.Join(top, "upper"), filepath.Join(top, "merged")
	for i := range 100_000 {
		dir := filepath.Join(lower, fmt.Sprint(i/1000), fmt.Sprint(i/100))
		if i%100 == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644); err != nil {
			return err
		}
	}
	for _, dir := range []string{upper, merged, filepath.Join(top, "work")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := exec.Command("unshare", "--mount", "sh", "-ec", `mount -t overlay -o "lowerdir=$0/lower,upperdir=$0/upper,workdir=$0/work" overlay "$0/merged"
		for i in 0 11111 22222 33333 44444 55555 66666 77777 88888 99999; do echo changed > "$0/merged/$((i/1000))/$((i/100))/$i"; done`, top).Run(); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	var times []time.Duration
	var totals layer.Totals
	for range 20 {
		began := time.Now()
		var err error
		if totals, err = layer.Diff(context.Background(), io.Discard, upper); err != nil {
			return err
		}
		times = append(times, time.Since(began))
	}
	began := time.Now()
	if _, err := (layer.Pack{}).Compare(context.Background(), io.Discard, lower, lower); err != nil {
		return err
	}
	fmt.Printf("diff of %d changed files above 100,000: %.2f ms; comparing two trees of 100,000: %.0f ms\n", totals.Files, median(times).Seconds()*1e3, time.Since(began).Seconds()*1e3)
	return nil
}
