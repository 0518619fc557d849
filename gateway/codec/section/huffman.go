package section

import "encoding/binary"

// The Huffman code of RFC 7541 Appendix B is canonical: of two codes the longer one is the larger number, and codes of one length are
// consecutive numbers in the order of their symbols. The lengths alone therefore say everything:
//
//	length 5:  '0' 00000, '1' 00001, '2' 00010, 'a' 00011, ...    the ten symbols of length 5, from 0 on
//	length 6:  ' ' 010100, '%' 010101, '-' 010110, ...            from (the last of length 5 + 1) * 2 on
//
// A code of at most fastBits, which is nearly every one that occurs, is found by one look into a table; for a longer one the lengths are
// tried one after another.

// huffmanLengths is the number of bits of each byte's code.
var huffmanLengths = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

const (
	// fastBits is what one look decodes.
	fastBits = 9
	// shortestCode and longestCode bound the codes, in bits. The end-of-string symbol, which no string may hold (RFC 7541 5.2), is the last
	// of the longest.
	shortestCode, longestCode = 5, 30
)

// huffman is what the lengths become.
type huffman struct {
	// fast holds, for the next fastBits bits, symbol<<4 | length, or 0 when the code is longer.
	fast [1 << fastBits]uint16
	// after is, by length, the first number of 32 bits behind the codes of that length, written from the left.
	after [longestCode + 1]uint64
	// base is what leads from a code of that length to its symbol's place in symbols.
	base    [longestCode + 1]int
	symbols [256]uint8 // in the order of their codes
}

// huffmanCode is never written after start.
var huffmanCode = func() (h huffman) {
	code, place := 0, 0
	for length := shortestCode; length <= longestCode; length++ {
		code <<= 1
		h.base[length] = place - code
		for symbol := range huffmanLengths {
			if int(huffmanLengths[symbol]) != length {
				continue
			}
			h.symbols[place] = uint8(symbol)
			if free := fastBits - length; free >= 0 {
				for rest := range 1 << free {
					h.fast[code<<free|rest] = uint16(symbol)<<4 | uint16(length)
				}
			}
			code++
			place++
		}
		h.after[length] = uint64(code) << (32 - length)
	}
	return h
}()

// HuffmanRoom is the most bytes that so many coded ones can become.
func HuffmanRoom(coded int) int { return coded*8/shortestCode + 1 }

// AppendHuffman decodes src behind dst. ok is false when src holds the end-of-string symbol or does not end in at most 7 bits, all ones
// (RFC 7541 5.2; RFC 9204 4.1.2). dst needs HuffmanRoom or is grown.
func AppendHuffman(dst, src []byte) (out []byte, ok bool) {
	var bits uint64 // from the left; as many as have are of src
	have := 0
	for {
		if len(src) >= 8 {
			bits |= binary.BigEndian.Uint64(src) >> have
			n := (63 - have) >> 3
			src = src[n:]
			have += n << 3
		} else {
			for have <= 56 && len(src) > 0 {
				bits |= uint64(src[0]) << (56 - have)
				src = src[1:]
				have += 8
			}
		}
		if have < longestCode && len(src) == 0 {
			return finishHuffman(dst, bits, have)
		}
		for have >= longestCode {
			symbol, length := nextHuffman(bits)
			if length == 0 {
				return dst, false
			}
			dst = append(dst, symbol)
			bits <<= length
			have -= length
		}
	}
}

// finishHuffman decodes the last bits.
func finishHuffman(dst []byte, bits uint64, have int) ([]byte, bool) {
	for have >= shortestCode {
		symbol, length := nextHuffman(bits)
		if length == 0 || length > have {
			break
		}
		dst = append(dst, symbol)
		bits <<= length
		have -= length
	}
	return dst, have < 8 && bits == ^(^uint64(0)>>have)
}

// nextHuffman returns the symbol that the bits begin with; length 0 is the end-of-string symbol.
func nextHuffman(bits uint64) (symbol uint8, length int) {
	if e := huffmanCode.fast[bits>>(64-fastBits)]; e != 0 {
		return uint8(e >> 4), int(e & 15)
	}
	window := bits >> 32
	for length := fastBits + 1; length <= longestCode; length++ {
		if window < huffmanCode.after[length] {
			return huffmanCode.symbols[int(window>>(32-length))+huffmanCode.base[length]], length
		}
	}
	return 0, 0
}
