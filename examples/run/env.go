//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the command's: nothing of the caller's, unless --env names it.
func (f *flags) environment(home, host string) []string {
	env := []string{"PATH=" + defaultPath, "HOSTNAME=" + host}
	if f.tty {
		env = append(env, "TERM=xterm")
	}
	env = append(env, "HOME="+home)
	for _, v := range slices.Concat(f.imageEnv, f.fileEnv, f.env) {
		env = setVariable(env, v)
	}
	return env
}

// setVariable sets NAME=value; a NAME alone gets the caller's value, or is removed where the caller has none.
func setVariable(env []string, v string) []string {
	name, _, given := strings.Cut(v, "=")
	env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	if given {
		return append(env, v)
	}
	if value, ok := os.LookupEnv(name); ok {
		return append(env, name+"="+value)
	}
	return env
}

// parseEnv checks NAME or NAME=value.
func parseEnv(s string) (string, error) {
	if s == "" || s[0] == '=' {
		return "", errors.New("a variable needs a name")
	}
	return s, nil
}

// addEnvFile reads docker run's format: a variable per line, nothing is quoted or expanded, # begins a comment line.
func (f *flags) addEnvFile(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(string(b), "\ufeff")) {
		n++
		v, err := parseEnvLine(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if v != "" {
			f.fileEnv = append(f.fileEnv, v)
		}
	}
	return nil
}

// parseEnvLine gives "" for an empty line and for a comment.
func parseEnvLine(line string) (string, error) {
	line = strings.TrimLeftFunc(strings.TrimRight(line, "\r\n"), unicode.IsSpace)
	if line == "" || line[0] == '#' {
		return "", nil
	}
	if name, _, _ := strings.Cut(line, "="); strings.ContainsFunc(name, unicode.IsSpace) {
		return "", fmt.Errorf("there is a space in the name %q", name)
	}
	return parseEnv(line)
}
