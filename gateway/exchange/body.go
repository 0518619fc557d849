package exchange

import "io"

// Body is a message body that streams: it is read once, from one goroutine, and closed once by who owns the exchange's side.
type Body interface {
	// Read returns io.EOF at the end of a whole body. An error other than io.EOF is a *Fault when its side is known.
	io.Reader
	// Close gives up what is left. The connection below stays usable only when the body was read to its end.
	io.Closer
	// Length is the body's length in bytes, or -1 when it is not known beforehand.
	Length() int64
	// Trailers returns the trailer fields; valid after Read returned io.EOF.
	Trailers() Fields
}

// Ready is a Body that knows what of it lies in memory already. A body that does so whole needs no goroutine to send it.
type Ready interface {
	Body
	// Ready returns how many bytes can be read without waiting, and whether the body ends after them.
	Ready() (n int, whole bool)
}

// NoBody is the empty body.
var NoBody Body = noBody{}

type noBody struct{}

func (noBody) Read([]byte) (int, error) { return 0, io.EOF }
func (noBody) Close() error             { return nil }
func (noBody) Length() int64            { return 0 }
func (noBody) Trailers() Fields         { return nil }
func (noBody) Ready() (int, bool)       { return 0, true }

// Bytes returns a body over b, which must not change while the body is in use.
func Bytes(b []byte) Body { return &bytesBody{rest: b, size: len(b)} }

type bytesBody struct {
	rest []byte
	size int
}

func (b *bytesBody) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (*bytesBody) Close() error     { return nil }
func (b *bytesBody) Length() int64  { return int64(b.size) }
func (*bytesBody) Trailers() Fields { return nil }

func (b *bytesBody) Ready() (int, bool) { return len(b.rest), true }

// Replay returns the body source, whose bytes were all read, to be read again: they are b, and must not change while the body is in use. Length,
// Trailers and Close are source's.
func Replay(source Body, b []byte) Body { return &replay{Body: source, rest: b} }

type replay struct {
	Body
	rest []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *replay) Ready() (int, bool) { return len(r.rest), true }

// Stream is a raw two-way byte stream: what is left of an exchange after a protocol switch.
type Stream interface {
	io.ReadWriteCloser
	// CloseWrite tells the other end that no more bytes follow. errors.ErrUnsupported means that the protocol below cannot say so
	// and only Close is left.
	CloseWrite() error
}
