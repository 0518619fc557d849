package h1

import (
	"slices"
	"strconv"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// What is written is made of parts that were checked where they came in, by this package, the other codecs or the configuration. A filter
// may have put in something else: a field whose name is no token or whose value holds CR, LF, NUL or another control character is left
// out, as a line break in it would begin a field, or a message, that nobody meant. From a method, target or authority such bytes are
// taken out.

// AppendRequest appends a request head: the request line with head.AppendTarget, Host, the fields, and the framing that m says.
// Cookie fields become one (RFC 9113 8.2.3), and Host, Content-Length, Transfer-Encoding, Connection, TE, Expect and their like among the
// fields are left out: m says what of them is written, and TE is of no use where nobody waits for trailers. upgrade, when not
// empty, is the protocol to switch to; a CONNECT, which is how HTTP/2 and HTTP/3 ask for one, is written as GET then.
// The request is always one of HTTP/1.1; UntilClose and Unsaid in m.Length mean 0.
func AppendRequest(dst []byte, head *exchange.Head, m *Message, upgrade string) []byte {
	method := head.Method
	if upgrade != "" && method == connect {
		method = "GET"
	}
	dst = append(appendClean(dst, method), ' ')
	from := len(dst)
	dst = clean(head.AppendTarget(dst), from)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(appendClean(dst, head.Authority), "\r\n"...)
	cookies := false
	for i := range head.Fields {
		f := &head.Fields[i]
		switch f.ID {
		case exchange.Unknown:
			dst = appendField(dst, f)
		case exchange.Host, exchange.ContentLength, exchange.TransferEncoding, exchange.Connection, exchange.KeepAlive,
			exchange.ProxyConnection, exchange.Upgrade, exchange.HTTP2Settings, exchange.TE, exchange.Expect:
		case exchange.Trailer:
			if m.Length == Chunked {
				dst = appendField(dst, f)
			}
		case exchange.Cookie:
			if !cookies {
				dst = appendCookies(dst, head.Fields[i:])
			}
			cookies = true
		default:
			dst = appendField(dst, f)
		}
	}
	if m.Continue {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	switch {
	case m.Length == Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case m.Length > 0 || expectsContent(method):
		dst = appendLength(dst, max(m.Length, 0))
	}
	return append(appendRequestConnection(dst, m.Close, upgrade), "\r\n"...)
}

// expectsContent tells for which methods no content at all is worth saying (RFC 9110 8.6).
func expectsContent(method string) bool {
	return method == "POST" || method == "PUT" || method == "PATCH"
}

func appendRequestConnection(dst []byte, closes bool, upgrade string) []byte {
	if !closes && upgrade == "" {
		return dst
	}
	dst = append(dst, "Connection: "...)
	if closes {
		dst = append(dst, "close, "...)
	}
	if upgrade != "" {
		dst = append(dst, "Upgrade, "...)
	}
	dst = append(dst[:len(dst)-len(", ")], "\r\n"...)
	return appendUpgrade(dst, upgrade)
}

func appendUpgrade(dst []byte, protocol string) []byte {
	if protocol == "" {
		return dst
	}
	dst = appendClean(append(dst, "Upgrade: "...), protocol)
	return append(dst, "\r\n"...)
}

func appendLength(dst []byte, n int64) []byte {
	dst = strconv.AppendInt(append(dst, "Content-Length: "...), n, 10)
	return append(dst, "\r\n"...)
}

// AppendResponse appends a response head: the status line, the fields, and the framing that m says. m.Proto is the client's version. An
// HTTP/1.0 client knows no chunks: Chunked is UntilClose for it, and the body is to be written as it is. Content-Length,
// Transfer-Encoding, Connection and their like among the fields are left out. A 1xx or 204 gets no framing, whatever m.Length; a 304 at
// most a length.
//
// upgrade is the protocol of a 101, "" otherwise. date is the value of a Date field, for a final response that has none; see Clock. extra
// are fields to put behind those of resp; it may be nil.
func AppendResponse(dst []byte, resp *exchange.Response, m *Message, upgrade, date string, extra exchange.Fields) []byte {
	status := resp.Status
	if status < leastStatus || status > mostStatus {
		status = 500 // no status at all
	}
	dst = append(dst, statusLines[status-leastStatus]...)
	interim, dated := status < 200, false
	for i := range resp.Fields {
		f := &resp.Fields[i]
		switch f.ID {
		case exchange.Unknown:
		case exchange.ContentLength, exchange.TransferEncoding, exchange.Connection, exchange.KeepAlive, exchange.ProxyConnection,
			exchange.Upgrade, exchange.HTTP2Settings:
			continue
		case exchange.Date:
			dated = true
		}
		dst = appendField(dst, f)
	}
	for i := range extra {
		dst = appendField(dst, &extra[i])
	}
	switch {
	case upgrade != "":
		dst = appendUpgrade(append(dst, "Connection: Upgrade\r\n"...), upgrade)
	case !interim:
		dst = appendResponseFraming(dst, status, m)
	}
	if !dated && date != "" && !interim {
		dst = append(append(append(dst, "Date: "...), date...), "\r\n"...)
	}
	return append(dst, "\r\n"...)
}

func appendResponseFraming(dst []byte, status int, m *Message) []byte {
	closes := m.Close
	switch {
	case status == 204 || m.Length == Unsaid:
	case m.Length >= 0:
		dst = appendLength(dst, m.Length)
	case status == 304:
	case m.Length == Chunked && m.Proto != exchange.HTTP10:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	default:
		closes = true
	}
	switch {
	case closes:
		dst = append(dst, "Connection: close\r\n"...)
	case m.Proto == exchange.HTTP10:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return dst
}

// appendField appends a field line, unless it would not be one.
func appendField(dst []byte, f *exchange.Field) []byte {
	if f.ID == exchange.Unknown && !isToken(f.Name) || !isValue(f.Value) {
		return dst
	}
	n := len(f.Name) + len(f.Value) + len(": \r\n")
	dst = slices.Grow(dst, n)
	line := dst[len(dst) : len(dst)+n]
	colon := copy(line, f.Name)
	line[colon], line[colon+1] = ':', ' '
	end := colon + 2 + copy(line[colon+2:], f.Value)
	line[end], line[end+1] = '\r', '\n'
	return dst[:len(dst)+n]
}

// appendCookies appends one Cookie line of all that are in fields, the first of which is one.
func appendCookies(dst []byte, fields exchange.Fields) []byte {
	begun := false
	for i := range fields {
		f := &fields[i]
		switch {
		case f.ID != exchange.Cookie || !isValue(f.Value):
		case !begun:
			dst = append(append(append(dst, f.Name...), ": "...), f.Value...)
			begun = true
		default:
			dst = append(append(dst, "; "...), f.Value...)
		}
	}
	if begun {
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// appendClean appends s without what would end its place in a line.
func appendClean(dst []byte, s string) []byte {
	from := len(dst)
	return clean(append(dst, s...), from)
}

// clean takes spaces and control characters out of b, from a place on.
func clean(b []byte, from int) []byte {
	good := from + target(b[from:])
	if good == len(b) {
		return b
	}
	kept := b[:good]
	for _, c := range b[good:] {
		if c > ' ' && c != 0x7f {
			kept = append(kept, c)
		}
	}
	return kept
}

// AppendChunk appends p as one chunk, and nothing when p is empty: an empty chunk would end the body.
func AppendChunk(dst, p []byte) []byte {
	if len(p) == 0 {
		return dst
	}
	dst = append(AppendChunkHead(dst, len(p)), p...)
	return append(dst, "\r\n"...)
}

// AppendChunkHead appends the line before n bytes of data, n above 0. CRLF must follow the data.
func AppendChunkHead(dst []byte, n int) []byte {
	return append(strconv.AppendInt(dst, int64(n), 16), "\r\n"...)
}

// AppendLastChunk appends the end of a chunked body. Of the trailers those are left out that say what a message is or where it goes,
// which must not come after it (RFC 9110 6.5.1).
func AppendLastChunk(dst []byte, trailers exchange.Fields) []byte {
	dst = append(dst, "0\r\n"...)
	for i := range trailers {
		f := &trailers[i]
		switch {
		case f.ID.HopByHop(), f.ID == exchange.Host, f.ID == exchange.ContentLength, f.ID == exchange.Authorization,
			f.ID == exchange.Cookie, f.ID == exchange.Expect:
		default:
			dst = appendField(dst, f)
		}
	}
	return append(dst, "\r\n"...)
}
