package upstream

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h2Send is the request's side of a stream. A request without a body, or with one that lies in memory and is small, goes out with its head:
//
//	HEADERS, END_STREAM                         no body
//	HEADERS, DATA, END_STREAM on the last       in memory
//	HEADERS, then a goroutine: DATA ..., and END_STREAM or trailers
type h2Send struct {
	s   *h2Stream
	run func() // s.send.pump, made once, so that starting it allocates nothing

	out   []byte // the head's block, then what was read of the body
	block int    // the length of the block
	whole bool   // the body ends behind what was read

	// Guarded by s.mu.
	running bool // the goroutine
	waits   int  // counts the waits for 100 (Continue), so that a late timer finds that it is late
}

const (
	// inlineBody is the largest body that goes out with its head.
	inlineBody = 8 << 10
	// h2Chunk is how much is read of a body at a time: one frame. Larger frames, which the endpoint may allow, hold up other streams.
	h2Chunk = h2.MinFrameSize
)

var h2Buffers = sync.Pool{New: func() any { return new([h2Chunk]byte) }}

func (q *h2Send) init(s *h2Stream) {
	q.s = s
	q.run = q.pump
}

func (q *h2Send) reset() {
	exchange.Poison(q.out)
	if cap(q.out) > keptOut {
		q.out = nil
	}
	q.out, q.block, q.whole = q.out[:0], 0, false
}

// compose makes the head's block and reads what of the body lies in memory, once, however many connections are tried.
func (q *h2Send) compose(c *h2Conn, a *Attempt) *exchange.Fault {
	if limit := c.headLimit.Load(); limit < h2.MaxStream && listSize(a.Request) > int64(limit) {
		return exchange.NewFault(exchange.FieldsTooLarge, fmt.Errorf("the request head has more than the %d bytes that the endpoint takes", limit))
	}
	if q.block > 0 {
		return nil
	}
	var err error
	if a.Request.Protocol != "" {
		q.out, err = h2.AppendConnect(q.out[:0], a.Request, c.mux.scheme, c.mux.text)
	} else {
		q.out, err = h2.AppendRequest(q.out[:0], a.Request, c.mux.scheme, c.mux.text, announced(a))
	}
	if err != nil {
		return exchange.NewFault(exchange.BadRequest, err)
	}
	q.block = len(q.out)
	if a.Request.Protocol != "" || a.Body.Length() == 0 {
		q.whole = true
		return nil
	}
	if err := q.readReady(a); err != nil {
		return q.s.faultOf(a, err)
	}
	return nil
}

// holdsBody reports whether bytes of the body were read that only this stream has.
func (q *h2Send) holdsBody() bool { return len(q.out) > q.block }

// announced is the content-length to send: what is known, and 0 only with methods that are expected to have content (RFC 9110 8.6).
func announced(a *Attempt) int64 {
	length := a.Body.Length()
	if length == 0 {
		switch a.Request.Method {
		case "POST", "PUT", "PATCH":
		default:
			return -1
		}
	}
	return length
}

// listSize is the head's size as SETTINGS_MAX_HEADER_LIST_SIZE counts, from above.
func listSize(h *exchange.Head) int64 {
	size := len(h.Method) + len(h.Authority) + len(h.Path()) + len(h.Query()) + len(h.Protocol) + 200
	for i := range h.Fields {
		size += len(h.Fields[i].Name) + len(h.Fields[i].Value) + section.Overhead
	}
	return int64(size)
}

// readReady reads a body that lies in memory whole and is small, and that nobody waits for 100 (Continue) with.
func (q *h2Send) readReady(a *Attempt) error {
	body, ok := a.Body.(exchange.Ready)
	if !ok || a.Request.Fields.Has(exchange.Expect) {
		return nil
	}
	if n, whole := body.Ready(); !whole || n > inlineBody {
		return nil
	}
	most := q.block + inlineBody + 1 // one more, to see the end
	if cap(q.out) < most {
		q.out = append(make([]byte, 0, most), q.out...)
	}
	for len(q.out) < most {
		n, err := a.readBody(q.out[len(q.out):most])
		q.out = q.out[:len(q.out)+n]
		switch {
		case err == io.EOF:
			q.whole = len(a.hold.trailers) == 0
			if length := a.Body.Length(); length >= 0 && length != int64(len(q.out)-q.block) {
				return exchange.NewFault(exchange.BadRequest, errBodyLength)
			}
			return nil
		case err != nil:
			return err
		case n == 0: // it is not what it said: who sends the rest will wait for it
			return nil
		}
	}
	return nil
}

// open sends the head, and the body if it was read whole and the windows are open. It returns false when the connection takes no more streams.
func (q *h2Send) open(c *h2Conn, a *Attempt) (bool, error) {
	s, body := q.s, q.out[q.block:]
	end := q.whole && a.Request.Protocol == ""
	inline := end && len(body) > 0
	if inline && !s.window.TryTake(len(body)) {
		end, inline = false, false
	}
	buf, err := c.out.BeginStream(&s.turn)
	if err != nil {
		return false, c.writing(err)
	}
	id := c.open(s)
	if id == 0 {
		c.out.End(buf)
		return false, nil
	}
	s.id.Store(id)
	s.turn.Init(id)
	at := len(buf)
	buf = append(c.openHeaders(buf), q.out[:q.block]...)
	buf = h2.SealHeaders(buf, at, id, end && !inline, h2Chunk)
	if inline {
		at = len(buf)
		buf = h2.AppendData(buf, id, body, true)
	}
	c.out.Sent(&s.turn, at)
	s.sentEnd.Store(end)
	c.out.End(buf)
	s.mu.Lock()
	q.running = !end && a.Request.Protocol == ""
	start := q.running
	s.mu.Unlock()
	c.flush()
	if start {
		go q.run()
	}
	return true, nil
}

// pump sends the body.
func (q *h2Send) pump() {
	s := q.s
	q.sendBody(s.conn, s.attempt)
	s.mu.Lock()
	defer s.mu.Unlock()
	q.running = false
	s.wake.Broadcast()
}

// wait waits for the end of pump.
func (q *h2Send) wait() {
	q.s.mu.Lock()
	defer q.s.mu.Unlock()
	for q.running {
		q.s.wake.Wait()
	}
}

// sendBody sends what open did not. Our side ends with the last byte of a body of known length, unless trailers may follow.
func (q *h2Send) sendBody(c *h2Conn, a *Attempt) {
	if a.Request.Fields.Has(exchange.Expect) && !q.mayContinue() {
		return
	}
	c.out.Prioritize(&q.s.turn, h2.Priority{Urgency: h2.DefaultUrgency, Incremental: true}) // bodies share the connection
	left, trailers := a.Body.Length(), a.Request.Fields.Has(exchange.Trailer)
	known := left >= 0
	early := q.out[q.block:]
	left -= int64(len(early))
	if _, err := q.data(c, early, q.whole || known && left == 0 && !trailers); err != nil || q.whole {
		return
	}
	buffer := h2Buffers.Get().(*[h2Chunk]byte)
	defer h2Buffers.Put(buffer)
	for {
		n, err := a.readBody(buffer[:])
		left -= int64(n)
		if known && (left < 0 || left > 0 && err == io.EOF) {
			q.s.abort(exchange.NewFault(exchange.BadRequest, errBodyLength))
			return
		}
		if _, err := q.data(c, buffer[:n], known && left == 0 && !trailers); err != nil {
			return
		}
		switch {
		case err == io.EOF:
			if err := q.end(c, a.hold.trailers); err != nil {
				q.s.abort(exchange.NewFault(exchange.BadRequest, err))
			}
			return
		case err == errDetached:
			return
		case err != nil:
			// The endpoint must not take what it got for the whole body.
			q.s.abort(exchange.AsFault(err, exchange.ClientAborted))
			return
		}
	}
}

// errBodyLength is a body that is not as long as its head says.
var errBodyLength = errors.New("the request's body has another length than its head says")

// abort ends the attempt because of the request.
func (s *h2Stream) abort(f *exchange.Fault) {
	s.mu.Lock()
	s.fail(f)
	s.mu.Unlock()
	s.giveUp(h2.Cancel)
}

// data sends bytes of the body as the windows allow; with last our side of the stream ends with them, if there are any.
func (q *h2Send) data(c *h2Conn, p []byte, last bool) (sent int, err error) {
	s := q.s
	for len(p) > 0 {
		n, err := s.window.Take(min(len(p), h2Chunk))
		if err != nil {
			return sent, err
		}
		buf, err := c.out.BeginStream(&s.turn)
		if err != nil {
			return sent, c.writing(err)
		}
		at, end := len(buf), last && n == len(p)
		buf = h2.AppendData(buf, s.id.Load(), p[:n], end)
		c.out.Sent(&s.turn, at)
		if end {
			s.sentEnd.Store(true)
		}
		c.out.End(buf)
		c.sentFrame()
		c.flush()
		sent += n
		p = p[n:]
	}
	return sent, nil
}

// end ends our side of the stream, unless it has ended.
func (q *h2Send) end(c *h2Conn, trailers exchange.Fields) error {
	s := q.s
	if s.sentEnd.Load() {
		return nil
	}
	var block []byte
	if len(trailers) > 0 {
		var err error
		if block, err = h2.AppendTrailers(nil, trailers); err != nil {
			return err
		}
	}
	buf, err := c.out.BeginStream(&s.turn)
	if err != nil {
		_ = c.writing(err)
		return nil // whoever cancelled it knows
	}
	if len(block) == 0 {
		buf = c.out.AppendEnd(buf, &s.turn)
	} else {
		at := len(buf)
		buf = append(c.openHeaders(buf), block...)
		buf = h2.SealHeaders(buf, at, s.id.Load(), true, h2Chunk)
	}
	s.sentEnd.Store(true)
	c.out.End(buf)
	c.flush()
	return nil
}

// mayContinue waits for 100 (Continue), for ContinueTimeout at most (RFC 9110 10.1.1). An answer in its place means that the body is not wanted.
func (q *h2Send) mayContinue() bool {
	s := q.s
	s.mu.Lock()
	defer s.mu.Unlock()
	q.waits++
	number := q.waits
	late := time.AfterFunc(ContinueTimeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if q.waits == number {
			s.proceed = true
			s.wake.Broadcast()
		}
	})
	defer late.Stop()
	for !s.proceed && !s.headed && s.fault == nil && !s.interrupted && !s.reset {
		s.wake.Wait()
	}
	q.waits++
	return s.proceed && !s.headed
}
