//go:build linux

package seccomp

import (
	"fmt"
	"math"
	"strings"
)

// Op is how a condition compares. Numbers are compared without sign. The zero value is Equal.
type Op uint8

// The operators.
const (
	Equal        Op = iota // ==
	NotEqual               // !=
	Less                   // <
	LessEqual              // <=
	Greater                // >
	GreaterEqual           // >=
	MaskedEqual            // argument & Mask == Value
	MaskedNot              // argument & Mask != Value
	Within                 // Value <= argument <= High
	Outside                // argument < Value, or argument > High

	ops = int(Outside) + 1
)

var opNames = [ops]string{"==", "!=", "<", "<=", ">", ">=", "&==", "&!=", "in", "not in"}

// Width is how much of an argument a condition looks at.
//
// The kernel hands filters 64 bits of every argument, but a call whose argument is an int reads the lower 32 alone: for
// ioctl(2), the requests TIOCSTI and TIOCSTI + 2^32 are the same. A filter that compares all 64 bits lets the second one
// pass (CVE-2019-10063). Where a register of the architecture has 32 bits the upper half is not read either; on x86-64 it may hold
// anything when the call is made by int 0x80.
type Width uint8

// The widths.
const (
	// ByType looks at what the kernel reads: 16 bits of a mode, 32 of an int, a descriptor or an id, 64 of a long or a pointer, and never
	// more than the architecture has.
	ByType Width = iota
	// Low32 looks at the lower 32 bits, whatever the type.
	Low32
	// Full64 looks at all 64 bits as they are in the register, whatever the type. A call whose int has something in the upper half goes past
	// it: use it for conditions that allow, not for those that forbid.
	Full64
	// Libseccomp looks at 64 bits on 64-bit architectures, and at the lower 32 of argument and value on others, x32 among them.
	// This is what OCI profiles mean.
	Libseccomp

	widths = int(Libseccomp) + 1
)

// Condition is a comparison of one argument of a call. It is best made by [Arg] and its methods.
type Condition struct {
	Arg   int    // 0 to 5
	Op    Op     // how it is compared
	Value uint64 // with what
	Mask  uint64 // of MaskedEqual and MaskedNot
	High  uint64 // of Within and Outside: the upper bound
	Width Width  // ByType is what most should have
}

// All are conditions that must all hold.
type All []Condition

// Any are alternatives: one of them must hold. Nil holds always.
type Any []All

// Argument is an argument of a call, counted from 0: its methods make conditions.
type Argument int

// Arg is the argument n of a call, counted from 0.
func Arg(n int) Argument { return Argument(n) }

func (a Argument) is(op Op, v uint64) Condition { return Condition{Arg: int(a), Op: op, Value: v} }

// Equal is argument == v. For a negative int give its 32 bits: uint64(uint32(v)).
func (a Argument) Equal(v uint64) Condition { return a.is(Equal, v) }

// NotEqual is argument != v.
func (a Argument) NotEqual(v uint64) Condition { return a.is(NotEqual, v) }

// Less is argument < v.
func (a Argument) Less(v uint64) Condition { return a.is(Less, v) }

// LessEqual is argument <= v.
func (a Argument) LessEqual(v uint64) Condition { return a.is(LessEqual, v) }

// Greater is argument > v.
func (a Argument) Greater(v uint64) Condition { return a.is(Greater, v) }

// GreaterEqual is argument >= v.
func (a Argument) GreaterEqual(v uint64) Condition { return a.is(GreaterEqual, v) }

// Masked is argument & mask == v.
func (a Argument) Masked(mask, v uint64) Condition {
	return Condition{Arg: int(a), Op: MaskedEqual, Mask: mask, Value: v}
}

// MaskedNot is argument & mask != v.
func (a Argument) MaskedNot(mask, v uint64) Condition {
	return Condition{Arg: int(a), Op: MaskedNot, Mask: mask, Value: v}
}

// HasAny is argument & bits != 0.
func (a Argument) HasAny(bits uint64) Condition { return a.MaskedNot(bits, 0) }

// HasNone is argument & bits == 0.
func (a Argument) HasNone(bits uint64) Condition { return a.Masked(bits, 0) }

// Within is low <= argument <= high.
func (a Argument) Within(low, high uint64) Condition {
	return Condition{Arg: int(a), Op: Within, Value: low, High: high}
}

// Outside is argument < low, or argument > high.
func (a Argument) Outside(low, high uint64) Condition {
	return Condition{Arg: int(a), Op: Outside, Value: low, High: high}
}

// In is one alternative for each value.
func (a Argument) In(values ...uint64) Any {
	alternatives := make(Any, len(values))
	for i, v := range values {
		alternatives[i] = All{a.Equal(v)}
	}
	return alternatives
}

// As gives the condition with another width.
func (c Condition) As(w Width) Condition {
	c.Width = w
	return c
}

// String prints the condition: "arg1 == 0x5412", "arg0 & 0x7e020000 == 0".
func (c Condition) String() string {
	left := fmt.Sprintf("arg%d", c.Arg)
	switch c.Width {
	case Low32:
		left = "low32(" + left + ")"
	case Full64:
		left = "full64(" + left + ")"
	}
	switch c.Op {
	case MaskedEqual:
		return fmt.Sprintf("%s & %#x == %#x", left, c.Mask, c.Value)
	case MaskedNot:
		return fmt.Sprintf("%s & %#x != %#x", left, c.Mask, c.Value)
	case Within, Outside:
		return fmt.Sprintf("%s %s %#x..%#x", left, opNames[c.Op], c.Value, c.High)
	}
	if int(c.Op) >= ops {
		return fmt.Sprintf("%s op %d %#x", left, c.Op, c.Value)
	}
	return fmt.Sprintf("%s %s %#x", left, opNames[c.Op], c.Value)
}

// String joins the conditions by "and"; no condition is "always".
func (l All) String() string {
	if len(l) == 0 {
		return "always"
	}
	words := make([]string, len(l))
	for i, c := range l {
		words[i] = c.String()
	}
	return strings.Join(words, " and ")
}

// String joins the alternatives by "or".
func (l Any) String() string {
	if l == nil {
		return "always"
	}
	words := make([]string, len(l))
	for i, c := range l {
		words[i] = c.String()
	}
	return strings.Join(words, " or ")
}

// check finds what is wrong with the condition whatever call it is for.
func (c Condition) check() error {
	switch {
	case c.Arg < 0 || c.Arg > 5:
		return &ConditionError{Condition: c, Text: "a system call has the arguments 0 to 5"}
	case int(c.Op) >= ops:
		return &ConditionError{Condition: c, Text: "there is no such operator"}
	case int(c.Width) >= widths:
		return &ConditionError{Condition: c, Text: "there is no such width"}
	case (c.Op == Within || c.Op == Outside) && c.Value > c.High:
		return &ConditionError{Condition: c, Text: "the bounds are the wrong way round"}
	case c.Op != Within && c.Op != Outside && c.High != 0:
		return &ConditionError{Condition: c, Text: "only Within and Outside have an upper bound"}
	case c.Op != MaskedEqual && c.Op != MaskedNot && c.Mask != 0:
		return &ConditionError{Condition: c, Text: "only MaskedEqual and MaskedNot have a mask"}
	case (c.Op == MaskedEqual || c.Op == MaskedNot) && c.Width != Libseccomp && c.Value&^c.Mask != 0:
		return &ConditionError{Condition: c, Text: "the value has bits outside the mask: it is never met"}
	case c.Width == Low32 && c.largest() > math.MaxUint32:
		return &ConditionError{Condition: c, Text: "the value does not fit into 32 bits"}
	}
	return nil
}

// largest is the highest number in the condition.
func (c Condition) largest() uint64 { return max(c.Value, c.Mask, c.High) }

// fits finds a value that the argument can never have, because the call reads fewer bits in every architecture.
func (c Condition) fits(k *call) error {
	if c.Width != ByType || c.Arg >= len(k.args) || k.name == "clone" {
		return nil
	}
	switch n := c.largest(); {
	case k.args[c.Arg] == 'i' && n > math.MaxUint32:
		return &ConditionError{Call: k.name, Condition: c, Text: "the argument is an int, and the value does not fit into 32 bits"}
	case k.args[c.Arg] == 'h' && n > math.MaxUint16:
		return &ConditionError{Call: k.name, Condition: c, Text: "the argument is a mode of 16 bits, and the value does not fit"}
	}
	return nil
}
