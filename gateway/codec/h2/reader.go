package h2

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// ReaderLimits bound what a Reader takes. A zero field means its default.
type ReaderLimits struct {
	// Frame is the largest payload: what SETTINGS_MAX_FRAME_SIZE says. Default, and least, MinFrameSize.
	Frame int
	// Block bounds a compressed header block, its CONTINUATION frames included, in bytes. Default 128 KiB.
	Block int
	// Continuations bounds the CONTINUATION frames of one block. Default 32.
	Continuations int
}

// Reader reads frames in place: what it hands out are views into its buffer. It checks what can be told from a frame alone, sizes, stream
// identifiers, padding, and that nothing stands between HEADERS and their CONTINUATION frames, which it joins.
//
// DATA frames come in pieces as they arrive, so that neither a large frame needs a large buffer nor a slow one delays its first bytes:
//
//	DATA, 10 bytes, END_STREAM; 4 have arrived   Frame{Payload: 4 bytes, More: true}
//	the other 6 arrive                           Frame{Payload: 6 bytes, Flags: FlagEndStream}
//
// It is used in one of two ways: Next reads from src when it must; or its owner reads into Space, tells Advance and takes what Buffered
// has. The zero Reader is not ready; Init makes it so.
type Reader struct {
	src    io.Reader
	limits ReaderLimits

	memory   *[]byte // from a pool; nil while nothing is buffered
	buf      []byte  // *memory
	from, to int     // buf[from:to] is unread
	need     int     // how long what stands at from must become before there is a frame
	full     int     // how often in a row a read filled all the space it had

	// The DATA frame under way.
	stream uint32
	flags  Flags
	data   int // bytes of it to come
	pad    int // padding behind them

	// The header block that is being joined.
	block  *[]byte // from a pool
	joined Frame
	done   bool // the block was handed out
}

const (
	// readSize is one frame of the common size and the beginning of the next.
	readSize = 18 << 10
	// bulkSize is for a connection whose reads fill readSize again and again.
	bulkSize = 64 << 10
)

var (
	readPool = sync.Pool{New: func() any { b := make([]byte, readSize); return &b }}
	bulkPool = sync.Pool{New: func() any { b := make([]byte, bulkSize); return &b }}
)

// Init makes the Reader ready for a connection. src may be nil when Next is not used.
func (r *Reader) Init(src io.Reader, limits ReaderLimits) {
	limits.Frame = max(limits.Frame, MinFrameSize)
	if limits.Block == 0 {
		limits.Block = 128 << 10
	}
	if limits.Continuations == 0 {
		limits.Continuations = 32
	}
	*r = Reader{src: src, limits: limits}
}

// Next returns the next frame and waits for it. The error is a *ConnError, or src's: io.EOF between two frames, io.ErrUnexpectedEOF
// within one.
func (r *Reader) Next() (Frame, error) {
	for {
		f, ok, err := r.Buffered()
		if ok || err != nil {
			return f, err
		}
		n, err := r.src.Read(r.Space())
		r.Advance(n)
		if err == nil || n > 0 {
			continue
		}
		if err == io.EOF && r.Within() {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
}

// Space returns where to read into: at least one byte. Views handed out before are not valid after it.
func (r *Reader) Space() []byte {
	if r.from == r.to {
		r.empty()
	}
	if r.memory == nil {
		r.take()
	}
	if want := max(r.need, FrameHeader); r.from+want > len(r.buf) || r.to == len(r.buf) {
		r.makeRoom(want)
	}
	return r.buf[r.to:]
}

// empty starts over at the buffer's beginning; a buffer of the wrong size is changed for another.
func (r *Reader) empty() {
	exchange.Poison(r.buf[:r.to])
	r.from, r.to = 0, 0
	bulk := r.full > 1
	if r.memory != nil && bulk != (len(r.buf) == bulkSize) {
		r.give()
	}
}

func (r *Reader) take() {
	if r.full > 1 {
		r.memory, _ = bulkPool.Get().(*[]byte)
	} else {
		r.memory, _ = readPool.Get().(*[]byte)
	}
	r.buf = *r.memory
}

func (r *Reader) give() {
	switch len(r.buf) {
	case readSize:
		readPool.Put(r.memory)
	case bulkSize:
		bulkPool.Put(r.memory)
	}
	r.memory, r.buf = nil, nil
}

// makeRoom moves what is unread to the front, of a larger buffer if this one cannot hold want bytes.
func (r *Reader) makeRoom(want int) {
	if r.from == 0 && r.to == len(r.buf) { // whoever reads on without taking frames out
		want = max(want, 2*len(r.buf))
	}
	if want <= len(r.buf) {
		r.to = copy(r.buf, r.buf[r.from:r.to])
		r.from = 0
		return
	}
	larger := make([]byte, want)
	n := copy(larger, r.buf[r.from:r.to])
	r.give()
	r.memory, r.buf, r.from, r.to = &larger, larger, 0, n
}

// Advance says that n bytes were read into Space.
func (r *Reader) Advance(n int) {
	switch room := len(r.buf) - r.to; {
	case n == room:
		r.full++
	case n < readSize/2:
		r.full = 0
	}
	r.to += n
}

// Within reports whether a frame or header block has begun and is not complete.
func (r *Reader) Within() bool { return r.to > r.from || r.data > 0 || r.pad > 0 || r.inBlock() }

// Partial reports whether a frame other than DATA has begun and is not complete, or a header block.
func (r *Reader) Partial() bool { return r.to > r.from || r.inBlock() }

// inBlock reports whether HEADERS have begun and their last CONTINUATION is still to come.
func (r *Reader) inBlock() bool { return r.block != nil && !r.done }

// Release gives back memory that holds nothing. Views are not valid after it. The Reader stays usable.
func (r *Reader) Release() {
	r.releaseBlock()
	if r.memory != nil && r.from == r.to {
		r.empty()
		if r.memory != nil {
			r.give()
		}
	}
}

// Close gives all memory back. The Reader must not be used any more.
func (r *Reader) Close() {
	r.from = r.to
	r.done = true
	r.Release()
}

// Preface takes the client's connection preface (RFC 9113 3.4) off what is buffered. ok is false while it has not come whole. The error is a
// *ConnError.
func (r *Reader) Preface() (ok bool, err error) {
	n := min(r.to-r.from, len(Preface))
	if string(r.buf[r.from:r.from+n]) != Preface[:n] {
		return false, &ConnError{ProtocolError, "the connection preface is not HTTP/2's"}
	}
	if n < len(Preface) {
		r.need = len(Preface)
		return false, nil
	}
	r.from += n
	r.need = FrameHeader
	return true, nil
}

// Buffered returns the next frame if it, or a piece of it, is buffered. The error is a *ConnError; nothing may be read after it.
func (r *Reader) Buffered() (f Frame, ok bool, err error) {
	r.releaseBlock()
	for {
		if r.data > 0 || r.pad > 0 {
			f, ok = r.piece(0)
			return f, ok, nil
		}
		if r.to-r.from < FrameHeader {
			r.need = FrameHeader
			return Frame{}, false, nil
		}
		head := r.buf[r.from : r.from+FrameHeader]
		length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		f = Frame{Type: Type(head[3]), Flags: Flags(head[4]), Stream: binary.BigEndian.Uint32(head[5:]) & MaxStream, Frames: 1}
		if length > r.limits.Frame {
			return f, false, &ConnError{FrameSizeError, "a frame is longer than SETTINGS_MAX_FRAME_SIZE allows"}
		}
		if (f.Type == TypeContinuation) != (r.block != nil) || r.block != nil && f.Stream != r.joined.Stream {
			return f, false, &ConnError{ProtocolError, "CONTINUATION is missing or stands alone"}
		}
		if f.Type == TypeData {
			return r.beginData(&f, length)
		}
		r.need = FrameHeader + length
		if r.to-r.from < r.need {
			return Frame{}, false, nil
		}
		f.Payload = r.buf[r.from+FrameHeader : r.from+r.need : r.from+r.need]
		r.from += r.need
		complete, err := r.check(&f)
		if complete || err != nil {
			return f, complete, err
		}
	}
}

// beginData reads a DATA frame's header and pad length and hands out its first piece.
func (r *Reader) beginData(f *Frame, length int) (Frame, bool, error) {
	if f.Stream == 0 {
		return *f, false, onStreamZero(f.Type)
	}
	head, pad := FrameHeader, 0
	if f.Flags&FlagPadded != 0 {
		if length == 0 {
			return *f, false, &ConnError{FrameSizeError, "a padded frame has no pad length"}
		}
		if r.need = FrameHeader + 1; r.to-r.from < r.need {
			return Frame{}, false, nil
		}
		pad = int(r.buf[r.from+FrameHeader])
		head++
		if pad >= length {
			return *f, false, &ConnError{ProtocolError, "a frame has more padding than payload"}
		}
		length--
	}
	r.from += head
	r.stream, r.flags, r.data, r.pad = f.Stream, f.Flags, length-pad, pad
	if length == 0 {
		f.Size = head - FrameHeader
		return *f, true, nil
	}
	piece, ok := r.piece(1)
	if !ok {
		// Nothing of the payload is here yet: the frame is handed out all the same, so that it is counted.
		piece, ok = Frame{Type: TypeData, Flags: f.Flags &^ FlagEndStream, Stream: f.Stream, More: true, Frames: 1}, true
	}
	piece.Size += head - FrameHeader
	return piece, ok, nil
}

// piece returns what is here of the DATA frame under way; its last piece comes with the padding.
func (r *Reader) piece(frames int) (Frame, bool) {
	r.need = 1
	n := min(r.to-r.from, r.data)
	whole := n == r.data && r.to-r.from >= n+r.pad
	if n == 0 && !whole {
		if r.data == 0 {
			r.need = r.pad
		}
		return Frame{}, false
	}
	f := Frame{Type: TypeData, Flags: r.flags, Stream: r.stream, Payload: r.buf[r.from : r.from+n : r.from+n], Size: n, Frames: frames}
	r.from += n
	r.data -= n
	if whole {
		f.Size += r.pad
		r.from += r.pad
		r.pad = 0
		return f, true
	}
	f.More = true
	f.Flags &^= FlagEndStream
	return f, true
}

func onStreamZero(t Type) error {
	return &ConnError{ProtocolError, fmt.Sprintf("frame type %d has no stream", t)}
}

func wrongSize(t Type) error {
	return &ConnError{FrameSizeError, fmt.Sprintf("frame type %d has a length that is not allowed", t)}
}

// check holds a frame against the rules of its type (RFC 9113 6). complete is false for a part of a header block.
func (r *Reader) check(f *Frame) (complete bool, err error) {
	switch f.Type {
	case TypeHeaders:
		return r.headers(f)
	case TypeContinuation:
		return r.continuation(f)
	case TypePriority, TypeReset:
		if f.Stream == 0 {
			return false, onStreamZero(f.Type)
		}
	case TypeSettings, TypePing, TypeGoAway, TypePriorityUpdate:
		if f.Stream != 0 {
			return false, &ConnError{ProtocolError, fmt.Sprintf("frame type %d belongs to stream 0", f.Type)}
		}
	case TypePushPromise:
		return false, &ConnError{ProtocolError, "PUSH_PROMISE, which nobody asked for"}
	}
	return r.checkSize(f)
}

func (r *Reader) checkSize(f *Frame) (bool, error) {
	n, ok := len(f.Payload), true
	switch f.Type {
	case TypePriority:
		switch {
		case n != 5:
			f.Code, f.Reason = FrameSizeError, "PRIORITY is not 5 bytes long"
		default:
			f.dependency(f.Payload)
		}
	case TypeReset:
		ok = n == 4
	case TypeSettings:
		ok = n%6 == 0 && (f.Flags&FlagAck == 0 || n == 0)
	case TypePing:
		ok = n == 8
	case TypeGoAway:
		ok = n >= 8
	case TypePriorityUpdate:
		ok = n >= 4
	case TypeWindowUpdate:
		ok = n == 4
		if ok && binary.BigEndian.Uint32(f.Payload)&MaxWindow == 0 {
			if f.Stream == 0 {
				return false, &ConnError{ProtocolError, "WINDOW_UPDATE with an increment of 0"}
			}
			f.Code, f.Reason = ProtocolError, "WINDOW_UPDATE with an increment of 0"
		}
	}
	if !ok {
		return false, wrongSize(f.Type)
	}
	return true, nil
}

// dependency refuses a stream that depends on itself (RFC 7540 5.3.1; RFC 9113 ignores the field otherwise).
func (f *Frame) dependency(p []byte) {
	if binary.BigEndian.Uint32(p)&MaxStream == f.Stream {
		f.Code, f.Reason = ProtocolError, "the stream depends on itself"
	}
}

// headers takes padding and priority off and begins a block that goes on in CONTINUATION frames.
func (r *Reader) headers(f *Frame) (complete bool, err error) {
	if f.Stream == 0 {
		return false, onStreamZero(f.Type)
	}
	p, pad := f.Payload, 0
	if f.Flags&FlagPadded != 0 {
		if len(p) == 0 {
			return false, wrongSize(f.Type)
		}
		pad, p = int(p[0]), p[1:]
	}
	if f.Flags&FlagPriority != 0 {
		if len(p) < 5 {
			return false, wrongSize(f.Type)
		}
		f.dependency(p)
		p = p[5:]
	}
	if pad > len(p) {
		return false, &ConnError{ProtocolError, "a frame has more padding than payload"}
	}
	f.Payload = p[:len(p)-pad]
	if f.Flags&FlagEndHeaders != 0 {
		return true, nil
	}
	r.block, _ = readPool.Get().(*[]byte)
	r.joined, r.done = *f, false
	r.joined.Payload = append((*r.block)[:0], f.Payload...)
	return false, nil
}

func (r *Reader) continuation(f *Frame) (complete bool, err error) {
	if r.joined.Frames > r.limits.Continuations || len(r.joined.Payload)+len(f.Payload) > r.limits.Block {
		return false, &ConnError{EnhanceYourCalm, "a header block has too many bytes or CONTINUATION frames"}
	}
	r.joined.Frames++
	r.joined.Payload = append(r.joined.Payload, f.Payload...)
	if f.Flags&FlagEndHeaders == 0 {
		return false, nil
	}
	*f = r.joined
	f.Flags |= FlagEndHeaders
	r.done = true
	return true, nil
}

// releaseBlock gives back the memory of a block that was handed out.
func (r *Reader) releaseBlock() {
	if r.block == nil || !r.done {
		return
	}
	exchange.Poison(r.joined.Payload[:cap(r.joined.Payload)])
	readPool.Put(r.block)
	r.block, r.joined, r.done = nil, Frame{}, false
}
