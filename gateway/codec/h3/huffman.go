package h3

import (
	"strings"

	"golang.org/x/net/http2/hpack"
)

// Strings may be compressed with the Huffman code of HPACK (RFC 7541 5.2 and appendix B, RFC 9204 4.1.2), in which frequent characters have
// 5 to 8 bits and rare ones 10 to 30. The code is canonical: within a length, the codes of its characters are consecutive numbers. So the
// frequent ones are looked up by their first 8 bits, and a rare one is found by the first length whose largest code is not below the bits
// read:
//
//	bits 00000 ...           byCode[0b00000xxx] = '0', 5 bits
//	bits 1111111000 ...      longer than 8 bits: length 10 begins at 1111111000, so this is its first character, '!'
//
// The end of the last byte is filled with ones, the beginning of the code that ends a string and that no string may contain.

// codes is what decoding needs of the code. It is never written after start.
type codes struct {
	short [256]code     // by the next 8 bits; length 0 when the code is longer
	long  [31]longCodes // by length
	chars [256]byte     // the characters of long codes, by length and then by code
}

type code struct{ char, length byte }

// longCodes are the codes of one length: count of them from first on, for the characters from chars[at] on.
type longCodes struct {
	first     uint32
	count, at uint16
}

// huffman is taken from x/net's encoder: eight times one character fill as many bytes as its code has bits.
var huffman = func() *codes {
	c := new(codes)
	var bits [256]uint32 // the code, to the left
	var lengths [256]int
	for char := range 256 {
		lengths[char] = int(hpack.HuffmanEncodeLength(strings.Repeat(string([]byte{byte(char)}), 8)))
		encoded := append(hpack.AppendHuffmanString(nil, string([]byte{byte(char)})), 0, 0, 0)
		bits[char] = (uint32(encoded[0])<<24 | uint32(encoded[1])<<16 | uint32(encoded[2])<<8 | uint32(encoded[3])) >> (32 - lengths[char])
	}
	at := 0
	for length := 1; length < len(c.long); length++ {
		group := longCodes{first: 1 << 31, at: uint16(at)}
		for char := range 256 {
			switch {
			case lengths[char] != length:
			case length <= 8:
				from := int(bits[char]) << (8 - length)
				for i := range 1 << (8 - length) {
					c.short[from+i] = code{byte(char), byte(length)}
				}
			default:
				group.first = min(group.first, bits[char])
				group.count++
			}
		}
		for char := range 256 {
			if length > 8 && lengths[char] == length {
				c.chars[at+int(bits[char]-group.first)] = byte(char)
			}
		}
		at += int(group.count)
		c.long[length] = group
	}
	return c
}()

// huffmanRoom returns how many bytes a string of this many encoded ones has at most.
func huffmanRoom(encoded int) int { return encoded*8/5 + 1 }

// appendHuffman decodes src. dst must have huffmanRoom. ok is false when src is not a whole number of characters and up to 7 ones.
func appendHuffman(dst, src []byte) (_ []byte, ok bool) {
	var bits uint64 // those not yet used, to the right
	have := uint(0)
	for {
		for have <= 56 && len(src) > 0 {
			bits, have, src = bits<<8|uint64(src[0]), have+8, src[1:]
		}
		if have < 8 {
			break
		}
		c := huffman.short[byte(bits>>(have-8))]
		if c.length > 0 {
			dst, have = append(dst, c.char), have-uint(c.length)
			continue
		}
		char, length := longCode(bits, have)
		if length == 0 {
			// What is left at the end may only be ones, too few of them for a byte, and here there are 8 bits at least.
			return dst, false
		}
		dst, have = append(dst, char), have-length
	}
	// Less than a byte is left, and nothing to come: characters of up to 7 bits, then ones.
	for have > 0 {
		c := huffman.short[byte(bits<<(8-have))|byte(0xff>>have)]
		if c.length == 0 || uint(c.length) > have {
			break
		}
		dst, have = append(dst, c.char), have-uint(c.length)
	}
	padding := uint64(1)<<have - 1
	return dst, bits&padding == padding
}

// longCode returns the character whose code of more than 8 bits comes next, and its length; 0 when there is none.
func longCode(bits uint64, have uint) (char byte, length uint) {
	for length = 9; length < uint(len(huffman.long)) && length <= have; length++ {
		group := huffman.long[length]
		next := uint32(bits >> (have - length) & (1<<length - 1))
		if next >= group.first && next-group.first < uint32(group.count) {
			return huffman.chars[group.at+uint16(next-group.first)], length
		}
	}
	return 0, 0
}
