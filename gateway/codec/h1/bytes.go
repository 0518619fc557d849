package h1

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// What a byte may be part of.
const (
	inToken  = 1 << iota // RFC 9110 5.6.2: methods and field names
	inValue              // RFC 9110 5.5: everything but control characters; HTAB is none here
	inTarget             // a request target: no control character, space or '#'; what a path may hold is the Engine's matter
)

// classes tells for each byte what it may be part of. It is never written after start.
var classes = func() (table [256]uint8) {
	const symbols = "!#$%&'*+-.^_`|~"
	for c := range table {
		lower := c | 0x20
		if c < 0x80 && 'a' <= lower && lower <= 'z' || '0' <= c && c <= '9' {
			table[c] |= inToken
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			table[c] |= inValue
		}
		if c > ' ' && c != 0x7f && c != '#' {
			table[c] |= inTarget
		}
	}
	for i := range len(symbols) {
		table[symbols[i]] |= inToken
	}
	return table
}()

// Eight bytes are looked at together, as one number. For a bound n up to 0x80, (x - n in each byte) &^ x has the high bit of the lowest
// byte that is below n, and none when there is no such byte: the subtraction borrows from a byte only above one that is. Bits above
// the lowest may be wrong, so that only the lowest is used. A byte is equal to c where x ^ c is below 1.
//
//	x = "ab\rd....": 61 62 0d 64 ... - 20 20 20 20 ... = 41 42 ed 43 ...; &^ x keeps the high bit of ed alone: index 2
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// below marks the lowest byte below n, and perhaps others above it.
func below(x uint64, n uint64) uint64 { return (x - ones*n) &^ x & highs }

// value returns how many bytes b begins with that may stand in a field value.
func value(b []byte) int {
	i := 0
	for i+8 <= len(b) {
		x := binary.LittleEndian.Uint64(b[i : i+8])
		// Below ' ', or 0x7f, to which adding 1 gives a high bit that was not there. The addition may carry out of 0xff and so mark a
		// byte that is fine; HTAB is marked, too. Both are rare enough to be looked up.
		found := ((x - ones*' ') | (x + ones)) &^ x & highs
		if found == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(found) >> 3
		if classes[b[i]]&inValue == 0 {
			return i
		}
		i++
	}
	for i < len(b) && classes[b[i]]&inValue != 0 {
		i++
	}
	return i
}

// target returns how many bytes b begins with that may stand in a request target.
func target(b []byte) int {
	i := 0
	for ; len(b)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		if found := below(x, ' '+1) | below(x^ones*0x7f, 1) | below(x^ones*'#', 1); found != 0 {
			return i + bits.TrailingZeros64(found)>>3
		}
	}
	for ; i < len(b) && classes[b[i]]&inTarget != 0; i++ {
	}
	return i
}

// token returns how many bytes b begins with that may stand in a token.
func token(b []byte) int {
	i := 0
	for i < len(b) && classes[b[i]]&inToken != 0 {
		i++
	}
	return i
}

// isToken reports whether s is a token.
func isToken(s string) bool {
	have := uint8(inToken)
	for i := range len(s) {
		have &= classes[s[i]]
	}
	return have != 0 && s != ""
}

// trimOWS removes optional white space (RFC 9110 5.6.3) from the end.
func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// isFold reports whether s is the lower-case word in any case of ASCII letters: others that Unicode folds to ASCII are not equal here.
func isFold[T string | []byte](s T, word string) bool {
	if len(s) != len(word) {
		return false
	}
	for i := range len(word) {
		if lower(s[i]) != word[i] {
			return false
		}
	}
	return true
}

// sameFold reports whether a and b are equal in any case of ASCII letters.
func sameFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// isValue reports whether s may be a field value.
func isValue(s string) bool { return value(unsafe.Slice(unsafe.StringData(s), len(s))) == len(s) }
