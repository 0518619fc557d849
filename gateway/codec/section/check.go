package section

import "fmt"

// What a byte of a field may be.
const (
	inName   = 1 << iota // RFC 9110 5.6.2 token, without upper case (RFC 9113 8.2.1)
	inValue              // RFC 9110 5.5: everything but control characters; HTAB is no control character here
	inMethod             // RFC 9110 9.1: token
	inTarget             // what a request target may hold: no control character, space or '#'
)

// bytesOf classifies bytes. It is never written after start.
var bytesOf = func() (table [256]uint8) {
	const symbols = "!#$%&'*+-.^_`|~"
	for c := range table {
		if c >= ' ' && c != 0x7f || c == '\t' {
			table[c] |= inValue
		}
		if c > ' ' && c != 0x7f && c != '#' {
			table[c] |= inTarget
		}
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			table[c] |= inName | inMethod
		}
		if 'A' <= c && c <= 'Z' {
			table[c] |= inMethod
		}
	}
	for i := range len(symbols) {
		table[symbols[i]] |= inName | inMethod
	}
	return table
}()

// all reports whether every byte of s is of the class.
func all(s string, class uint8) bool {
	have := class
	for i := range len(s) {
		have &= bytesOf[s[i]]
	}
	return have != 0
}

// ValidName reports whether a field name is a token in lower case.
func ValidName(name string) bool { return name != "" && all(name, inName) }

// ValidValue reports whether a field value holds no control character and neither begins nor ends with space or tab (RFC 9113 8.2.1).
func ValidValue(value string) bool {
	if value == "" {
		return true
	}
	head, tail := value[0], value[len(value)-1]
	return head != ' ' && head != '\t' && tail != ' ' && tail != '\t' && all(value, inValue)
}

// Check returns an error when a name, perhaps a pseudo-field's, or a value is not well-formed, wherever it may stand.
func Check(name, value string) error {
	plain := name
	if plain != "" && plain[0] == ':' {
		plain = plain[1:]
	}
	if !ValidName(plain) {
		return Malformed(fmt.Sprintf("the field name %.40q is not a token in lower case", name))
	}
	if !ValidValue(value) {
		return Malformed(fmt.Sprintf("the value of the field %.40q holds a control character, or begins or ends with space", name))
	}
	return nil
}

// ValidToken reports whether s is a token (RFC 9110 5.6.2) in any case: a method, a protocol.
func ValidToken(s string) bool { return s != "" && all(s, inMethod) }

// ValidTarget reports whether s holds what a request target or an authority may: no space, control character or '#'.
func ValidTarget(s string) bool { return all(s, inTarget) }

// Lower makes a field name lower case in place and reports whether it is a token.
func Lower(name []byte) bool {
	have := uint8(inMethod)
	for i, c := range name {
		have &= bytesOf[c]
		if 'A' <= c && c <= 'Z' {
			name[i] = c | 0x20
		}
	}
	return have != 0 && len(name) > 0
}
