//go:build linux

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/caisson-dev/caisson/overlay/layer"
)

// Dir is where a store is, and how layers are unpacked into it.
type Dir struct {
	Path string // made with mode 0700 where it is missing

	// Unprivileged is for an ordinary user, as in layer.Unpack: the lower directories are for mounts with userxattr, and belong to the caller. A store is one or the other for ever.
	Unprivileged bool

	// Devices and Limits are those of layer.Unpack, for each layer.
	Devices layer.Devices
	Limits  layer.Limits

	// Verifiable has each layer read once more when it has been unpacked, so that Verify can tell later whether it still is what it was.
	Verifiable bool

	// Progress is called now and then, by one goroutine at a time; nil is nobody. What unpacks waits for it.
	Progress func(Progress)
}

// Progress is how far one layer is.
type Progress struct {
	DiffID     digest.Digest // "" while it is unknown
	Read, Size int64         // bytes of the layer as it comes, compressed or not; Size is 0 where it is unknown
	Known      bool          // it was there already, and has not been read
	Done       bool
	Totals     layer.Totals
}

// Layer is one that is in the store.
type Layer struct {
	DiffID digest.Digest // of its uncompressed archive
	Bytes  int64         // on disk
	Totals layer.Totals  // of the unpacking
	Tree   digest.Digest `json:",omitempty"` // of what it was like when unpacked, where Dir.Verifiable was set
}

// Store is a directory with layers and images. It may be used by several goroutines and processes at once.
type Store struct {
	Dir
	form layer.Form
	mu   sync.Mutex // of Progress
}

// The directories of a store.
const (
	layersDir = "layers" // by DiffID, complete
	tmpDir    = "tmp"    // what is being made or removed; NAME.lock is held by who does it
	leasesDir = "leases" // each held by its process
	imagesDir = "images"
	locksDir  = "locks" // of layers that are being unpacked
	lockFile  = "lock"  // shared by who adds to the store, exclusive for who removes
	formFile  = "form"
	treeDir   = "diff" // of a layer: the lower directory
	infoFile  = "layer.json"
)

// Open opens the store, and makes it where it is missing. There is nothing to close.
func (d Dir) Open() (*Store, error) {
	if d.Path == "" || d.Devices > layer.MakeDevices {
		return nil, fail("open", d.Path, syscall.EINVAL)
	}
	path, err := filepath.Abs(d.Path)
	if err != nil {
		return nil, fail("open", d.Path, err)
	}
	d.Path = path
	s := &Store{Dir: d, form: layer.Overlay}
	if d.Unprivileged {
		s.form = layer.UserOverlay
	}
	return s, fail("open", d.Path, s.make())
}

func (s *Store) make() error {
	if err := os.Mkdir(s.Path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := os.Stat(s.Path)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return syscall.ENOTDIR
	}
	// Programs of images are set-user-ID, and of users that the host has, too.
	if st.Mode().Perm()&0o077 != 0 || int(st.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		return fmt.Errorf("the directory must belong to the caller and be closed to others (mode 0700): %w", syscall.EPERM)
	}
	for _, name := range []string{layersDir, tmpDir, leasesDir, imagesDir, locksDir} {
		if err := os.Mkdir(s.at(name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return s.checkForm()
}

// checkForm writes down for which mounts the layers are, once.
func (s *Store) checkForm() error {
	f, err := os.OpenFile(s.at(formFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil { // held for a moment only
		return err
	}
	b := make([]byte, 100)
	n, _ := f.Read(b)
	switch found := string(b[:n]); found {
	case "":
		_, err = f.WriteString(s.form.String())
		return errors.Join(err, f.Sync())
	case s.form.String():
		return nil
	default:
		return malformed("the store has layers of the form %q, not %q", found, s.form)
	}
}

func (s *Store) at(words ...string) string {
	return filepath.Join(append([]string{s.Path}, words...)...)
}

// layerDir gives the place of a layer. Only sha256 is taken: what is as long as it should be and hexadecimal is no path.
func (s *Store) layerDir(id digest.Digest) (string, error) {
	if err := checkDigest(id); err != nil {
		return "", err
	}
	return s.at(layersDir, id.Encoded()), nil
}

func checkDigest(id digest.Digest) error {
	if err := id.Validate(); err != nil || id.Algorithm() != digest.SHA256 {
		return malformed("%.100q is no sha256 digest", string(id))
	}
	return nil
}

// Layer gives what is known of a layer; a [*MissingError] where it is not there.
func (s *Store) Layer(id digest.Digest) (Layer, error) {
	l, err := s.layer(id)
	return l, fail("find", string(id), err)
}

func (s *Store) layer(id digest.Digest) (l Layer, err error) {
	dir, err := s.layerDir(id)
	if err != nil {
		return l, err
	}
	b, err := os.ReadFile(filepath.Join(dir, infoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return l, &MissingError{string(id)}
	}
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(b, &l); err != nil || l.DiffID != id {
		return l, malformed("%s of layer %s is damaged", infoFile, id)
	}
	return l, nil
}

// Layers gives all layers, in the order of their digests.
func (s *Store) Layers() ([]Layer, error) {
	entries, err := os.ReadDir(s.at(layersDir))
	if err != nil {
		return nil, fail("list", "", err)
	}
	var list []Layer
	for _, e := range entries {
		l, err := s.layer(digest.NewDigestFromEncoded(digest.SHA256, e.Name()))
		var missing *MissingError
		if errors.As(err, &missing) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fail("list", e.Name(), err)
		}
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b Layer) int { return strings.Compare(string(a.DiffID), string(b.DiffID)) })
	return list, nil
}

func (s *Store) report(p Progress) {
	if s.Progress == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Progress(p)
}
