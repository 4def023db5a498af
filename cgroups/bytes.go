//go:build linux

package cgroups

import (
	"bytes"
	"math"
)

// parseInt reads a number with a line break after it, without an allocation.
func parseInt(b []byte) (n int64, ok bool) {
	if len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxInt64-int64(c-'0'))/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, len(b) > 0
}

// fieldBytes finds a number by its key in lines of "key number".
func fieldBytes(b []byte, key string) (int64, bool) {
	for len(b) > 0 {
		line := cutLine(&b)
		if len(line) > len(key) && line[len(key)] == ' ' && string(line[:len(key)]) == key {
			return parseInt(line[len(key)+1:])
		}
	}
	return 0, false
}

func cutLine(b *[]byte) []byte {
	line, rest, _ := bytes.Cut(*b, []byte{'\n'})
	*b = rest
	return line
}

func cutWord(b *[]byte) []byte {
	word, rest, _ := bytes.Cut(*b, []byte{' '})
	*b = rest
	return word
}
