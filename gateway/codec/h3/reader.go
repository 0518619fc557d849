package h3

import (
	"errors"
	"io"
	"os"
	"sync"

	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// A request stream carries one message (RFC 9114 4.1):
//
//	HEADERS  DATA*  [HEADERS]  end of stream
//
// with frames of unknown types anywhere between. A frame is its type, its length and a payload of that length, the two as variable-length
// integers. Every other frame of HTTP/3 is forbidden here.
//
// The Reader has one buffer. The head's block stays where it was read, since the head's strings are views into it, and what comes after
// goes behind it, so that a request which lies in one packet is read by one Read:
//
//	buf  | 01 1e head's block | 00 05 h e l l o | free ...
//	                          keep  pos         end
//
// A large body is read past the buffer, straight into the memory of who asks for it.

const (
	// bufferSize is the buffer that a stream begins with.
	bufferSize = 4 << 10
	// leastRoom is what must be free for a Read of the stream.
	leastRoom = 1 << 10
	// directRead is from how many bytes on a body is read past the buffer.
	directRead = 2 << 10

	// A stream's budget for frames that carry nothing: ones of unknown types, which clients send to keep servers tolerant, and empty DATA.
	mostIdleFrames = 64
	mostIdleBytes  = 64 << 10
)

// buffers lends the buffers that streams begin with.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Reader reads the message of one request stream. It is used again after Release. It is not safe for concurrent use.
//
// Its errors are *ConnError and *StreamError for breaches of the protocol, *exchange.Fault for what the client is told, and those of the
// source as they are.
type Reader struct {
	src     io.Reader
	limits  section.Limits
	decoder Decoder

	first, second *[bufferSize]byte // lent; second when something large stands before what is read
	buf           []byte            // one of them, or a larger one
	keep          int               // views look into what is before it
	pos           int               // what is not used yet begins here
	end           int               // and ends here
	over          bool
	err           error // of the source

	left   uint64 // bytes of the DATA frame under way
	length int64  // content-length, -1 without
	count  int64  // body bytes announced by DATA frames
	done   bool   // the trailers were read; no frame of the message may follow
	raw    bool   // a tunnel

	idleFrames, idleBytes int

	trailers exchange.Fields
}

// Init makes the reader ready for a new stream. limits bound the head, and the trailers.
func (r *Reader) Init(src io.Reader, limits section.Limits) {
	r.src, r.limits, r.length = src, limits, -1
	r.first, _ = buffers.Get().(*[bufferSize]byte)
	r.buf = r.first[:]
}

// Release gives the memory back. No view may be used any more.
func (r *Reader) Release() {
	for _, lent := range [...]*[bufferSize]byte{r.first, r.second} {
		if lent != nil {
			exchange.Poison(lent[:])
			buffers.Put(lent)
		}
	}
	r.decoder.Reset()
	trailers := r.trailers
	clear(trailers[:cap(trailers)])
	*r = Reader{decoder: r.decoder, trailers: trailers[:0]}
}

// ReadRequest reads the head; it waits for it. The strings are views, valid until Release. Nothing can be read after an error.
func (r *Reader) ReadRequest(head *exchange.Head) error {
	for {
		kind, size, err := r.frame()
		switch {
		case err == io.EOF:
			return &StreamError{RequestIncomplete, "the stream ended before the request"}
		case err != nil:
			return err
		case kind == typeData:
			return &ConnError{FrameUnexpected, "DATA before HEADERS"}
		case kind != typeHeaders:
			if err := r.pass(kind, size); err != nil {
				return err
			}
			continue
		}
		block, err := r.block(size)
		if err != nil {
			return err
		}
		if r.length, err = r.decoder.Request(block, head, r.limits); err != nil {
			return refusal(err)
		}
		if r.length > 0 && r.pos == r.end && r.over && r.err == io.EOF {
			return malformed("a content-length and no body")
		}
		return nil
	}
}

// refusal makes an error of a field section what the client is told.
func refusal(err error) error {
	if malformed, ok := errors.AsType[section.Malformed](err); ok {
		return exchange.NewFault(exchange.BadRequest, &StreamError{MessageError, string(malformed)})
	}
	if errors.Is(err, section.ErrTooLarge) {
		return exchange.NewFault(exchange.FieldsTooLarge, err)
	}
	return err
}

// block reads the payload of a HEADERS frame and sets it aside.
func (r *Reader) block(size uint64) ([]byte, error) {
	// A block longer than its fields may be is over the limit, or wastefully written.
	if size > uint64(r.limits.Bytes) {
		return nil, refusal(section.ErrTooLarge)
	}
	for r.end-r.pos < int(size) {
		if err := r.fill(int(size)); err != nil {
			return nil, truncated(err)
		}
	}
	block := r.buf[r.pos : r.pos+int(size)]
	r.pos += int(size)
	r.keep = r.pos
	return block, nil
}

func truncated(err error) error {
	if err == io.EOF {
		return &ConnError{FrameError, "the stream ended within a frame"} // RFC 9114 7.1
	}
	return err
}

// frame reads the type and length of the next frame. io.EOF is the end of the stream between two frames.
func (r *Reader) frame() (kind, size uint64, err error) {
	for {
		kind, size, n := r.peek(r.pos)
		if n > 0 {
			r.pos += n
			return kind, size, nil
		}
		if err := r.fill(2 * maxVarintLen); err != nil {
			if r.pos < r.end {
				err = truncated(err)
			}
			return 0, 0, err
		}
	}
}

// pass skips a frame that is not of the message, or refuses it.
func (r *Reader) pass(kind, size uint64) error {
	switch kind {
	case typeCancelPush, typeSettings, typePushPromise, typeGoAway, typeMaxPushID, typePriorityUpdate, typePriorityUpdatePsh:
		return &ConnError{FrameUnexpected, "a frame that belongs on the control stream, or to the server, stands on a request stream"}
	}
	if reserved(kind) {
		return &ConnError{FrameUnexpected, "a frame has a type of HTTP/2"}
	}
	if err := r.idle(size); err != nil {
		return err
	}
	for {
		n := min(uint64(r.end-r.pos), size)
		r.pos += int(n)
		size -= n
		if size == 0 {
			return nil
		}
		if err := r.fill(0); err != nil {
			return truncated(err)
		}
	}
}

// idle takes a frame that carries nothing out of the budget.
func (r *Reader) idle(size uint64) error {
	r.idleFrames++
	if r.idleFrames > mostIdleFrames || size > uint64(mostIdleBytes-r.idleBytes) {
		return &ConnError{ExcessiveLoad, "too many frames that carry nothing"}
	}
	r.idleBytes += int(size)
	return nil
}

// fill reads more; need bytes from pos on must fit in. What a read with a deadline did not get can be read later; other errors stay.
func (r *Reader) fill(need int) error {
	if r.over {
		return r.err
	}
	if r.pos == r.end {
		r.pos, r.end = r.keep, r.keep
	}
	if len(r.buf)-r.pos < need || len(r.buf)-r.end < leastRoom {
		r.move(need)
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	return r.note(n, err)
}

// note keeps what the source ended with. It returns nil when there are bytes to use first.
func (r *Reader) note(n int, err error) error {
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		r.over, r.err = true, err
	}
	if n > 0 {
		return nil
	}
	return err
}

// move makes room: at the front, where used bytes lie, or in another buffer. A block that is long in coming does not get all of its memory
// at once, so that announcing a large one costs little.
func (r *Reader) move(need int) {
	have := r.end - r.pos
	if free := len(r.buf) - r.keep; free >= have+leastRoom && free >= need {
		copy(r.buf[r.keep:], r.buf[r.pos:r.end])
		r.pos, r.end = r.keep, r.keep+have
		return
	}
	var next []byte
	if size := max(have+leastRoom, min(need, 2*have)); size <= bufferSize && r.second == nil {
		r.second, _ = buffers.Get().(*[bufferSize]byte)
		next = r.second[:]
	} else {
		next = make([]byte, max(size, bufferSize))
	}
	copy(next, r.buf[r.pos:r.end])
	r.buf, r.keep, r.pos, r.end = next, 0, 0, have // views look into the old one
}

// Length returns the request's content-length, -1 when it has none.
func (r *Reader) Length() int64 { return r.length }

// Wait waits until something is known of what follows, at most to the source's deadline. See Ready.
func (r *Reader) Wait() error {
	if r.left > 0 || r.pos < r.end || r.over {
		return nil
	}
	return r.fill(0)
}

// Ready returns how many bytes of the body can be read without waiting, and whether the message ends, without trailers, after them.
func (r *Reader) Ready() (n int, whole bool) {
	pos, left, count := r.pos, r.left, r.count
	for {
		m := min(uint64(r.end-pos), left)
		pos, left, n = pos+int(m), left-m, n+int(m)
		if left > 0 {
			return n, false
		}
		if pos == r.end && r.over && r.err == io.EOF && (r.length < 0 || r.length == count) {
			return n, true
		}
		kind, size, length := r.peek(pos)
		if length == 0 || kind != typeData || size == 0 || r.done || r.exceeds(count, size) {
			if count == r.length && n > 0 {
				n-- // the last byte waits for the end; see Read
			}
			return n, false
		}
		pos, left, count = pos+length, size, count+int64(size)
	}
}

// peek reads the beginning of a frame; length is 0 when it is not there.
func (r *Reader) peek(pos int) (kind, size uint64, length int) {
	kind, n := Varint(r.buf[pos:r.end])
	size, m := Varint(r.buf[pos+n : r.end])
	if n == 0 || m == 0 {
		return 0, 0, 0
	}
	return kind, size, n + m
}

// exceeds reports whether a DATA frame makes the body longer than its content-length.
func (r *Reader) exceeds(count int64, size uint64) bool {
	return r.length >= 0 && size > uint64(r.length-count)
}

// Read reads the body. It waits for at least one byte, or the end, io.EOF, which comes when the message was whole. The last byte of a body
// with a content-length comes together with the end: who forwards a body by its length must not find out later that the message was
// malformed.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.left == 0 {
		if err := r.advance(); err != nil {
			return 0, err
		}
	}
	if r.pos == r.end {
		if want := min(uint64(len(p)), r.left); want >= directRead {
			return r.direct(p[:want])
		}
		if err := r.fill(0); err != nil {
			return 0, truncated(err)
		}
	}
	n := 0
	for {
		m := copy(p[n:], r.buf[r.pos:min(uint64(r.end), uint64(r.pos)+r.left)])
		n, r.pos, r.left = n+m, r.pos+m, r.left-uint64(m)
		switch {
		case r.left > 0:
			return n, nil
		case r.count == r.length:
			return n, r.advance()
		case n == len(p):
			return n, nil
		case r.pos == r.end:
			return n, r.ended()
		}
		if kind, size, length := r.peek(r.pos); length == 0 || kind != typeData || size == 0 {
			return n, nil
		}
		if err := r.advance(); err != nil {
			// It is the next read's.
			r.over, r.err, r.pos, r.end = true, err, r.keep, r.keep
			return n, nil
		}
	}
}

// direct reads past the buffer.
func (r *Reader) direct(p []byte) (int, error) {
	if r.over {
		return 0, truncated(r.err)
	}
	n, err := r.src.Read(p)
	r.left -= uint64(n)
	if err := r.note(n, err); err != nil {
		return n, truncated(err)
	}
	switch {
	case r.left > 0:
		return n, nil
	case r.count == r.length:
		return n, r.advance()
	}
	return n, r.ended()
}

// ended returns io.EOF when it is known already that a message without content-length ends here.
func (r *Reader) ended() error {
	if r.over && r.err == io.EOF && r.length < 0 {
		return io.EOF
	}
	return nil
}

// advance goes on to the next DATA frame with something in it, or to the end, io.EOF.
func (r *Reader) advance() error {
	for {
		kind, size, err := r.frame()
		switch {
		case err == io.EOF && r.length >= 0 && r.length != r.count:
			return malformed("the body is shorter than its content-length")
		case err != nil:
			return err
		case r.done && kind <= typeHeaders:
			return &ConnError{FrameUnexpected, "DATA or HEADERS after the trailers"}
		case kind == typeHeaders:
			if err := r.readTrailers(size); err != nil {
				return err
			}
		case kind != typeData:
			if err := r.pass(kind, size); err != nil {
				return err
			}
		case size == 0:
			if err := r.idle(0); err != nil {
				return err
			}
		case r.exceeds(r.count, size):
			return malformed("the body is longer than its content-length")
		default:
			r.left = size
			r.count += int64(size)
			r.idleFrames = max(0, r.idleFrames-1)
			r.idleBytes = int(max(0, int64(r.idleBytes)-int64(size)))
			return nil
		}
	}
}

func malformed(reason string) error {
	return exchange.NewFault(exchange.BadRequest, &StreamError{MessageError, reason})
}

func (r *Reader) readTrailers(size uint64) error {
	if r.raw {
		return &ConnError{FrameUnexpected, "HEADERS within a tunnel"} // RFC 9114 4.4
	}
	block, err := r.block(size)
	if err != nil {
		return err
	}
	r.done = true
	return refusal(r.decoder.Trailers(block, &r.trailers, r.limits))
}

// Trailers returns the trailers; valid after Read returned io.EOF, until Release.
func (r *Reader) Trailers() exchange.Fields {
	if !r.done {
		return nil
	}
	return r.trailers
}

// Tunnel says that the body is a raw stream from now on, without trailers.
func (r *Reader) Tunnel() { r.raw = true }
