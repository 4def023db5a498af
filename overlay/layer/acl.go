//go:build linux

package layer

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The kernel's form of an access control list, acl(5): a version, and entries of a tag, permissions and an id.
const (
	aclVersion  = 2
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// aclOf turns the record that star and GNU tar write, a text, into the attribute that the kernel has. Other records give no name.
func aclOf(key, value string) (name, binary string, err error) {
	switch key {
	case "SCHILY.acl.access":
		name = aclAccess
	case "SCHILY.acl.default":
		name = aclDefault
	default:
		return "", "", nil
	}
	list, ok := parseACL(value)
	if !ok {
		return "", "", refuse(IsBadAttr, key)
	}
	return name, encodeACL(list), nil
}

func encodeACL(list []aclEntry) string {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range list {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return string(b)
}

// parseACL reads "user::rwx,user:1000:r-x,group::r-x,mask::r-x,other::---". A name of a user says nothing on another system: it must be a number, or
// the number follows the permissions, as star has it.
func parseACL(text string) (list []aclEntry, ok bool) {
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimPrefix(strings.TrimSpace(line), "default:")
		if line == "" {
			continue
		}
		e, ok := parseACLEntry(strings.Split(line, ":"))
		if !ok {
			return nil, false
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b aclEntry) int { return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id)) })
	return list, true
}

func parseACLEntry(words []string) (e aclEntry, ok bool) {
	if len(words) < 3 || len(words) > 4 {
		return e, false
	}
	tags, known := map[string][2]uint16{"user": {aclUserObj, aclUser}, "u": {aclUserObj, aclUser}, "group": {aclGroupObj, aclGroup},
		"g": {aclGroupObj, aclGroup}, "mask": {aclMask, 0}, "m": {aclMask, 0}, "other": {aclOther, 0}, "o": {aclOther, 0}}[words[0]]
	e = aclEntry{tag: tags[0], id: math.MaxUint32}
	if words[1] != "" {
		number := words[len(words)-1]
		if len(words) == 3 {
			number = words[1]
		}
		id, err := strconv.ParseUint(number, 10, 32)
		if err != nil || id == math.MaxUint32 {
			return e, false
		}
		e.tag, e.id = tags[1], uint32(id)
	}
	perm, valid := parsePerm(words[2])
	e.perm = perm
	return e, known && valid && e.tag != 0
}

func parsePerm(text string) (perm uint16, ok bool) {
	if text == "" || len(text) > 3 {
		return 0, false
	}
	for _, c := range text {
		switch c {
		case 'r':
			perm |= 4
		case 'w':
			perm |= 2
		case 'x':
			perm |= 1
		case '-':
		default:
			return 0, false
		}
	}
	return perm, true
}
