package h1

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	// poolSize is the size of the memory that a message is read into once it outgrows what its connection brought.
	poolSize = 16 << 10
	// bodyRoom is the least room behind a head for reading a chunked body. With less the body gets memory of its own.
	bodyRoom = 4 << 10

	defaultBytes  = 64 << 10
	defaultFields = 200
)

var pool = sync.Pool{New: func() any { return new([poolSize]byte) }}

// Reader reads the messages of one connection, one after another: heads in place as views, bodies as they come.
//
//	for {
//		if err := r.ReadRequest(&head, &m); err != nil { ... }
//		... r.Read ..., until Whole
//		r.Next() // head, fields and trailers are gone
//	}
//
// Who waits for bytes by itself reads into Space, says so with Advance and asks NextRequest or NextResponse, instead of ReadRequest.
//
// An idle connection holds no memory but what Init gave. A message is read into that, and once it does not fit, into 16 KiB from a pool;
// a head that does not fit there either gets memory up to the limit. What a head's views look into stays in place until Next:
//
//	buf   | request head | body bytes read, not taken | free |
//	                base^    pos^                  end^
//
// A body of known length is read straight into the caller's memory once the buffer is empty, so that the room behind a head matters only
// to chunked bodies, whose framing must go somewhere. If it is less than 4 KiB they continue in other memory, and buf becomes held.
//
// A Reader belongs to one goroutine at a time. The zero Reader needs Init.
type Reader struct {
	src    io.Reader
	small  []byte
	limits Limits

	buf     []byte // what is read into: nil, small, from the pool, or larger than that
	held    []byte // the head's memory, when that is no longer buf
	pos     int    // of the first unread byte in buf
	end     int    // of the bytes in buf
	base    int    // bytes of buf before it must stay in place
	scanned int    // how many bytes from pos on hold no end of the head or trailers; 0 before the first try

	body     body
	trailers exchange.Fields
	within   bool  // a message is under way: its head was handed out
	response bool  // the message is a response
	led      bool  // an empty line before the message was skipped
	ended    bool  // src came to its end, and lookAgain was answered
	failure  error // the connection's messages cannot be told apart any more
	pending  error // came together with bytes
}

// Init begins a connection. small is memory that the reader uses first, and as long as the connection lives; it may be nil. Fields of
// limits that are 0 have their defaults. src may be nil for who reads heads through Space only, and no bodies.
func (r *Reader) Init(src io.Reader, small []byte, limits Limits) {
	if limits.Bytes == 0 {
		limits.Bytes = defaultBytes
	}
	if limits.Fields == 0 {
		limits.Fields = defaultFields
	}
	*r = Reader{src: src, small: small, limits: limits, trailers: r.trailers[:0]}
}

// ReadRequest waits for the next request head. head.Scheme stays as it is; the memory of head.Fields is used again. The error is
// io.EOF when the connection ended between two messages, io.ErrUnexpectedEOF when it ended within a head, a *exchange.Fault when the
// head is refused (BadRequest, FieldsTooLarge, UpgradeUnsupported; the connection is of no use any more then), and otherwise what src
// returned. A refused head holds what could be made out, for the log.
func (r *Reader) ReadRequest(head *exchange.Head, m *Message) error {
	for {
		if ok, err := r.NextRequest(head, m); ok || err != nil {
			return err
		}
		if err := r.receive(); err != nil {
			return err
		}
	}
}

// ReadResponse waits for the next response head, final or interim (1xx), to a request with this method. Its errors are those of
// ReadRequest; every Fault is of kind UpstreamProtocol. Interim responses have no body: Next and ReadResponse follow.
func (r *Reader) ReadResponse(resp *exchange.Response, m *Message, method string) error {
	for {
		if ok, err := r.NextResponse(resp, m, method); ok || err != nil {
			return err
		}
		if err := r.receive(); err != nil {
			return err
		}
	}
}

// receive reads more of a head.
func (r *Reader) receive() error {
	n, err := r.take(r.Space())
	r.Advance(n)
	if err == io.EOF && r.Started() {
		if r.lookAgain() {
			return nil
		}
		return io.ErrUnexpectedEOF
	}
	return err
}

// lookAgain has what is there of a head or trailer section parsed once more, when nothing more will come: it may be wrong in a place where
// only a search has looked.
func (r *Reader) lookAgain() bool {
	if r.ended {
		return false
	}
	r.scanned, r.ended, r.pending = 0, true, io.EOF
	return true
}

// take reads from src. An error that comes with bytes waits until they are used.
func (r *Reader) take(p []byte) (int, error) {
	if err := r.pending; err != nil {
		r.pending = nil
		return 0, err
	}
	for range 100 {
		n, err := r.src.Read(p)
		switch {
		case n > 0:
			r.pending = err
			return n, nil
		case err != nil:
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// Space returns where the bytes of the next head are to be read into, and makes room first. It is empty when the head is over the limit,
// which NextRequest and NextResponse have said by then. Between a head and Next it is where bytes behind the head go; that is for who must
// know whether there are any.
func (r *Reader) Space() []byte {
	switch {
	case r.within:
		r.makeRoom()
	case r.buf == nil && len(r.small) > 0:
		r.buf = r.small
	case r.buf == nil:
		r.buf = borrow(poolSize)
	case r.pos == r.end:
		r.pos, r.end = 0, 0
	case r.pos > 0 && len(r.buf)-r.end < len(r.buf)/4:
		r.end = copy(r.buf, r.buf[r.pos:r.end])
		r.pos = 0
	case r.end == len(r.buf) && len(r.buf) < max(poolSize, r.limits.Bytes):
		r.move(min(2*len(r.buf), max(poolSize, r.limits.Bytes)))
	}
	return r.buf[r.end:]
}

// move continues in other memory of at least this size; what is unread comes along.
func (r *Reader) move(size int) {
	old := r.buf
	r.buf = borrow(size)
	r.end = copy(r.buf, old[r.pos:r.end])
	r.pos, r.base = 0, 0
	if r.within && r.held == nil {
		r.held = old
	} else {
		r.giveBack(old, len(old))
	}
}

// borrow returns memory of at least this size.
func borrow(size int) []byte {
	if size <= poolSize {
		return pool.Get().(*[poolSize]byte)[:]
	}
	return make([]byte, size)
}

// giveBack ends the use of memory, of which the first bytes were used.
func (r *Reader) giveBack(b []byte, used int) {
	exchange.Poison(b[:used])
	if len(b) == poolSize && (len(r.small) == 0 || &b[0] != &r.small[0]) {
		pool.Put((*[poolSize]byte)(b))
	}
}

// Advance says that n bytes were read into Space.
func (r *Reader) Advance(n int) { r.end += n }

// Started reports whether bytes of the next message were read. An empty line before it does not count.
func (r *Reader) Started() bool { return r.pos < r.end }

// Buffered returns the bytes that were read and are not used: behind the current head or body, or of the next message. The slice is valid
// until the next call of another method.
func (r *Reader) Buffered() []byte { return r.buf[r.pos:r.end] }

// NextRequest parses a request head from what was read. ok is false when more is needed. The errors are the Faults of ReadRequest.
// A message under way is ended as Next does.
func (r *Reader) NextRequest(head *exchange.Head, m *Message) (ok bool, err error) {
	r.over(false)
	if r.failure != nil || !r.skipEmptyLine() || !r.complete() {
		return false, r.failure
	}
	p := parse{b: r.window(), kind: ofRequest, most: r.limits.Fields}
	if ok, err = r.outcome(p.request(head, m)); ok {
		r.begin(p.i, m.Length)
	}
	return ok, err
}

// NextResponse parses a response head to a request with this method from what was read. ok is false when more is needed.
func (r *Reader) NextResponse(resp *exchange.Response, m *Message, method string) (ok bool, err error) {
	r.over(true)
	if r.failure != nil || !r.complete() {
		return false, r.failure
	}
	p := parse{b: r.window(), kind: ofResponse, most: r.limits.Fields}
	if ok, err = r.outcome(p.response(resp, m, method)); ok {
		length := m.Length
		if bodiless(resp.Status, method) {
			length = 0
		}
		r.begin(p.i, length)
	}
	return ok, err
}

// over ends the message before, if Next was not called.
func (r *Reader) over(response bool) {
	if r.within {
		r.Next()
	}
	r.response = response
}

// window returns the bytes that a head or trailer section can be in.
func (r *Reader) window() []byte { return r.buf[r.pos:min(r.end, r.pos+r.limits.Bytes)] }

// skipEmptyLine takes one empty line from before a request: some clients send one after a body (RFC 9112 2.2). It returns false when it
// cannot tell yet.
func (r *Reader) skipEmptyLine() bool {
	b := r.buf[r.pos:r.end]
	if r.led || len(b) == 0 || b[0] != '\r' {
		return len(b) > 0
	}
	if len(b) == 1 {
		return false
	}
	if b[1] == '\n' {
		r.pos += 2
		r.led = true
	}
	return r.pos < r.end
}

// complete reports whether a parse is worth while. The first one always is: a message mostly comes in one piece. When it was not whole, the
// bytes that come are searched, each once, for the empty line that ends it, for a line end that is an error, and for the limit. So a
// head that comes byte by byte costs two parses and one search.
func (r *Reader) complete() bool {
	b := r.window()
	if r.scanned == 0 || len(b) == r.limits.Bytes {
		return len(b) > 0
	}
	for i := r.scanned; ; i++ {
		next := bytes.IndexByte(b[i:], '\n')
		if next < 0 {
			r.scanned = len(b)
			return false
		}
		i += next
		if i == 0 || b[i-1] != '\r' || i == 1 || b[i-2] == '\n' {
			return true
		}
	}
}

// outcome turns the result of a parse into what NextRequest and NextResponse return.
func (r *Reader) outcome(why problem) (ok bool, err error) {
	if why == "" {
		return true, nil
	}
	if why == incomplete {
		n := len(r.window())
		if n < r.limits.Bytes {
			r.scanned = n
			return false, nil
		}
		why = tooLong
	}
	return false, r.refuse(why)
}

// refuse ends the connection's use.
func (r *Reader) refuse(why problem) error {
	kind := exchange.BadRequest
	switch {
	case r.response:
		kind = exchange.UpstreamProtocol
	case why == tooLong || why == tooMany:
		kind = exchange.FieldsTooLarge
	case why == badUpgradeBody:
		kind = exchange.UpgradeUnsupported
	}
	r.failure = exchange.NewFault(kind, why)
	return r.failure
}

// begin starts on the body behind a head of n bytes.
func (r *Reader) begin(n int, length int64) {
	r.pos += n
	r.base, r.scanned, r.within = r.pos, 0, true
	r.body.begin(length)
}

var errUnread = errors.New("the message before was not read to its end; close the connection")

// Next ends the current message: its head, fields and trailers are not valid any more. The next one can be read if the body is whole;
// otherwise every read fails.
func (r *Reader) Next() {
	if !r.Whole() {
		r.failure = errUnread
		r.pos = r.end
	}
	r.within, r.led = false, false
	r.base, r.scanned = 0, 0
	clear(r.trailers)
	r.trailers = r.trailers[:0]
	if r.pos == r.end {
		r.drop()
	} else {
		r.dropHeld()
		exchange.Poison(r.buf[:r.pos])
	}
}

// drop gives up all memory.
func (r *Reader) drop() {
	r.dropHeld()
	if r.buf != nil {
		r.giveBack(r.buf, r.end)
	}
	r.buf, r.pos, r.end = nil, 0, 0
}

func (r *Reader) dropHeld() {
	if r.held != nil {
		r.giveBack(r.held, len(r.held))
		r.held = nil
	}
}

// Release gives all memory back. Nothing that the reader handed out is valid any more; Init begins anew.
func (r *Reader) Release() {
	r.drop()
	clear(r.trailers)
	*r = Reader{trailers: r.trailers[:0]}
}
