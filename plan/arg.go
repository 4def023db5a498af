//go:build linux

package plan

import (
	"strconv"
	"strings"
)

// Arg is one argument of an [Op]. It is made by Int, Flags, Str and the like; the zero value is the number 0.
type Arg struct {
	kind   kind
	n      uint64
	text   string
	data   []byte
	strs   []string
	fields []Field
}

type kind uint8

const (
	kindInt kind = iota
	kindNull
	kindStr
	kindStrs
	kindData
	kindBuf
	kindFile
	kindSaved
	kindAnswer
)

// Field is a place inside a [Struct] that is filled in when the plan is started: with the number of a descriptor, or
// with the address of further data.
type Field struct {
	Offset int // bytes from the start of the structure
	Size   int // 4 or 8 bytes; 0 is the size of a pointer
	Arg    Arg // FD, Str, Strs, Bytes or Struct
}

// Null is the null pointer.
func Null() Arg { return Arg{kind: kindNull, text: "NULL"} }

// Int is a number, printed in decimal.
func Int(n int) Arg { return Arg{n: uint64(n), text: strconv.Itoa(n)} }

// Number is a number that is printed as text, the name of a constant.
func Number(n uint64, text string) Arg { return Arg{n: n, text: text} }

// Octal is a file mode, printed in octal.
func Octal(n uint32) Arg { return Arg{n: uint64(n), text: "0" + strconv.FormatUint(uint64(n), 8)} }

// Flag is one bit, or several, with a name.
type Flag struct {
	Bits uint64
	Name string
}

// Flags is a set of bits, printed by the names of those of table that are set, in the order of the table. Bits without
// a name are printed in hexadecimal.
func Flags(n uint64, table []Flag) Arg { return Arg{n: n, text: FlagText(n, table)} }

// FlagText gives the names of the bits of n, as [Flags] prints them.
func FlagText(n uint64, table []Flag) string {
	var names []string
	rest := n
	for _, f := range table {
		if f.Bits != 0 && n&f.Bits == f.Bits && rest&f.Bits != 0 {
			names, rest = append(names, f.Name), rest&^f.Bits
		}
	}
	if rest != 0 || len(names) == 0 {
		names = append(names, hex(rest))
	}
	return strings.Join(names, "|")
}

func hex(n uint64) string {
	if n == 0 {
		return "0"
	}
	return "0x" + strconv.FormatUint(n, 16)
}

// Namespaces is a set of CLONE_NEW... flags, printed by name.
func Namespaces(flags uint64) Arg { return Flags(flags, cloneFlags) }

// Str is the address of a string that ends with a NUL byte. A NUL inside s is an error when the plan is finished.
func Str(s string) Arg { return Arg{kind: kindStr, text: s} }

// Strs is the address of an array of strings that ends with a null pointer, as argv.
func Strs(s ...string) Arg { return Arg{kind: kindStrs, strs: s} }

// Bytes is the address of b, which is printed as text and must not change afterwards. The child does not write to it;
// what the kernel writes to goes into a [Buffer].
func Bytes(text string, b []byte) Arg { return Arg{kind: kindData, text: text, data: b} }

// Struct is the address of a copy of b in which the fields have been filled in, printed as text.
func Struct(text string, b []byte, fields ...Field) Arg {
	return Arg{kind: kindData, text: text, data: b, fields: fields}
}

// Buffer is the address of n zero bytes of the child's own, for a result that nobody reads.
func Buffer(n int) Arg {
	return Arg{kind: kindBuf, n: uint64(n), text: "[" + strconv.Itoa(n) + " bytes]"}
}

// Slot holds the result of one call for later calls of the same start.
type Slot struct{ n int }

// Saved is the result that an earlier call has saved: most often a descriptor.
func Saved(s Slot) Arg { return Arg{kind: kindSaved, n: uint64(s.n), text: "$" + strconv.Itoa(s.n)} }

// File stands for a descriptor that the parent opens for each start; see [Plan.Open].
type File struct {
	n    int
	name string
}

// FD is the number of a descriptor of the parent's that the child has too.
func FD(f File) Arg { return Arg{kind: kindFile, n: uint64(f.n), text: "<" + f.name + ">"} }

// String prints the argument as strace does.
func (a Arg) String() string {
	switch a.kind {
	case kindStr:
		return quote(a.text)
	case kindStrs:
		return vector(a.strs)
	case kindInt:
		if a.text == "" {
			return strconv.FormatUint(a.n, 10)
		}
	}
	return a.text
}

func quote(s string) string {
	return strconv.Quote(s)
}

func vector(s []string) string {
	q := make([]string, len(s))
	for i := range s {
		q[i] = quote(s[i])
	}
	return "[" + strings.Join(q, ", ") + "]"
}
