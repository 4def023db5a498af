//go:build linux

package main

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// security is what --security-opt says.
type security struct {
	seccomp    string // a file, or "unconfined", or "builtin"
	noNewPrivs bool

	masked   []string // further paths to be hidden
	unmasked []string // patterns of paths that are to be seen and written to nevertheless

	apparmor string
	label    label
	landlock []landlockRule
}

// setSecurity reads one --security-opt.
func (f *flags) setSecurity(s string) (err error) {
	key, value, given := strings.Cut(s, "=")
	switch {
	case key == "no-new-privileges" && !given:
		value, given = "true", true
	case value == "":
		return errors.New("needs a value, as in seccomp=unconfined")
	}
	switch key {
	case "no-new-privileges":
		f.noNewPrivs, err = strconv.ParseBool(value)
	case "seccomp":
		f.seccomp = value
	case "mask":
		f.masked, err = appendPaths(f.masked, value)
	case "unmask":
		f.unmasked, err = appendPatterns(f.unmasked, value)
	case "systempaths":
		err = f.setSystemPaths(value)
	case "apparmor":
		f.apparmor = value
	case "label":
		err = f.label.set(value)
	case "landlock":
		f.landlock, err = appendLandlock(f.landlock, value)
	default:
		err = fmt.Errorf("there is no option %q", key)
	}
	return err
}

func (f *flags) setSystemPaths(s string) error {
	if s != unconfined {
		return errors.New("systempaths can be unconfined only")
	}
	f.unmasked = append(f.unmasked, everything)
	return nil
}

// everything is the word for all paths.
const everything = "ALL"

// appendPaths reads paths with colons between them.
func appendPaths(list []string, s string) ([]string, error) {
	for name := range strings.SplitSeq(s, ":") {
		p, err := target(name)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// appendPatterns reads patterns of paths, or ALL.
func appendPatterns(list []string, s string) ([]string, error) {
	for p := range strings.SplitSeq(s, ":") {
		if _, err := path.Match(p, ""); err != nil || p != everything && !path.IsAbs(p) {
			return nil, fmt.Errorf("%q is neither an absolute path, nor a pattern of them, nor %s", p, everything)
		}
		list = append(list, p)
	}
	return list, nil
}

// hidden leaves those paths that nothing unmasks.
func (s *security) hidden(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(name string) bool {
		return slices.ContainsFunc(s.unmasked, func(pattern string) bool {
			match, _ := path.Match(pattern, name)
			return match || pattern == everything
		})
	})
}
