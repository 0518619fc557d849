package h1

import (
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	connect         = "CONNECT"
	options         = "OPTIONS"
	wellKnownSwitch = "websocket"
)

const (
	badRequestLine problem = "the request line is not METHOD SP TARGET SP VERSION (RFC 9112 3)"
	badTarget      problem = "the request target holds a control character or '#'"
	badTargetForm  problem = "the request target is neither a path, nor a URL with http or https and a host, nor * with OPTIONS (RFC 9112 3.2)"
	badConnect     problem = "the target of CONNECT is not HOST:PORT (RFC 9112 3.2.3)"
	badAgreement   problem = "the host of the request target and the Host field disagree"
	badHost        problem = "the Host is not HOST or HOST:PORT"
	badMissingHost problem = "an HTTP/1.1 request has no Host (RFC 9112 3.2)"
)

// request parses a whole request head.
func (p *parse) request(head *exchange.Head, m *Message) problem {
	head.Method, head.Authority, head.Target, head.Protocol, head.Fields = "", "", "", "", head.Fields[:0]
	target, proto, why := p.requestLine(head)
	if why != "" {
		return why
	}
	p.fields, p.length = head.Fields, -1
	why = p.section()
	head.Fields = p.fields
	if why != "" {
		return why
	}
	if why = p.framing(proto); why != "" {
		return why
	}
	*m = Message{Proto: proto, Length: max(p.length, 0), Close: p.closes(proto), Continue: p.proceed && proto != exchange.HTTP10}
	if p.encodings > 0 {
		m.Length = Chunked
	}
	switch {
	case p.host == "" && proto != exchange.HTTP10:
		return badMissingHost
	case !exchange.ValidAuthority(p.host):
		return badHost
	}
	head.Authority = p.host
	if why = place(head, target); why != "" {
		return why
	}
	// HTTP/1.0 has no Upgrade (RFC 9110 7.8), and CONNECT is a switch of its own.
	if p.upgrade && proto != exchange.HTTP10 && head.Method != connect {
		return p.switchTo(head, m)
	}
	return ""
}

// requestLine parses the first line. A head that is refused later keeps method and target, for the log.
func (p *parse) requestLine(head *exchange.Head) (line []byte, proto exchange.Proto, why problem) {
	b := p.b
	i := token(b)
	switch {
	case i == len(b):
		return nil, 0, incomplete
	case i == 0 || b[i] != ' ':
		return nil, 0, lineProblem(b[i], badRequestLine)
	}
	head.Method = view(b[:i])
	start := i + 1
	end := start + target(b[start:])
	switch {
	case end == len(b):
		return nil, 0, incomplete
	case end == start || b[end] == '\r':
		return nil, 0, lineProblem(b[end], badRequestLine)
	case b[end] != ' ':
		return nil, 0, lineProblem(b[end], badTarget)
	}
	head.Target = view(b[start:end])
	rest := b[end+1:]
	if proto, why = protocolOf(rest); why != "" {
		return nil, 0, why
	}
	if len(rest) == versionSize {
		return nil, 0, incomplete
	}
	if why = lineEnd(rest[versionSize:], badVersion); why != "" {
		return nil, 0, why
	}
	p.i = end + 1 + versionSize + 2
	return b[start:end], proto, ""
}

// lineProblem prefers the line's end to another reason.
func lineProblem(c byte, other problem) problem {
	if c == '\n' {
		return badLineEnd
	}
	return other
}

// place takes the target apart: Target becomes origin form or "*", and what it says about the host must agree with the Host field
// (RFC 9112 3.2). target is in the reader's buffer.
func place(head *exchange.Head, target []byte) problem {
	switch {
	case head.Method == connect:
		return placeConnect(head)
	case target[0] == '/':
		return ""
	case target[0] == '*' && len(target) == 1 && head.Method == options:
		return ""
	}
	return placeAbsolute(head, target)
}

// placeConnect: the target is the authority. Host may leave the port out, as in the example of RFC 9112 3.2.3.
func placeConnect(head *exchange.Head) problem {
	colon := strings.LastIndexByte(head.Target, ':')
	if colon <= 0 || colon < strings.LastIndexByte(head.Target, ']') || !exchange.ValidAuthority(head.Target) {
		return badConnect
	}
	if head.Authority != "" && !sameFold(head.Authority, head.Target) && !sameFold(head.Authority, head.Target[:colon]) {
		return badAgreement
	}
	head.Authority = head.Target
	return ""
}

// placeAbsolute takes scheme and authority off a URL.
func placeAbsolute(head *exchange.Head, target []byte) problem {
	start, port := len("http://"), ":80"
	if len(target) > start && target[len("http")]|0x20 == 's' {
		start, port = len("https://"), ":443"
	}
	if len(target) <= start || !isFold(target[:start], "http://") && !isFold(target[:start], "https://") {
		return badTargetForm
	}
	end := start
	for end < len(target) && target[end] != '/' && target[end] != '?' {
		end++
	}
	authority := target[start:end]
	if len(authority) == 0 || !exchange.ValidAuthority(view(authority)) {
		return badTargetForm
	}
	if head.Authority != "" && !sameFold(strings.TrimSuffix(head.Authority, port), strings.TrimSuffix(view(authority), port)) {
		return badAgreement
	}
	path := target[end:]
	switch {
	case len(path) > 0 && path[0] == '/':
		head.Target = view(path)
	case len(path) > 0:
		// A query without a path. The authority moves over the scheme, which leaves room for a slash.
		copy(target[start-1:], authority)
		authority = target[start-1 : end-1]
		target[end-1] = '/'
		head.Target = view(target[end-1:])
	case head.Method == options:
		head.Target = "*" // RFC 9112 3.2.4
	default:
		head.Target = "/"
	}
	if head.Authority == "" {
		head.Authority = view(authority)
	}
	return ""
}

// switchTo sees to a request with Connection: upgrade. A server may ignore Upgrade (RFC 9110 7.8), and does when several protocols are
// offered or when they are about the connection itself. Otherwise the request must carry nothing else: what followed its head could be
// taken for the new protocol's bytes by one side and for a body by the other.
func (p *parse) switchTo(head *exchange.Head, m *Message) problem {
	if p.protocolAmbiguous || !isProtocol(p.protocol) {
		return ""
	}
	protocol := wellKnownSwitch
	if !isFold(p.protocol, wellKnownSwitch) {
		protocol = strings.ToLower(p.protocol)
	}
	if protocol == "h2c" || strings.HasPrefix(protocol, "tls/") || strings.HasPrefix(protocol, "http/") {
		return ""
	}
	if m.Length != 0 {
		return badUpgradeBody
	}
	head.Protocol = protocol
	return ""
}

// isProtocol reports whether s is protocol-name ["/" protocol-version], both tokens.
func isProtocol(s string) bool {
	name, version, versioned := strings.Cut(s, "/")
	return isToken(name) && (!versioned || isToken(version))
}
