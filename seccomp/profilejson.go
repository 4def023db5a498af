//go:build linux

package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// FieldError says what is wrong in a profile, and where. It unwraps to Err.
type FieldError struct {
	Line  int    // counted from 1; 0 where the profile was not read from text
	Field string // "syscalls[3].args[0].op"; "" where it cannot be told
	Err   error
}

// Error gives line, field and reason.
func (e *FieldError) Error() string {
	text := ""
	if e.Line > 0 {
		text = fmt.Sprintf("line %d: ", e.Line)
	}
	if e.Field != "" {
		text += e.Field + ": "
	}
	return text + e.Err.Error()
}

// Unwrap gives Err.
func (e *FieldError) Unwrap() error { return e.Err }

// ParseProfile reads a profile, and finds what is wrong in it whatever the target is. The error is a [*FieldError] with line and field. Fields
// that are not known are passed over, as Docker does.
func ParseProfile(text []byte) (*Profile, error) {
	p := new(Profile)
	if err := json.Unmarshal(text, p); err != nil {
		return nil, syntaxError(text, err)
	}
	if err := p.check(); err != nil {
		var e *FieldError
		if errors.As(err, &e) {
			e.Line = lineOf(text, e.Field)
		}
		return nil, err
	}
	return p, nil
}

// syntaxError adds the line.
func syntaxError(text []byte, err error) error {
	e := &FieldError{Err: invalid(err.Error())}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		e.Line = lineAt(text, syntax.Offset-1) // it is behind the bad byte
	case errors.As(err, &kind):
		e.Line, e.Field = lineAt(text, kind.Offset), kind.Field
		e.Err = invalid(fmt.Sprintf("%s does not fit here", kind.Value))
	}
	return e
}

func lineAt(text []byte, offset int64) int {
	return 1 + bytes.Count(text[:min(max(offset, 0), int64(len(text)))], []byte("\n"))
}

// check looks at all rules, also at those that would not count here.
func (p *Profile) check() error {
	if _, err := profileAction(p.DefaultAction, p.DefaultErrnoRet); err != nil {
		return &FieldError{Field: "defaultAction", Err: err}
	}
	if _, err := p.arches(X86_64); err != nil {
		return err
	}
	for i, f := range p.Flags {
		if _, err := ParseFlags(f); err != nil {
			return &FieldError{Field: fmt.Sprintf("flags[%d]", i), Err: err}
		}
	}
	for i, r := range p.Syscalls {
		if err := r.check(); err != nil {
			err.Field = fmt.Sprintf("syscalls[%d]%s", i, err.Field)
			return err
		}
	}
	return nil
}

func (r *ProfileRule) check() *FieldError {
	if _, err := r.rule(Target{}, 0); err != nil {
		return err
	}
	if _, err := r.when(); err != nil {
		return err
	}
	_, err := r.counts(Target{})
	return err
}

// lineOf finds the line on which a field begins, or the nearest that the text has of what it lies in.
func lineOf(text []byte, field string) int {
	f := finder{d: json.NewDecoder(bytes.NewReader(text)), want: field, best: -1}
	f.value("")
	return lineAt(text, f.at)
}

// finder walks through a JSON text and keeps where the longest part of a path ends.
type finder struct {
	d    *json.Decoder
	want string
	at   int64
	best int // length of the path at that place
}

func (f *finder) value(path string) {
	token, err := f.d.Token()
	if err != nil {
		return
	}
	if len(path) > f.best && within(f.want, path) {
		f.best, f.at = len(path), f.d.InputOffset()
	}
	switch token {
	case json.Delim('{'):
		for f.d.More() {
			key, _ := f.d.Token()
			f.value(strings.TrimPrefix(fmt.Sprintf("%s.%v", path, key), "."))
		}
		f.d.Token()
	case json.Delim('['):
		for i := 0; f.d.More(); i++ {
			f.value(fmt.Sprintf("%s[%d]", path, i))
		}
		f.d.Token()
	}
}

// within reports whether path is the field, or what it lies in.
func within(field, path string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(field), strings.ToLower(path))
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[' || path == "")
}
