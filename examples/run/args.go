//go:build linux

package main

import (
	"flag"
	"fmt"
	"strings"
)

// parseArgs sets the flags and gives the arguments behind them. Package flag does not know that -it is -i -t, and that
// -eA=1 is -e A=1; so its FlagSet has the names and the values here, and the syntax is this.
func parseArgs(fs *flag.FlagSet, args []string) (rest []string, err error) {
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		a := args[0]
		args = args[1:]
		switch {
		case a == "--":
			return args, nil
		case strings.HasPrefix(a, "--"):
			args, err = parseLong(fs, a[2:], args)
		default:
			args, err = parseShort(fs, a[1:], args)
		}
		if err != nil {
			return nil, err
		}
	}
	return args, nil
}

// parseLong parses name=value or name, whose value may be the next argument.
func parseLong(fs *flag.FlagSet, a string, args []string) ([]string, error) {
	name, value, given := strings.Cut(a, "=")
	if fs.Lookup(name) == nil || len(name) == 1 {
		return nil, fmt.Errorf("unknown flag --%s; see run --help", name)
	}
	if !given && isBool(fs, name) {
		value, given = "true", true
	}
	return set(fs, "--"+name, value, given, args)
}

// parseShort parses letters without values, of which the last may have one: i, it, eA=1, e=A=1, ite.
func parseShort(fs *flag.FlagSet, a string, args []string) ([]string, error) {
	for a != "" {
		name := a[:1]
		if a = a[1:]; fs.Lookup(name) == nil {
			return nil, fmt.Errorf("unknown flag -%s in -%s; see run --help", name, name+a)
		}
		if !isBool(fs, name) || strings.HasPrefix(a, "=") {
			return set(fs, "-"+name, strings.TrimPrefix(a, "="), a != "", args)
		}
		if _, err := set(fs, "-"+name, "true", true, nil); err != nil {
			return nil, err
		}
	}
	return args, nil
}

func isBool(fs *flag.FlagSet, name string) bool {
	b, ok := fs.Lookup(name).Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// set sets one flag, by the next argument where no value was given.
func set(fs *flag.FlagSet, name, value string, given bool, args []string) ([]string, error) {
	if !given {
		if len(args) == 0 {
			return nil, fmt.Errorf("%s needs a value", name)
		}
		value, args = args[0], args[1:]
	}
	if err := fs.Set(strings.TrimLeft(name, "-"), value); err != nil {
		return nil, fmt.Errorf("%s %q: %w", name, value, err)
	}
	return args, nil
}
