//go:build linux

package caps

import "strings"

// flag is one of the three sets of cap_to_text(3), as a bit.
type flag uint8

const (
	effective flag = 1 << iota
	permitted
	inheritable
	flags = 8 // combinations
)

// letters gives the sets in libcap's order.
func (f flag) letters() (text string) {
	for _, l := range flagLetters {
		if f&l.flag != 0 {
			text += string(l.letter)
		}
	}
	return text
}

var flagLetters = [...]struct {
	flag   flag
	letter byte
}{{effective, 'e'}, {inheritable, 'i'}, {permitted, 'p'}}

// by gives, for each combination of sets, the capabilities that are in just these.
func (s State) by() (all [flags]Set) {
	for f := range all {
		all[f] = All
		for bit, set := range map[flag]Set{effective: s.Effective, permitted: s.Permitted, inheritable: s.Inheritable} {
			if flag(f)&bit == 0 {
				set = ^set
			}
			all[f] &= set
		}
	}
	return all
}

// Text gives the permitted, effective and inheritable set as cap_to_text(3) and getpcaps(8) do: "cap_net_raw,cap_net_admin=ep",
// "=ep cap_sys_resource-ep". [ParseText] reads it.
func (s State) Text() string {
	by := s.by()
	base := flag(flags - 1) // what most capabilities have; of two, the one that is less
	for f := base; f > 0; {
		if f--; (by[f] & known).Len() >= (by[base] & known).Len() {
			base = f
		}
	}
	clauses := []string{"=" + base.letters()}
	for f := flag(flags - 1); f < flags; f-- {
		if list := by[f] & known; list != 0 && f != base {
			clauses = append(clauses, clause(list, f&^base, base&^f))
		}
	}
	if base == 0 && len(clauses) > 1 { // "cap_net_raw=ep" for "= cap_net_raw+ep"
		clauses = clauses[1:]
		clauses[0] = strings.Replace(clauses[0], "+", "=", 1)
	}
	for f := flag(flags - 1); f > 0; f-- { // the base is that of the capabilities with names
		if list := by[f] & unknown; list != 0 {
			clauses = append(clauses, clause(list, f, 0))
		}
	}
	return strings.Join(clauses, " ")
}

func clause(list Set, more, less flag) string {
	text := strings.Join(list.words("cap_", strings.ToLower), ",")
	if more != 0 {
		text += "+" + more.letters()
	}
	if less != 0 {
		text += "-" + less.letters()
	}
	return text
}

// ParseText reads what cap_from_text(3) reads, and what [State.Text] gives: clauses with spaces between them, each a list of names or
// numbers, or "all", and what becomes of them: =, + and - with e, i and p. The other sets of the result are empty. The error is a [*TextError].
func ParseText(text string) (State, error) {
	var s State
	for _, c := range strings.Fields(text) {
		if !s.apply(c) {
			return State{}, &TextError{Text: c}
		}
	}
	return s, nil
}

// apply does what a clause says.
func (s *State) apply(c string) bool {
	i := strings.IndexAny(c, "=+-")
	if i < 0 {
		return false
	}
	list, ok := known, true
	if i > 0 {
		list, ok = parseList(c[:i])
	} else if c[0] != '=' || strings.ContainsAny(c[1:], "=+-") {
		return false
	}
	return ok && s.change(list, c[i:])
}

func parseList(text string) (list Set, ok bool) {
	for word := range strings.SplitSeq(text, ",") {
		c, ok := parseListed(word)
		if !ok {
			return 0, false
		}
		if c == known { // "all" takes the place of what stands before it
			list = 0
		}
		list |= c
	}
	return list, true
}

// parseListed reads one word of a list. Numbers may be octal or hexadecimal, as strtoul(3) reads them. A name has its "cap_".
func parseListed(word string) (Set, bool) {
	switch {
	case word == "":
		return 0, false
	case fold(word, "all"):
		return known, true
	case word[0] >= '0' && word[0] <= '9':
		return parseC(word)
	case len(word) > 4 && fold(word[:4], "cap_"):
		return parseName(word)
	}
	return 0, false
}

// parseC reads a number of the language C.
func parseC(word string) (Set, bool) {
	digits, base := strings.ToLower(word), 10
	if rest, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = rest, 16
	} else if word[0] == '0' && len(word) > 1 {
		base = 8
	}
	return parseNumber(digits, base)
}

// change performs "=ep", "+e-p" and the like on the listed ones. Only the first can be "=".
func (s *State) change(list Set, text string) bool {
	for first := true; text != ""; first = false {
		op, n, f := text[0], 1, flag(0)
		for ; n < len(text) && text[n] != '=' && text[n] != '+' && text[n] != '-'; n++ {
			bit := letterFlag(text[n])
			if bit == 0 {
				return false
			}
			f |= bit
		}
		if op == '=' && !first || op != '=' && f == 0 {
			return false
		}
		s.set(list, op, f)
		text = text[n:]
	}
	return true
}

func letterFlag(letter byte) flag {
	for _, l := range flagLetters {
		if l.letter == letter {
			return l.flag
		}
	}
	return 0
}

func (s *State) set(list Set, op byte, f flag) {
	for bit, set := range map[flag]*Set{effective: &s.Effective, permitted: &s.Permitted, inheritable: &s.Inheritable} {
		switch {
		case op == '=' && f&bit == 0, op == '-' && f&bit != 0:
			*set &^= list
		case f&bit != 0:
			*set |= list
		}
	}
}
