//go:build linux

package store

import (
	"encoding/json"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// readLayout reads an OCI layout.
func readLayout(src source) ([]wanted, error) {
	var layout v1.ImageLayout
	if err := parse(src, v1.ImageLayoutFile, &layout); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(layout.Version, "1.") {
		return nil, malformed("version %.20q of OCI layouts is unknown", layout.Version)
	}
	var index v1.Index
	if err := parse(src, v1.ImageIndexFile, &index); err != nil {
		return nil, err
	}
	var list []wanted
	left := maxImages
	for _, d := range index.Manifests {
		w, err := readDescriptor(src, d, 0, &left)
		if err != nil {
			return nil, err
		}
		if w != nil {
			list = append(list, *w)
		}
	}
	if len(list) == 0 {
		return nil, malformed("no image for linux/%s in the layout", runtime.GOARCH)
	}
	return list, nil
}

func parse(src source, name string, v any) error {
	b, err := text(src, name)
	if err == nil {
		err = decode(name, b, v)
	}
	return err
}

func decode(name string, b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return malformed("%.100q cannot be read: %v", name, err)
	}
	return nil
}

// blob reads a small blob and verifies it.
func blob(src source, d v1.Descriptor) ([]byte, error) {
	if err := checkDigest(d.Digest); err != nil {
		return nil, err
	}
	b, err := text(src, blobName(d.Digest))
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(b); got != d.Digest {
		return nil, &MismatchError{"blob", string(d.Digest), string(got)}
	}
	if int64(len(b)) != d.Size {
		return nil, &MismatchError{"size", sizeText(d.Size), sizeText(int64(len(b)))}
	}
	return b, nil
}

func blobName(id digest.Digest) string { return "blobs/sha256/" + id.Encoded() }

// The media types that docker uses for what are the OCI's.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	refName        = "org.opencontainers.image.ref.name"
	containerdName = "io.containerd.image.name"
)

// readDescriptor reads an image, or finds it in an index of platforms. What is for another platform, or no image, gives nil.
//
// What is left counts down over all indexes: one that names another a thousand times, which does so, too, would take for ever.
func readDescriptor(src source, d v1.Descriptor, nested int, left *int) (*wanted, error) {
	if *left--; *left < 0 {
		return nil, malformed("more than %d images", maxImages)
	}
	if d.Platform != nil && (d.Platform.OS != "linux" || d.Platform.Architecture != runtime.GOARCH) {
		return nil, nil
	}
	switch d.MediaType {
	case v1.MediaTypeImageManifest, dockerManifest:
		return readManifest(src, d)
	case v1.MediaTypeImageIndex, dockerList:
	default:
		return nil, nil
	}
	if nested >= maxNested {
		return nil, malformed("more than %d indexes in indexes", maxNested)
	}
	b, err := blob(src, d)
	if err != nil {
		return nil, err
	}
	var index v1.Index
	if err := decode(string(d.Digest), b, &index); err != nil {
		return nil, err
	}
	for _, sub := range index.Manifests {
		w, err := readDescriptor(src, sub, nested+1, left)
		if err != nil {
			return nil, err
		}
		if w != nil {
			w.image.Name = imageName(d, w.image.Name)
			return w, nil
		}
	}
	return nil, nil
}

func imageName(d v1.Descriptor, otherwise string) string {
	for _, key := range []string{containerdName, refName} {
		if name := d.Annotations[key]; name != "" {
			return name
		}
	}
	return otherwise
}

func readManifest(src source, d v1.Descriptor) (*wanted, error) {
	b, err := blob(src, d)
	if err != nil {
		return nil, err
	}
	var m v1.Manifest
	if err := decode(string(d.Digest), b, &m); err != nil {
		return nil, err
	}
	if b, err = blob(src, m.Config); err != nil {
		return nil, err
	}
	w, err := readConfig(b, len(m.Layers))
	if err != nil {
		return nil, err
	}
	w.image.Name = imageName(d, string(d.Digest))
	for i, l := range m.Layers {
		if err := checkDigest(l.Digest); err != nil {
			return nil, err
		}
		if l.Size <= 0 {
			return nil, malformed("layer %s has %d bytes", l.Digest, l.Size)
		}
		w.blobs = append(w.blobs, blobName(l.Digest))
		w.expect[i].Digest, w.expect[i].Size = l.Digest, l.Size
	}
	return w, nil
}

// readConfig reads a configuration, which says what the layers must be.
func readConfig(b []byte, layers int) (*wanted, error) {
	w := &wanted{}
	if err := decode("the configuration", b, &w.image.Config); err != nil {
		return nil, err
	}
	ids := w.image.Config.RootFS.DiffIDs
	if len(ids) != layers || layers > maxLayers {
		return nil, malformed("%d layers, and %d in the configuration", layers, len(ids))
	}
	if os := w.image.Config.OS; os != "" && os != "linux" {
		return nil, malformed("an image for %.20q", os)
	}
	for _, id := range ids {
		if err := checkDigest(id); err != nil {
			return nil, err
		}
		w.expect = append(w.expect, Expect{DiffID: id})
	}
	w.image.Layers = ids
	return w, nil
}

// dockerImage is an entry of manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// readDocker reads an archive of docker save.
func readDocker(src source) ([]wanted, error) {
	var images []dockerImage
	if err := parse(src, "manifest.json", &images); err != nil {
		return nil, err
	}
	var list []wanted
	for _, i := range images {
		b, err := text(src, i.Config)
		if err != nil {
			return nil, err
		}
		w, err := readConfig(b, len(i.Layers))
		if err != nil {
			return nil, err
		}
		w.blobs = i.Layers
		names := i.RepoTags
		if len(names) == 0 {
			names = []string{string(digest.FromBytes(b))}
		}
		if len(list)+len(names) > maxImages {
			return nil, malformed("more than %d images", maxImages)
		}
		for _, name := range names {
			tagged := *w
			tagged.image.Name = name
			list = append(list, tagged)
		}
	}
	if len(list) == 0 {
		return nil, malformed("no image in the archive")
	}
	return list, nil
}
