package h3

import (
	"strconv"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// AppendResponse appends a HEADERS frame with a response's head, interim ones included. Content-Length among the fields is left out;
// length, if not negative, is written in its place. date, if not empty, is written when the fields have no Date.
func AppendResponse(dst []byte, status int, fields exchange.Fields, length int64, date string) []byte {
	dst, at := beginHeaders(dst)
	dst = appendStatus(dst, status)
	for i := range fields {
		f := &fields[i]
		if f.ID == exchange.ContentLength {
			continue
		}
		if f.ID == exchange.Date {
			date = ""
		}
		dst = appendLine(dst, f.Name, f.Value)
	}
	if length >= 0 {
		dst = appendLength(dst, length)
	}
	if date != "" {
		dst = appendLine(dst, "date", date)
	}
	return endHeaders(dst, at)
}

// AppendTrailers appends a HEADERS frame with trailers.
func AppendTrailers(dst []byte, fields exchange.Fields) []byte {
	dst, at := beginHeaders(dst)
	for i := range fields {
		dst = appendLine(dst, fields[i].Name, fields[i].Value)
	}
	return endHeaders(dst, at)
}

// AppendDataHeader appends the beginning of a DATA frame of n bytes.
func AppendDataHeader(dst []byte, n int64) []byte {
	return AppendVarint(append(dst, typeData), uint64(n))
}

// DataHeaderLen returns the length of what AppendDataHeader appends.
func DataHeaderLen(n int64) int { return 1 + varintLen(uint64(n)) }

// beginHeaders leaves two bytes for the frame's length: enough for most, and endHeaders makes room for more.
func beginHeaders(dst []byte) (_ []byte, at int) {
	dst = append(dst, typeHeaders, 0, 0)
	// Neither Required Insert Count nor Base (RFC 9204 4.5.1).
	return append(dst, 0, 0), len(dst)
}

func endHeaders(dst []byte, at int) []byte {
	n := len(dst) - at
	if n < 1<<14 {
		dst[at-2], dst[at-1] = byte(n>>8)|0x40, byte(n)
		return dst
	}
	dst = append(dst, 0, 0)
	copy(dst[at+2:], dst[at:])
	dst[at-2], dst[at-1], dst[at], dst[at+1] = byte(n>>24)|0x80, byte(n>>16), byte(n>>8), byte(n)
	return dst
}

func appendStatus(dst []byte, status int) []byte {
	if status == 200 {
		return append(dst, 0xc0|25)
	}
	var digits [3]byte
	return appendLine(dst, ":status", string(strconv.AppendInt(digits[:0], int64(status), 10)))
}

func appendLength(dst []byte, length int64) []byte {
	if length == 0 {
		return append(dst, 0xc0|4)
	}
	dst = append(dst, 0x50|4, 0)
	at := len(dst)
	dst = strconv.AppendInt(dst, length, 10)
	dst[at-1] = byte(len(dst) - at) // 19 digits at most
	return dst
}

// appendLine appends a field line (see decode.go for the forms). Names are written in lower case, strings without the Huffman code: a fifth
// fewer bytes are not worth the time.
func appendLine(dst []byte, name, value string) []byte {
	known := places(name)
	for _, place := range known {
		if static[place].Value == value {
			return appendInteger(dst, 0xc0, 6, uint64(place))
		}
	}
	if len(known) > 0 {
		dst = appendInteger(dst, 0x50, 4, uint64(known[0]))
	} else {
		dst = appendInteger(dst, 0x20, 3, uint64(len(name)))
		for i := range len(name) {
			dst = append(dst, lower[name[i]])
		}
	}
	dst = appendInteger(dst, 0, 7, uint64(len(value)))
	return append(dst, value...)
}

// lower maps upper case letters. It is never written after start.
var lower = func() (table [256]byte) {
	for c := range table {
		table[c] = byte(c)
		if 'A' <= c && c <= 'Z' {
			table[c] |= 0x20
		}
	}
	return table
}()

// appendInteger appends an integer with a prefix of that many bits (RFC 7541 5.1), behind the bits of form.
func appendInteger(dst []byte, form byte, prefix uint, v uint64) []byte {
	most := uint64(1)<<prefix - 1
	if v < most {
		return append(dst, form|byte(v))
	}
	dst = append(dst, form|byte(most))
	for v -= most; v >= 0x80; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}
