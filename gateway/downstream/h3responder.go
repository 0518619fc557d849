package downstream

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"gatehouse.dev/gatehouse/gateway/codec/h3"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h3Output is the response's half of an h3Stream. What is small is gathered, so that head, body and the end of the stream leave in one QUIC
// frame:
//
//	Respond(200, 130), Write(130 bytes), Finish  -> buffer: HEADERS, DATA -> one write, and the end
//	Respond(200, 1 MB), Write(32 KiB), ...       -> buffer: HEADERS, the DATA frame's beginning, the first bytes; nothing else is copied
//	Respond(200, -1), Write(32 KiB), Flush, ...  -> each Write is a DATA frame
//
// A body whose length is known is one DATA frame.
type h3Output struct {
	memory  [h3WriteBuffer]byte
	buffer  []byte // what is held back; memory, unless a head is larger
	framing h3Framing
	unsent  int64 // with h3Sized: body bytes still to come
	sent    bool  // something was written
	done    bool  // the response is whole
	held    bool  // and all of it is in the buffer still
	aborted bool
	tunnel  bool  // the response accepts a tunnel
	shut    bool  // the tunnel's sending side was ended
	failed  error // a write's error, for ever

	// heads serialises response heads: 100 (Continue) is sent by who reads the body first.
	heads sync.Mutex
	asks  bool // the client waits for it; constant during an exchange
	final bool // the final head is made, or 100 is sent; guarded by heads
}

var _ exchange.Responder = (*h3Stream)(nil)

// h3Framing is how the response's body is written.
type h3Framing uint8

const (
	h3NoHead   h3Framing = iota
	h3Bodyless           // nothing follows the head
	h3Sized              // one DATA frame, whose beginning was written with the head
	h3Unsized            // DATA frames as they come
)

// h3WriteBuffer holds a response's head with a body that is small, or the first part of it.
const h3WriteBuffer = 4 << 10

var errNoTunnel = errors.New("a tunnel begins with a response 2xx to an extended CONNECT")

func (o *h3Output) begin() {
	o.buffer = o.memory[:0]
	o.framing, o.unsent, o.failed = h3NoHead, 0, nil
	o.sent, o.done, o.held, o.aborted, o.tunnel, o.shut = false, false, false, false, false, false
	o.asks, o.final = false, false
}

// proceed asks the client for its body, unless the final head is made already or the body is there.
func (st *h3Stream) proceed() {
	st.heads.Lock()
	defer st.heads.Unlock()
	if st.final {
		return
	}
	st.final = true
	if n, whole := st.reader.Ready(); n == 0 && !whole {
		var room [16]byte
		_ = st.send(h3.AppendResponse(room[:0], 100, nil, -1, "")) // the read that follows will tell
	}
}

// Inform sends an interim response.
func (st *h3Stream) Inform(status int, fields exchange.Fields) error {
	st.heads.Lock()
	defer st.heads.Unlock()
	st.buffer = h3.AppendResponse(st.buffer, status, fields, -1, "")
	return st.Flush()
}

// Respond makes the final head. It leaves with the body's first bytes, or at Flush or Finish.
func (st *h3Stream) Respond(resp *exchange.Response, length int64) error {
	if st.session.peer.TLS.TurnedAway() {
		st.session.drain()
	}
	if st.asks {
		st.heads.Lock()
		defer st.heads.Unlock()
		st.final = true
	}
	status := resp.Status
	if st.x.Req.Protocol != "" && (status == statusSwitchingProtocols || status/100 == 2) {
		// RFC 9220 3: what a 101 is in HTTP/1.1. The length would be of what is no body (RFC 9110 9.3.6).
		status, length, st.tunnel = 200, -1, true
	}
	st.unsent = 0
	switch {
	case status < 200 || status == statusNoContent:
		st.framing, length = h3Bodyless, -1
	case status == statusNotModified || st.x.Req.Method == "HEAD":
		st.framing = h3Bodyless
	case length >= 0:
		st.framing, st.unsent = h3Sized, length
	default:
		st.framing = h3Unsized
	}
	date := st.session.server.bind.clock.Date(time.Now())
	st.buffer = h3.AppendResponse(st.buffer, status, resp.Fields, length, date)
	if st.unsent > 0 {
		st.buffer = h3.AppendDataHeader(st.buffer, st.unsent)
	}
	return nil
}

// Write sends body bytes. What fits is held back.
func (st *h3Stream) Write(p []byte) (int, error) {
	if st.failed != nil {
		return 0, st.failed
	}
	switch st.framing {
	case h3NoHead, h3Bodyless:
		return len(p), nil
	case h3Sized:
		if int64(len(p)) > st.unsent {
			st.aborted = true
			return 0, errTooManyBody
		}
		st.unsent -= int64(len(p))
	case h3Unsized:
		if len(p) == 0 {
			return 0, nil
		}
		if len(st.buffer)+h3.DataHeaderLen(int64(len(p))) > h3WriteBuffer {
			if err := st.Flush(); err != nil {
				return 0, err
			}
		}
		st.buffer = h3.AppendDataHeader(st.buffer, int64(len(p)))
	}
	rest := p
	if len(st.buffer) > 0 && len(st.buffer)+len(rest) > h3WriteBuffer {
		n := max(h3WriteBuffer-len(st.buffer), 0)
		st.buffer = append(st.buffer, rest[:n]...)
		rest = rest[n:]
		if err := st.Flush(); err != nil {
			return 0, err
		}
	}
	if len(rest) > h3WriteBuffer {
		if err := st.send(rest); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	st.buffer = append(st.buffer, rest...)
	return len(p), nil
}

// send writes at once.
func (st *h3Stream) send(p []byte) error {
	if st.failed != nil {
		return st.failed
	}
	if !st.tunnel {
		st.writing.next(h3Write)
	}
	st.sent = true
	_, st.failed = st.str.Write(p)
	if !st.tunnel {
		st.writing.next(0)
	}
	if st.failed != nil {
		st.lose(st.failed)
	}
	return st.failed
}

// Flush sends what is held back.
func (st *h3Stream) Flush() error {
	if len(st.buffer) == 0 {
		return st.failed
	}
	err := st.send(st.buffer)
	st.buffer = st.memory[:0]
	return err
}

// Finish ends the response.
func (st *h3Stream) Finish(trailers exchange.Fields) error {
	switch {
	case st.framing == h3NoHead || st.done:
		return st.failed
	case st.unsent > 0:
		st.aborted = true
		return io.ErrUnexpectedEOF
	case len(trailers) > 0 && st.framing != h3Bodyless:
		st.buffer = h3.AppendTrailers(st.buffer, trailers)
	}
	if st.failed == nil && !st.sent && len(st.buffer) <= h3WriteBuffer {
		st.done, st.held = true, true // see h3Batch
		return nil
	}
	if err := st.Flush(); err != nil {
		return err
	}
	st.done = true
	st.close()
	return nil
}

// close ends the sending side.
func (st *h3Stream) close() {
	st.release()
	_ = st.str.Close()
}

// Abort resets the stream before the response is whole, which tells the client.
func (st *h3Stream) Abort() { st.aborted = st.aborted || !st.done }

// finish is called after the exchange. It reports whether the response went out whole.
func (st *h3Stream) finish() bool {
	switch {
	case st.done:
		return true
	case st.tunnel && !st.aborted && st.shut:
		return true
	case !st.aborted && !st.tunnel && st.framing != h3NoHead && st.framing != h3Unsized && st.unsent == 0:
		// A handler may leave out Finish where nothing can follow.
		if st.Finish(nil) == nil {
			return true
		}
	}
	st.giveUp()
	return false
}

// giveUp resets a response that is not whole.
func (st *h3Stream) giveUp() {
	st.release()
	stopped, ok := errors.AsType[*quic.StreamError](context.Cause(st.str.Context()))
	st.mu.Lock()
	gone := st.dropped || ok && stopped.Remote
	switch {
	case st.code != h3.NoError:
	case st.tunnel:
		st.code = h3.ConnectError // RFC 9114 4.4
	default:
		st.code = h3.InternalError
	}
	code := st.code
	st.mu.Unlock()
	st.str.CancelWrite(quic.StreamErrorCode(code))
	if gone {
		st.session.spend(&st.session.resets, 1, "streams reset")
	}
}

// Tunnel returns the raw stream.
func (st *h3Stream) Tunnel() (exchange.Stream, error) {
	if !st.tunnel {
		return nil, errNoTunnel
	}
	st.reader.Tunnel()
	return (*h3Tunnel)(st), st.Flush()
}

// h3Tunnel is a stream after an accepted extended CONNECT (RFC 9220). No limit ends it; it may be idle as long as the connection may.
type h3Tunnel h3Stream

// Read returns the client's bytes.
func (t *h3Tunnel) Read(p []byte) (int, error) {
	n, err := t.reader.Read(p)
	if err != nil && err != io.EOF {
		t.session.fail(err)
	}
	return n, err
}

// Write sends bytes at once.
func (t *h3Tunnel) Write(p []byte) (int, error) {
	st := (*h3Stream)(t)
	n, err := st.Write(p)
	if err == nil {
		err = st.Flush()
	}
	return n, err
}

// CloseWrite ends the sending side of the stream.
func (t *h3Tunnel) CloseWrite() error {
	st := (*h3Stream)(t)
	if err := st.Flush(); err != nil {
		return err
	}
	st.shut = true
	st.close()
	return nil
}

// Close ends reads and writes under way; the stream ends with the exchange.
func (t *h3Tunnel) Close() error {
	return t.str.SetDeadline(longAgo())
}

// h3Batch gathers the responses of a connection that are small and whole, so that many leave in one packet. quic-go's goroutine sends as
// soon as it gets to run, which is after the first write; so whoever comes first lets the others that are ready run before it writes for
// all. Nor does it wait for each to be sent, as Write does beyond a packet's size:
//
//	worker A: add, yield                        write A, B, C -> quic-go: one packet
//	worker B:            add
//	worker C:                 add
type h3Batch struct {
	mu    sync.Mutex
	list  []*h3Stream // guarded by mu
	busy  bool        // somebody writes; guarded by mu
	spare []*h3Stream // of who writes
}

// add has the stream's response written and the stream ended, by the caller or by another worker. The caller has no part in the stream any
// more.
func (b *h3Batch) add(st *h3Stream) {
	b.mu.Lock()
	b.list = append(b.list, st)
	first := !b.busy
	b.busy = true
	b.mu.Unlock()
	if !first {
		return
	}
	runtime.Gosched()
	for {
		b.mu.Lock()
		batch := b.list
		b.list, b.spare = b.spare[:0], batch
		b.busy = len(batch) > 0
		b.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for i, st := range batch {
			batch[i] = nil
			st.deliver()
		}
	}
}

// deliver writes a response that was held back whole. It does not wait.
func (st *h3Stream) deliver() {
	err := st.str.TryWriteAll(st.buffer)
	if err == quic.ErrWouldBlock {
		// The client has given too little credit for it.
		st.session.server.bind.workers.run((*h3Delivery)(st))
		return
	}
	st.failed = err
	st.delivered()
}

// h3Delivery is the delivery of a response that has to wait for the client.
type h3Delivery h3Stream

// run implements task.
func (d *h3Delivery) run(*exchange.Exchange) {
	st := (*h3Stream)(d)
	_ = st.Flush()
	st.delivered()
}

func (st *h3Stream) delivered() {
	if st.failed == nil {
		_ = st.str.Close()
	} else {
		st.giveUp()
	}
	st.end(st.failed == nil)
}
