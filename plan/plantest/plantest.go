//go:build linux

// Package plantest tests that a primitive keeps the contract of package plan, as testing/fstest does for file systems.
package plantest

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caisson-dev/caisson/plan"
)

// Check applies the primitive to fresh plans and reports to t what breaks the contract:
//
//   - applied twice, it records the same;
//   - Apply changes nothing: no descriptor, no environment variable, no working directory, and not the primitive itself;
//   - an error is a [*plan.Error] that names the primitive, and the same each time;
//   - every step has a text without line breaks, and the last one is the command;
//   - the plan for a further command in the running sandbox can be made as well.
//
// The parts with are applied before the primitive, where it needs others.
func Check(t testing.TB, primitive plan.Primitive, with ...plan.Primitive) {
	t.Helper()
	parts := append(slices.Clone(with), primitive)
	before, printed := world(), dump(primitive)
	first, second := plan.Build(parts...), plan.Build(parts...)
	if after := world(); !slices.Equal(before, after) {
		t.Errorf("%T: Apply changed the process:\nbefore %v\nafter  %v", primitive, before, after)
	}
	if after := dump(primitive); after != printed {
		t.Errorf("%T: Apply changed the primitive", primitive)
	}
	if a, b := first.String(), second.String(); a != b {
		t.Errorf("%T: two plans differ:\n%s\n%s", primitive, a, b)
	}
	if first.Err() != nil {
		checkError(t, primitive, first.Err())
		return
	}
	checkSteps(t, primitive, first)
	if again := first.Again(); again.Err() != nil {
		t.Errorf("%T: no plan for a further command: %v", primitive, again.Err())
	}
}

func checkError(t testing.TB, primitive plan.Primitive, err error) {
	t.Helper()
	e, ok := err.(*plan.Error)
	if !ok {
		t.Errorf("%T: the error is a %T, not a *plan.Error", primitive, err)
		return
	}
	if e.Primitive == "" || e.Err == nil {
		t.Errorf("%T: the error names no primitive or no cause: %v", primitive, err)
	}
}

func checkSteps(t testing.TB, primitive plan.Primitive, p *plan.Plan) {
	t.Helper()
	steps := p.Steps(nil)
	for i, s := range steps {
		if text := s.String(); text == "" || strings.ContainsAny(text, "\n\r") {
			t.Errorf("%T: step %d cannot be printed on one line: %q", primitive, i+1, text)
		}
		if s.Primitive == "" {
			t.Errorf("%T: step %d belongs to nobody", primitive, i+1)
		}
	}
	if last := steps[len(steps)-1]; last.Kind != plan.StepExec {
		t.Errorf("%T: the last step is %v", primitive, last)
	}
}

// world is what Apply may not change.
func world() []string {
	state := os.Environ()
	if wd, err := os.Getwd(); err == nil {
		state = append(state, wd)
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			state = append(state, fd.Name()+" "+target)
		}
	}
	slices.Sort(state)
	return state
}

// dump prints a value and what it points at, as far as a difference in it would show.
func dump(v any) string {
	var b strings.Builder
	walk(&b, reflect.ValueOf(v), 0)
	return b.String()
}

func walk(b *strings.Builder, v reflect.Value, depth int) {
	if depth > 8 || !v.IsValid() {
		return
	}
	b.WriteString(v.Kind().String() + " ")
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		walk(b, v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			walk(b, v.Field(i), depth+1)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			walk(b, v.Index(i), depth+1)
		}
	case reflect.String:
		b.WriteString(v.String())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Bool, reflect.Uint, reflect.Uint8,
		reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr, reflect.Float64:
		b.WriteString(v.String() + number(v))
	}
}

func number(v reflect.Value) string {
	switch {
	case v.CanInt():
		return plan.Int(int(v.Int())).String()
	case v.CanUint():
		return plan.Number(v.Uint(), "").String()
	case v.CanFloat():
		return plan.Int(int(v.Float() * 1e6)).String()
	case v.Bool():
		return "true"
	}
	return "false"
}
