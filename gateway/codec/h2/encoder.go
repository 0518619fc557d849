package h2

import (
	"fmt"
	"strconv"
	"strings"

	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// The encoder uses the static table and literals, and never the dynamic table (RFC 7541 2.3.2 leaves that to it): a block then says the same
// wherever it stands, so that the streams of a connection make their blocks by themselves, at the same time, and only copy them into the
// connection's output. Strings are not Huffman-coded, which costs more time than the bytes it saves.
//
//	:status 200, server a, x-id 7      88   0f 27 01 61   00 04 78 2d 69 64 01 37
//
// Strings that would be another message on the next hop are refused, whoever made them. Names become lower case.

const (
	plainLiteral = 0x00 // 4 bits of index follow
	neverLiteral = 0x10 // the same; no hop may make it an entry of its table (RFC 7541 7.1.3)
	indexedField = 0x80 // 7 bits of index follow
)

// AppendRequest appends a request's block, to stand behind OpenHeaders. The path is head's forward target, whatever it came with. scheme says how
// the endpoint is reached; authority stands in where head has none. length becomes the content-length; -1 is none. Fields of one connection, host
// and content-length are left out, "te: trailers" apart. The error names a field that cannot be sent; dst comes back as it was.
func AppendRequest(dst []byte, head *exchange.Head, scheme, authority string, length int64) ([]byte, error) {
	out := dst
	switch head.Method {
	case "GET":
		out = append(out, indexedField|staticGet)
	case "POST":
		out = append(out, indexedField|staticPost)
	default:
		out = appendString(append(out, plainLiteral|staticGet), head.Method)
	}
	return appendRest(dst, out, head, scheme, authority, length, false)
}

// AppendConnect appends the block of an extended CONNECT (RFC 8441 4) for head.Protocol. Beside what AppendRequest leaves out, nothing that
// announces a body or belongs to an HTTP/1.1 handshake (RFC 8441 5) is sent.
func AppendConnect(dst []byte, head *exchange.Head, scheme, authority string) ([]byte, error) {
	if !section.ValidToken(head.Protocol) {
		return dst, fmt.Errorf("the protocol %.40q cannot be asked for: it is no token", head.Protocol)
	}
	out := appendString(append(dst, plainLiteral|staticGet), "CONNECT")
	out = appendString(appendString(append(out, plainLiteral), ":protocol"), head.Protocol)
	return appendRest(dst, out, head, scheme, authority, -1, true)
}

// appendRest appends what follows the method.
func appendRest(dst, out []byte, head *exchange.Head, scheme, authority string, length int64, connect bool) ([]byte, error) {
	if scheme == "https" {
		out = append(out, indexedField|staticHTTPS)
	} else {
		out = append(out, indexedField|staticHTTP)
	}
	if head.Authority != "" {
		authority = head.Authority
	}
	if !section.ValidToken(head.Method) || !section.ValidTarget(authority) {
		return dst, fmt.Errorf("the method %.40q or authority %.80q cannot be sent", head.Method, authority)
	}
	out = appendString(append(out, plainLiteral|staticAuthority), authority)
	if head.Path() == "/" && !head.HasQuery() {
		out = append(out, indexedField|staticPath)
	} else {
		var ok bool
		if out, ok = appendTarget(append(out, plainLiteral|staticPath), head); !ok {
			return dst, fmt.Errorf("the target %.80q cannot be sent: it is empty or holds a space or control character", head.ForwardTarget())
		}
	}
	if length >= 0 {
		out = appendLength(out, length)
	}
	for i := range head.Fields {
		f := &head.Fields[i]
		switch {
		case f.ID == exchange.TE && strings.EqualFold(f.Value, "trailers"): // RFC 9113 8.2.2
		case forbidden(f.ID):
			continue
		case connect && (f.ID == exchange.Trailer || f.ID == exchange.Expect || isKey(f)):
			continue
		}
		var err error
		if out, err = AppendField(out, f); err != nil {
			return dst, err
		}
	}
	return out, nil
}

// isKey reports whether a field is of the WebSocket handshake in HTTP/1.1.
func isKey(f *exchange.Field) bool {
	const key = "sec-websocket-key"
	return len(f.Name) == len(key) && equalFold(f.Name, key)
}

// appendTarget appends the forward target as a string.
func appendTarget(out []byte, head *exchange.Head) (_ []byte, ok bool) {
	n := len(head.Path()) + len(head.Query())
	if head.HasQuery() {
		n++
	}
	out = appendInteger(out, 0, 7, n)
	out = head.AppendTarget(out)
	return out, n > 0 && section.ValidTarget(view(out[len(out)-n:]))
}

// AppendResponse appends a response's block. length becomes the content-length; -1 is none. Fields of one connection and content-length are left
// out. The error names a field that cannot be sent; dst comes back as it was.
func AppendResponse(dst []byte, status int, fields exchange.Fields, length int64) ([]byte, error) {
	if status < 100 || status > 999 {
		return dst, fmt.Errorf("the status %d cannot be sent: it has not three digits", status)
	}
	out := appendStatus(dst, status)
	if length >= 0 {
		out = appendLength(out, length)
	}
	return appendFields(dst, out, fields)
}

// AppendTrailers appends the block of the fields after a body.
func AppendTrailers(dst []byte, fields exchange.Fields) ([]byte, error) {
	return appendFields(dst, dst, fields)
}

func appendFields(dst, out []byte, fields exchange.Fields) ([]byte, error) {
	for i := range fields {
		if forbidden(fields[i].ID) {
			continue
		}
		var err error
		if out, err = AppendField(out, &fields[i]); err != nil {
			return dst, err
		}
	}
	return out, nil
}

// forbidden names the fields that are of one connection (RFC 9113 8.2.2) or that the encoder writes by itself.
func forbidden(id exchange.ID) bool {
	switch id {
	case exchange.Connection, exchange.KeepAlive, exchange.ProxyConnection, exchange.TransferEncoding, exchange.Upgrade,
		exchange.HTTP2Settings, exchange.TE, exchange.Host, exchange.ContentLength:
		return true
	}
	return false
}

func appendStatus(out []byte, status int) []byte {
	var i int
	switch status {
	case 200:
		i = staticStatus
	case 204:
		i = staticStatus + 1
	case 206:
		i = staticStatus + 2
	case 304:
		i = staticStatus + 3
	case 400:
		i = staticStatus + 4
	case 404:
		i = staticStatus + 5
	case 500:
		i = staticStatus + 6
	default:
		return append(out, plainLiteral|staticStatus, 3, byte('0'+status/100), byte('0'+status/10%10), byte('0'+status%10))
	}
	return append(out, indexedField|byte(i))
}

func appendLength(out []byte, length int64) []byte {
	var digits [20]byte
	text := strconv.AppendInt(digits[:0], length, 10)
	out = appendInteger(out, plainLiteral, 4, staticContentLength)
	return append(append(out, byte(len(text))), text...)
}

// AppendField appends one field as it is, whatever its name, behind what AppendRequest, AppendResponse or AppendTrailers made. The error
// names a field that cannot be sent: past another hop it would be another message.
func AppendField(out []byte, f *exchange.Field) ([]byte, error) {
	value := trimSpace(f.Value)
	if !section.ValidValue(value) {
		return out, fmt.Errorf("the field %.40q cannot be sent: its value holds a control character", f.Name)
	}
	i := int(staticByID[f.ID])
	if i == 0 {
		i = staticName(f.Name)
	}
	first := byte(plainLiteral)
	switch f.ID {
	case exchange.Authorization, exchange.ProxyAuthorization, exchange.Cookie:
		first = neverLiteral
	}
	if i == staticSetCookie {
		first = neverLiteral
	}
	if i != 0 {
		return appendString(appendInteger(out, first, 4, i), value), nil
	}
	from := len(out)
	out = appendString(append(out, first), f.Name)
	if !section.Lower(out[len(out)-len(f.Name):]) {
		return out[:from], fmt.Errorf("the field name %.40q cannot be sent: it is no token", f.Name)
	}
	return appendString(out, value), nil
}

// trimSpace leaves out the white space around a value, which is none of it (RFC 9110 5.5).
func trimSpace(value string) string {
	if value == "" || value[0] > ' ' && value[len(value)-1] > ' ' {
		return value
	}
	return strings.Trim(value, " \t")
}

// appendInteger appends an integer behind the bits of first (RFC 7541 5.1).
func appendInteger(out []byte, first byte, prefix uint, n int) []byte {
	most := 1<<prefix - 1
	if n < most {
		return append(out, first|byte(n))
	}
	out = append(out, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n))
}

func appendString(out []byte, s string) []byte { return append(appendInteger(out, 0, 7, len(s)), s...) }
