//go:build linux

package caps

import "strings"

// IAB gives the inheritable, ambient and bounding set as cap_iab_to_text(3) and getpcaps --iab do: names with commas between
// them, "^cap_net_raw" for one that is ambient and inheritable, "!cap_sys_admin" for one that is not in the bounding set,
// "!%cap_chown" for one that is inheritable all the same, "cap_chown" for inheritable alone. Of capabilities without a name it does not say
// which are missing in the bounding set: a kernel does not have them. [ParseIAB] reads it.
func (s State) IAB() string {
	var words []string
	for c := range (s.Inheritable | s.Ambient | known&^s.Bounding).Each() {
		words = append(words, s.iabMark(c)+c.word("cap_", strings.ToLower))
	}
	return strings.Join(words, ",")
}

func (s State) iabMark(c Set) (mark string) {
	blocked := c&known&^s.Bounding != 0
	if blocked {
		mark = "!"
	}
	switch {
	case s.Ambient.Has(c):
		mark += "^"
	case s.Inheritable.Has(c) && blocked:
		mark += "%"
	}
	return mark
}

// ParseIAB reads what cap_iab_from_text(3) reads, and what [State.IAB] gives. What the text does not block is in the bounding set of
// the result; the permitted and the effective set are empty. The error is a [*TextError]; a mark without a name is one here, too.
func ParseIAB(text string) (State, error) {
	s := State{Bounding: All}
	if text == "" {
		return s, nil
	}
	for word := range strings.SplitSeq(strings.TrimSuffix(text, ","), ",") {
		if !s.applyIAB(word) {
			return State{}, &TextError{Text: word}
		}
	}
	return s, nil
}

func (s *State) applyIAB(word string) bool {
	name := strings.TrimLeft(word, "!^%")
	marks := word[:len(word)-len(name)]
	c, ok := parseListed(name)
	if !ok || c.Len() != 1 {
		return false
	}
	blocked, ambient := strings.Contains(marks, "!"), strings.Contains(marks, "^")
	if blocked {
		s.Bounding &^= c
	}
	if ambient {
		s.Ambient |= c
	}
	if ambient || !blocked || strings.Contains(marks, "%") {
		s.Inheritable |= c
	}
	return true
}

// String gives the five sets as getpcaps --iab does, and what else there is: "cap_net_raw=ep [!cap_sys_admin] no_new_privs".
// [ParseText] and [ParseIAB] read the two parts.
func (s State) String() string {
	text := s.Text()
	if iab := s.IAB(); iab != "" {
		text += " [" + iab + "]"
	}
	if s.NoNewPrivs {
		text += " no_new_privs"
	}
	if s.Securebits != 0 && s.Securebits != NotShown {
		text += " " + s.Securebits.String()
	}
	return text
}
