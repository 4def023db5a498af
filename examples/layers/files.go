//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// base is a shell with its libraries.
func base(_ *builder, dir string) error {
	if err := errors.Join(os.MkdirAll(place(dir, "etc"), 0o755), os.WriteFile(place(dir, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\n"), 0o644)); err != nil {
		return err
	}
	return executable(dir, "/bin/sh")
}

// python is the host's, with its standard library.
func python(b *builder, dir string) error {
	out, err := exec.Command("python3", "-ISc", "import os, sys, sysconfig; print(os.path.realpath(sys.executable)); print(sysconfig.get_path('stdlib'))").Output()
	words := strings.Fields(string(out))
	if err != nil || len(words) != 2 {
		return fmt.Errorf("python3 does not say where it is: %w", errors.Join(err, fs.ErrNotExist))
	}
	b.python = words[0]
	if err := executable(dir, words[0]); err != nil {
		return err
	}
	return library(dir, words[1])
}

// library copies the modules of the standard library.
func library(dir, name string) error {
	return filepath.WalkDir(name, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"__pycache__", "test", "idlelib", "lib2to3", "ensurepip", "site-packages", "dist-packages"}, d.Name()) {
			return fs.SkipDir
		}
		if d.Type().IsRegular() && filepath.Ext(file) == ".py" || filepath.Ext(file) == ".so" {
			return copyFile(dir, file)
		}
		return nil
	})
}

// executable copies a program and what ldd(1) says that it needs.
func executable(dir, name string) error {
	out, err := exec.Command("ldd", name).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", name, err)
	}
	files := []string{name}
	for _, word := range strings.Fields(string(out)) {
		if filepath.IsAbs(word) {
			files = append(files, word)
		}
	}
	for _, f := range files {
		if err := copyFile(dir, f); err != nil {
			return err
		}
	}
	return nil
}

// copyFile puts a file of the host's into a layer, under its own name.
func copyFile(dir, name string) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(place(dir, filepath.Dir(name)), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(place(dir, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, st.Mode().Perm())
	if err != nil {
		return err
	}
	defer out.Close()
	_, err = io.Copy(out, in)
	return err
}

// libraries are 24 modules with a megabyte of compiled code each, as it were.
func libraries(_ *builder, dir string) error {
	r := rand.NewChaCha8([32]byte{1})
	for i := range 24 {
		if err := generate(place(dir, fmt.Sprintf("opt/libraries/module%02d.so", i)), "", 1<<20, r); err != nil {
			return err
		}
	}
	return nil
}

// parts is how many files a model has.
const parts = 8

// weights are a model: numbers that no compression makes smaller.
func weights(size int64) func(*builder, string) error {
	return func(_ *builder, dir string) error { return model(dir, size, parts, "") }
}

// tuned is the model with another last file.
func tuned(size int64) func(*builder, string) error {
	return func(_ *builder, dir string) error {
		return errors.Join(model(dir, size, parts, ""), model(dir, size, 0, "tuned"))
	}
}

// onlyTuned is that file alone.
func onlyTuned(size int64) func(*builder, string) error {
	return func(_ *builder, dir string) error { return model(dir, size, 0, "tuned") }
}

// model writes the first files of a model, or, if it is tuned, the last.
func model(dir string, size int64, n int, word string) error {
	if word != "" {
		return generate(place(dir, fmt.Sprintf("model/part%d", parts-1)), word, size/parts, rand.NewChaCha8([32]byte{9}))
	}
	for i := range n {
		if err := generate(place(dir, fmt.Sprintf("model/part%d", i)), "", size/parts, rand.NewChaCha8([32]byte{2, byte(i)})); err != nil {
			return err
		}
	}
	return nil
}

// generate writes a file that begins with a word.
func generate(name, word string, size int64, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, io.LimitReader(io.MultiReader(bytes.NewBufferString(word), r), size))
	return err
}
