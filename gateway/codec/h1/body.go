package h1

import (
	"io"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// A chunked body (RFC 9112 7.1) is taken apart byte by byte where it is framing, and in bulk where it is data:
//
//	*( 1*16HEXDIG [ ";" extension ] CRLF data CRLF ) 1*16"0" [ ";" extension ] CRLF *( field CRLF ) CRLF
//
//	5;a=b\r\nhello\r\n0\r\n\r\n
//	| |    | |    |   |    |
//	| |    | data |   |    inTrailers: an empty section: done
//	| |    sizeEnd|   sizeEnd, with nothing left: inTrailers
//	| extension   dataEnd
//	size
//
// Extensions are dropped. They may take 4 KiB in one line, and in a body 4 KiB and a byte more for each 16 bytes of data: enough for
// signatures, not enough to make a gateway read what it does not forward.
const (
	mostDigits    = 16
	mostExtension = 4 << 10
)

const (
	badChunkSize   problem = "a chunk size is not 1 to 16 hex digits (RFC 9112 7.1)"
	badChunkLine   problem = "a chunk line does not end with CRLF"
	badChunkEnd    problem = "chunk data is not followed by CRLF: it is longer or shorter than its size"
	badExtension   problem = "a chunk extension holds a control character"
	longExtensions problem = "chunk extensions are longer than 4 KiB and a sixteenth of the data"
)

// state is where in its framing a body is.
type state uint8

const (
	done    state = iota
	counted       // left bytes follow
	closing       // all that follows, up to the end of the connection
	// The states of a chunked body; data is the one in which left counts.
	size
	extension
	sizeEnd
	data
	dataEnd
	dataEndLF
	inTrailers
)

// body is the state of reading a body.
type body struct {
	state  state
	digits uint8 // of the chunk size, so far
	left   int64 // bytes of the body, or of the chunk
	// Bytes of extensions in the line and in the body; bytes of data in the chunks before.
	line, extensions, total int64
}

// begin starts a body; length is Message.Length.
func (b *body) begin(length int64) {
	*b = body{left: length}
	switch {
	case length > 0:
		b.state = counted
	case length == Chunked:
		b.state, b.left = size, 0
	case length == UntilClose:
		b.state = closing
	}
}

// frame takes framing off the front of p, up to data or the trailers. n is how much that is.
func (b *body) frame(p []byte) (n int, why problem) {
	for n < len(p) {
		c := p[n]
		n++
		switch b.state {
		case size:
			why = b.sizeByte(c)
		case extension:
			why = b.extensionByte(c)
		case sizeEnd:
			if c != '\n' {
				return n, badChunkLine
			}
			if b.state = data; b.left == 0 {
				b.state = inTrailers
			}
			return n, ""
		case dataEnd:
			if c != '\r' {
				return n, badChunkEnd
			}
			b.state = dataEndLF
		case dataEndLF:
			if c != '\n' {
				return n, badChunkEnd
			}
			b.state, b.digits = size, 0
		}
		if why != "" {
			return n, why
		}
	}
	return n, ""
}

func (b *body) sizeByte(c byte) problem {
	digit, ok := hexDigit(c)
	switch {
	case ok && (b.digits == mostDigits || b.left>>59 != 0):
		return badChunkSize
	case ok:
		b.left = b.left<<4 | int64(digit)
		b.digits++
	case b.digits == 0:
		return badChunkSize
	case c == '\r':
		b.state = sizeEnd
	case c == ';':
		b.state, b.line = extension, 0
	case c == '\n':
		return badChunkLine
	default:
		return badChunkSize
	}
	return ""
}

func (b *body) extensionByte(c byte) problem {
	switch {
	case c == '\r':
		b.state = sizeEnd
		return ""
	case c == '\n':
		return badChunkLine
	case classes[c]&inValue == 0:
		return badExtension
	}
	b.line++
	b.extensions++
	if b.line > mostExtension || b.extensions > mostExtension+b.total/16 {
		return longExtensions
	}
	return ""
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// used counts n bytes of a chunk's data.
func (b *body) used(n int) {
	b.total += int64(n)
	if b.left -= int64(n); b.left == 0 {
		b.state = dataEnd
	}
}

// Read reads the body of the current message. It returns io.EOF at the body's end, trailers included: with the last bytes when the end is
// known by then. A connection that ends early makes io.ErrUnexpectedEOF, a malformed chunk a *exchange.Fault of kind BadRequest or, in a
// response, UpstreamProtocol. An error of src comes as it is, and the read can be made again.
func (r *Reader) Read(p []byte) (int, error) {
	switch {
	case r.body.state == done:
		return 0, io.EOF
	case r.failure != nil:
		return 0, r.failure
	case len(p) == 0:
		return 0, nil
	case r.body.state == counted:
		return r.readCounted(p)
	case r.body.state == closing:
		return r.readClosing(p)
	}
	return r.readChunked(p)
}

func (r *Reader) readCounted(p []byte) (n int, err error) {
	if int64(len(p)) > r.body.left {
		p = p[:r.body.left]
	}
	if r.pos < r.end {
		n = copy(p, r.buf[r.pos:r.end])
		r.pos += n
	} else if n, err = r.take(p); err != nil {
		return 0, cut(err)
	}
	if r.body.left -= int64(n); r.body.left == 0 {
		r.body.state = done
		return n, io.EOF
	}
	return n, nil
}

func (r *Reader) readClosing(p []byte) (n int, err error) {
	if r.pos < r.end {
		n = copy(p, r.buf[r.pos:r.end])
		r.pos += n
		return n, nil
	}
	n, err = r.take(p)
	if err == io.EOF {
		r.body.state = done
	}
	return n, err
}

// cut says what the end of the connection is within a body.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *Reader) readChunked(p []byte) (n int, err error) {
	for {
		n, err = r.decode(p, n)
		switch {
		case n > 0 && err != io.EOF:
			return n, nil // a fault waits in r.failure
		case err != nil:
			return n, err
		}
		n, err = r.more(p)
		switch {
		case err == io.EOF && r.body.state == inTrailers && r.lookAgain():
		case err != nil:
			return 0, cut(err)
		}
		if n == len(p) {
			return n, nil
		}
	}
}

// decode takes what the buffer holds of the body; the first n bytes of p are filled already. Framing that follows the data is taken too, so
// that the end is known as early as can be.
func (r *Reader) decode(p []byte, n int) (int, error) {
	for r.pos < r.end && r.failure == nil {
		switch r.body.state {
		case data:
			most := min(int64(len(p)-n), r.body.left)
			taken := copy(p[n:n+int(most)], r.buf[r.pos:r.end])
			if taken == 0 {
				return n, nil
			}
			n += taken
			r.pos += taken
			r.body.used(taken)
		case inTrailers:
			if !r.parseTrailers() {
				return n, r.failure
			}
			r.body.state = done
			return n, io.EOF
		default:
			used, why := r.body.frame(r.buf[r.pos:r.end])
			r.pos += used
			if why != "" {
				return n, r.refuse(why)
			}
		}
	}
	return n, r.failure
}

// parseTrailers parses the trailer section once it is whole. false: more is needed, or r.failure says why not.
func (r *Reader) parseTrailers() bool {
	if !r.complete() {
		return false
	}
	p := parse{b: r.window(), kind: ofTrailers, most: r.limits.Fields, fields: r.trailers[:0]}
	why := p.section()
	r.trailers = p.fields
	if ok, _ := r.outcome(why); !ok {
		return false
	}
	r.pos += p.i
	r.base, r.scanned = r.pos, 0
	return true
}

// directly is the least data worth reading past the buffer.
const directly = 2 << 10

// more reads more of a chunked body. A long chunk's data goes straight into p, of which n bytes are filled then, and what comes behind
// the chunk into the buffer; everything else goes into the buffer.
func (r *Reader) more(p []byte) (n int, err error) {
	b := &r.body
	if b.state == data && b.left >= int64(len(p)) {
		n, err = r.take(p)
		b.used(n)
		return n, err
	}
	r.makeRoom()
	room := r.buf[r.end:]
	if b.state != data || b.left < directly {
		n, err = r.take(room)
		r.end += n
		return 0, err
	}
	most := int(b.left)
	n, err = r.take(p[:min(len(p), most+len(room))])
	if n > most {
		r.end += copy(room, p[most:n])
		n = most
	}
	b.used(n)
	return n, err
}

// makeRoom makes room in the buffer for a chunked body. The unread bytes, of which there are none outside a trailer section, stay together.
func (r *Reader) makeRoom() {
	if r.pos == r.end {
		r.pos, r.end = r.base, r.base
	}
	if len(r.buf)-r.end >= bodyRoom {
		return
	}
	if r.pos > r.base {
		r.end = r.base + copy(r.buf[r.base:], r.buf[r.pos:r.end])
		r.pos = r.base
	}
	if len(r.buf)-r.end < bodyRoom {
		r.move(max(poolSize, 2*(r.end-r.pos)))
	}
}

// Ready returns how many bytes of the body can be read without waiting, and whether the body ends after them.
func (r *Reader) Ready() (n int, whole bool) {
	buffered := r.end - r.pos
	switch {
	case r.body.state == done:
		return 0, true
	case r.failure != nil:
		return 0, false
	case r.body.state == counted:
		if int64(buffered) >= r.body.left {
			return int(r.body.left), true
		}
		return buffered, false
	case r.body.state == closing:
		return buffered, false
	}
	b, rest := r.body, r.buf[r.pos:r.end]
	for len(rest) > 0 {
		switch b.state {
		case data:
			taken := int(min(int64(len(rest)), b.left))
			n += taken
			rest = rest[taken:]
			b.used(taken)
		case inTrailers:
			// Only Read looks at trailers: an empty section is the usual one.
			return n, len(rest) >= 2 && rest[0] == '\r' && rest[1] == '\n'
		default:
			used, why := b.frame(rest)
			if why != "" {
				return n, false
			}
			rest = rest[used:]
		}
	}
	return n, false
}

// Whole reports whether the current message was read to its end; true between messages.
func (r *Reader) Whole() bool { return !r.within || r.body.state == done }

// Trailers returns the trailer fields, valid from the body's end to Next. Any name may stand among them: who forwards them leaves out
// what must not be there.
func (r *Reader) Trailers() exchange.Fields { return r.trailers }

// Raw makes the rest of the connection one stream of raw bytes, for after a protocol switch: Read returns them, and io.EOF at their end.
func (r *Reader) Raw() {
	r.body = body{state: closing}
	r.base, r.within = r.pos, true
}
