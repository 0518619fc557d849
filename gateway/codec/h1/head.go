package h1

import (
	"unsafe"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// A head is parsed in one pass from its first byte on, into views:
//
//	request-line | status-line
//	*( name ":" OWS value OWS CRLF )
//	CRLF
//
// That is RFC 9112 2.1 without what it allows a recipient to be lenient about: lines end with CRLF and nothing else, no line is folded,
// no space stands before a colon. A parse that runs out of bytes says so and is made again from the start when there are more; whether a
// head is refused, and why, so depends on its bytes alone and never on how they arrived.

// problem is why a message is refused; "" when it is not. It becomes the cause of a Fault.
type problem string

// Error returns the problem's text.
func (p problem) Error() string { return string(p) }

// More bytes are needed to tell; never the cause of a Fault.
const incomplete problem = "the message goes on"

// The bounds; a request that is over one is answered with 431.
const (
	tooLong problem = "the head or trailer section is longer than the limit; raise the limit or send less"
	tooMany problem = "the head or trailer section has more fields than the limit; raise the limit or send fewer"
)

const (
	badLineEnd      problem = "a line does not end with CRLF"
	badControl      problem = "a field value holds a control character"
	badFold         problem = "a field line is folded (RFC 9112 5.2)"
	badNameSpace    problem = "space stands between a field name and its colon (RFC 9112 5.1)"
	badName         problem = "a field name is empty or not a token"
	badHosts        problem = "there is more than one Host"
	badLength       problem = "Content-Length is not a number of bytes"
	badLengths      problem = "there are two Content-Lengths that differ"
	badEncoding     problem = "Transfer-Encoding is not exactly chunked"
	badEncodings    problem = "there is more than one Transfer-Encoding"
	badFraming      problem = "Content-Length and Transfer-Encoding contradict each other (RFC 9112 6.3)"
	badOldEncoding  problem = "Transfer-Encoding does not belong to HTTP/1.0 (RFC 9112 6.1)"
	badUpgradeBody  problem = "a request that upgrades must not have a body"
	badInterimFrame problem = "an interim response announces a body (RFC 9110 8.6)"
)

// kind says which rules hold for fields.
type kind uint8

const (
	ofRequest kind = iota
	ofResponse
	ofTrailers
)

// parse is one parse of a head or trailer section.
type parse struct {
	b    []byte // the bytes there are, from the section's first on
	i    int    // of them parsed
	kind kind

	fields exchange.Fields
	count  int // of field lines, with those that are not kept
	most   int

	// What the fields say about the message.
	host              string
	length            int64 // -1 without Content-Length
	hosts, encodings  int
	close, keepAlive  bool
	upgrade, proceed  bool   // Connection: upgrade; Expect: 100-continue
	protocol          string // the value of Upgrade
	protocolAmbiguous bool   // more than one Upgrade line
}

// view makes a string of bytes in the reader's buffer without copying them.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// section parses field lines up to and with the empty line.
func (p *parse) section() problem {
	b, i := p.b, p.i
	for {
		if i == len(b) {
			return incomplete
		}
		name := token(b[i:])
		colon := i + name
		if colon == len(b) {
			return incomplete
		}
		if b[colon] != ':' || name == 0 {
			p.i = i
			return p.noName(colon)
		}
		start := colon + 1
		for start < len(b) && (b[start] == ' ' || b[start] == '\t') {
			start++
		}
		end := start + value(b[start:])
		if end == len(b) {
			return incomplete
		}
		if why := lineEnd(b[end:], badControl); why != "" {
			return why
		}
		if p.count++; p.count > p.most {
			return tooMany
		}
		field := exchange.Field{Name: view(b[i:colon]), Value: view(trimOWS(b[start:end]))}
		field.ID = exchange.IDOf(field.Name)
		keep := true
		if field.ID != exchange.Unknown && p.kind != ofTrailers {
			var why problem
			if keep, why = p.look(&field, b[colon+1:end]); why != "" {
				return why
			}
		}
		if keep {
			p.fields = append(p.fields, field)
		}
		i = end + 2
	}
}

// noName tells what stands where a field line has no name and colon: the empty line, or why not. p.i is where the line begins.
func (p *parse) noName(at int) problem {
	c := p.b[at]
	switch {
	case at > p.i && (c == ' ' || c == '\t'):
		return badNameSpace
	case c == ' ' || c == '\t':
		return badFold
	case at > p.i && c != '\n':
		return badName
	}
	why := lineEnd(p.b[at:], badName)
	if why == "" {
		p.i += 2
	}
	return why
}

// lineEnd looks for CRLF. What else may not stand there is other.
func lineEnd(b []byte, other problem) problem {
	switch {
	case b[0] == '\n':
		return badLineEnd
	case b[0] != '\r':
		return other
	case len(b) == 1:
		return incomplete
	case b[1] != '\n':
		return badLineEnd
	}
	return ""
}

// look takes from a well-known field what it says about the message. raw is the value with its white space. keep tells whether the field
// goes among the others.
func (p *parse) look(f *exchange.Field, raw []byte) (keep bool, why problem) {
	switch f.ID {
	case exchange.Host:
		if p.kind != ofRequest {
			return true, ""
		}
		if p.hosts++; p.hosts > 1 {
			return false, badHosts
		}
		p.host = f.Value
		return false, ""
	case exchange.ContentLength:
		length := number(f.Value)
		switch {
		case length < 0:
			return false, badLength
		case p.length < 0:
			p.length = length
		case p.length == length: // said twice, meant once (RFC 9110 8.6)
			return false, ""
		default:
			return false, badLengths
		}
	case exchange.TransferEncoding:
		if p.encodings++; p.encodings > 1 {
			return false, badEncodings
		}
		// Servers disagree about white space and case around the coding. No client needs either; an endpoint is taken at its word.
		if p.kind == ofResponse && !isFold(f.Value, "chunked") || p.kind == ofRequest && string(raw) != " chunked" && string(raw) != "chunked" {
			return false, badEncoding
		}
	case exchange.Connection:
		p.connection(f.Value)
	case exchange.Upgrade:
		p.protocolAmbiguous = p.protocol != ""
		p.protocol = f.Value
	case exchange.Expect:
		if p.kind == ofRequest && isFold(f.Value, "100-continue") {
			p.proceed = true
			return false, ""
		}
	}
	return true, ""
}

// number reads 1*DIGIT; -1 when it is not that, or does not fit.
func number(s string) int64 {
	const most = 1<<63 - 1
	n := uint64(0)
	for i := range len(s) {
		digit := s[i] - '0'
		if digit > 9 || n > (most-uint64(digit))/10 {
			return -1
		}
		n = n*10 + uint64(digit)
	}
	if s == "" {
		return -1
	}
	return int64(n)
}

// connection looks for the options that matter here in a Connection field (RFC 9110 7.6.1).
func (p *parse) connection(list string) {
	for start := 0; start <= len(list); {
		end := start
		for end < len(list) && list[end] != ',' {
			end++
		}
		option := list[start:end]
		for option != "" && (option[0] == ' ' || option[0] == '\t') {
			option = option[1:]
		}
		for option != "" && (option[len(option)-1] == ' ' || option[len(option)-1] == '\t') {
			option = option[:len(option)-1]
		}
		switch {
		case isFold(option, "close"):
			p.close = true
		case isFold(option, "keep-alive"):
			p.keepAlive = true
		case isFold(option, "upgrade"):
			p.upgrade = true
		}
		start = end + 1
	}
}

// closes tells whether the connection ends after the message (RFC 9112 9.3).
func (p *parse) closes(proto exchange.Proto) bool {
	return p.close || proto == exchange.HTTP10 && !p.keepAlive
}

// framing holds together what the fields say about the body's length: RFC 9112 6.3, where a recipient that is no guesser stops.
func (p *parse) framing(proto exchange.Proto) problem {
	switch {
	case p.encodings == 0:
		return ""
	case p.length >= 0:
		return badFraming
	case proto == exchange.HTTP10:
		return badOldEncoding
	}
	return ""
}

// protocolOf reads the version at the start of b, which must end a line when last is true. n is how long it is.
func protocolOf(b []byte) (proto exchange.Proto, why problem) {
	const prefix = "HTTP/1."
	if len(b) <= len(prefix) {
		if string(b) == prefix[:len(b)] {
			return 0, incomplete
		}
		return 0, badVersion
	}
	if string(b[:len(prefix)]) != prefix {
		return 0, badVersion
	}
	switch b[len(prefix)] {
	case '1':
		return exchange.HTTP11, ""
	case '0':
		return exchange.HTTP10, ""
	}
	return 0, badVersion
}

const (
	versionSize         = len("HTTP/1.1")
	badVersion  problem = "the version is neither HTTP/1.1 nor HTTP/1.0"
)
