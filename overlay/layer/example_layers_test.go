package layer_test

import (
	"archive/tar"
	"bytes"
)

// layers of the examples.
func hostileLayer() []byte {
	return written(tar.Header{Name: "../../etc/passwd", Typeflag: tar.TypeReg})
}

func debianLayer() []byte {
	return written(tar.Header{Name: "dev/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3, Mode: 0o666},
		tar.Header{Name: ".wh.tmp", Typeflag: tar.TypeReg})
}

func written(headers ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		w.WriteHeader(&h)
	}
	w.Close()
	return b.Bytes()
}
