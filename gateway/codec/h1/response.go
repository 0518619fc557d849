package h1

import "gatehouse.dev/gatehouse/gateway/exchange"

const badStatusLine problem = "the status line is not VERSION SP three digits [SP reason] (RFC 9112 4)"

// response parses a whole response head. method is the request's.
func (p *parse) response(resp *exchange.Response, m *Message, method string) problem {
	resp.Status, resp.Fields = 0, resp.Fields[:0]
	proto, status, why := p.statusLine()
	if why != "" {
		return why
	}
	p.fields, p.length = resp.Fields, -1
	why = p.section()
	resp.Fields = p.fields
	if why != "" {
		return why
	}
	if why = p.framing(proto); why != "" {
		return why
	}
	resp.Status = status
	*m = Message{Proto: proto, Close: p.closes(proto)}
	switch {
	case status < 200:
		// What follows is the next response, or the new protocol's bytes: there is no telling them from a body.
		if p.encodings > 0 || p.length > 0 {
			return badInterimFrame
		}
		m.Length = Unsaid
	case status == 204 || method == connect && status < 300:
		// A server that announces content all the same may also send it (RFC 9110 15.3.5).
		m.Length, m.Close = Unsaid, m.Close || p.encodings > 0 || p.length > 0
	case p.encodings > 0:
		m.Length = Chunked
	case p.length >= 0:
		m.Length = p.length
	case bodiless(status, method):
		m.Length = Unsaid
	default:
		m.Length, m.Close = UntilClose, true
	}
	return ""
}

// bodiless tells whether a response ends with its head, whatever that says (RFC 9112 6.3).
func bodiless(status int, method string) bool {
	return status < 200 || status == 204 || status == 304 || method == "HEAD" || method == connect && status < 300
}

// statusLine parses the first line. The space that must stand before an empty reason is often left out, and nothing depends on it.
func (p *parse) statusLine() (proto exchange.Proto, status int, why problem) {
	b := p.b
	if proto, why = protocolOf(b); why != "" {
		return 0, 0, why
	}
	i := versionSize
	for _, class := range [...]byte{' ', '1', '0', '0'} { // the first digit is not 0
		switch {
		case i == len(b):
			return 0, 0, incomplete
		case class == ' ' && b[i] == ' ':
		case class != ' ' && class <= b[i] && b[i] <= '9':
			status = status*10 + int(b[i]-'0')
		default:
			return 0, 0, lineProblem(b[i], badStatusLine)
		}
		i++
	}
	if i == len(b) {
		return 0, 0, incomplete
	}
	if b[i] == ' ' {
		i += value(b[i:])
		if i == len(b) {
			return 0, 0, incomplete
		}
	}
	if why = lineEnd(b[i:], badStatusLine); why != "" {
		return 0, 0, why
	}
	p.i = i + 2
	return proto, status, ""
}
