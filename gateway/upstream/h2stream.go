package upstream

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h2Stream is one attempt on a shared connection. Everything an attempt needs on the way is part of it, and it is used again for others, so
// that an attempt allocates nothing.
//
// Three goroutines may work on it: RoundTrip's, which sends the head, waits for the answer and reads it; the connection's, which puts in what
// comes; and the one that sends a body that does not lie in memory. The connection's goroutine finds a stream by its identifier and may
// come late, when the object serves another attempt: under mu it compares connection and identifier before it touches anything.
//
// Locks are taken in the order h2Mux.mu, h2Stream.mu, those of Inbox, Credit and Output, h2Conn.mu. Life's lock comes before all but the
// first, because it calls Interrupt.
type h2Stream struct {
	mux     *h2Mux
	attempt *Attempt
	tunnel  h2Tunnel
	inbox   h2.Inbox
	window  h2.Window
	turn    h2.Turn
	id      atomic.Uint32 // 0 before the head is sent, and after the end
	send    h2Send
	sentEnd atomic.Bool // our side ended, or will with what is appended

	// The wait for a connection.
	found  h2Found
	next   *h2Stream // in line; guarded by h2Mux.mu
	queued bool      // guarded by h2Mux.mu
	since  uint32    // when the wait began, in ticks; guarded by h2Mux.mu

	mu   sync.Mutex // guards what follows
	wake sync.Cond  // something below changed

	conn        *h2Conn // set once a connection is found
	offered     h2Found // what the mux found
	isOffered   bool
	interrupted bool // Life ended

	arena    section.Arena // of the answer
	scratch  exchange.Response
	response exchange.Response   // the final head
	interim  []exchange.Response // heads that wait to be passed on
	trailers exchange.Fields
	left     int   // bytes that heads and trailers may take still
	length   int64 // of the body, as content-length says; -1 unknown
	body     int64 // bytes of it that came
	head     bool  // the request is HEAD: the answer has no body, whatever content-length says
	connect  bool  // the request is an extended CONNECT
	headed   bool  // the final head is there
	proceed  bool  // 100 (Continue) came
	ended    bool  // the endpoint's side ended
	reset    bool  // RST_STREAM was sent or received
	stale    bool  // the connection, which had carried others before, ended without a sign of an answer
	fault    *exchange.Fault
}

// h2Found is where an attempt may go.
type h2Found struct {
	conn  *h2Conn // a stream is reserved on it
	fault *exchange.Fault
	h1    bool     // the endpoint chose HTTP/1.1
	line  *line    // the connection that it chose it on, nil for all but one attempt
	rw    net.Conn // over line
}

// close closes a connection that was found and is not used.
func (f *h2Found) close() {
	if f.line != nil {
		_ = f.line.Close()
	}
}

const (
	// h2Window is how much an endpoint may send ahead of a slow client at first, and so is buffered for an attempt. It grows where the
	// connection is long and the client is fast; see h2.Receive.
	h2Window = 256 << 10
	// maxH2Window bounds its growth.
	maxH2Window = 4 << 20
	// keptFields and keptOut bound what an object keeps for the next attempt.
	keptFields = 256
	keptOut    = 32 << 10
)

var h2Streams = sync.Pool{New: func() any {
	s := &h2Stream{}
	s.wake.L = &s.mu
	s.tunnel.s = s
	s.send.init(s)
	return s
}}

// errInterrupted stands for the fault with which the attempt's Life ended. Interrupt cannot ask for it.
var errInterrupted = errors.New("the attempt's life ended")

// errOver is what the goroutine that sends a body finds when the attempt is over.
var errOver = errors.New("the attempt is over")

func takeStream(m *h2Mux, a *Attempt) *h2Stream {
	s := h2Streams.Get().(*h2Stream)
	s.mux, s.attempt = m, a
	return s
}

// recycle gives the object back. Nobody but the connection's goroutine, which will find it to be another's, may know it any more.
func (s *h2Stream) recycle() {
	s.arena.Reset()
	s.mu.Lock()
	s.conn, s.attempt, s.mux = nil, nil, nil
	s.offered, s.isOffered, s.interrupted = h2Found{}, false, false
	s.scratch.Fields, s.response.Fields, s.trailers = reusable(s.scratch.Fields), reusable(s.response.Fields), reusable(s.trailers)
	clear(s.interim)
	s.interim = s.interim[:0]
	s.headed, s.proceed, s.ended, s.reset, s.stale, s.fault = false, false, false, false, false, nil
	s.mu.Unlock()
	s.sentEnd.Store(false)
	s.found = h2Found{}
	s.send.reset()
	h2Streams.Put(s)
}

func reusable(f exchange.Fields) exchange.Fields {
	if cap(f) > keptFields {
		return nil
	}
	clear(f)
	return f[:0]
}

// Interrupt ends whatever the attempt waits for; Life calls it.
func (s *h2Stream) Interrupt() {
	s.mu.Lock()
	s.interrupted = true
	conn := s.conn
	s.wake.Broadcast()
	s.mu.Unlock()
	if conn != nil {
		s.inbox.Cut(errInterrupted)
		s.stopSending(conn, errInterrupted)
	}
}

// stopSending ends the waits of who sends the request.
func (s *h2Stream) stopSending(c *h2Conn, err error) {
	s.window.Fail(err)
	c.out.Cancel(&s.turn, err)
}

// find tells s what the mux found. It is called with h2Mux.mu held.
func (s *h2Stream) find(f h2Found) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offered, s.isOffered = f, true
	s.wake.Broadcast()
}

// awaitFound waits until the mux found something, or Life ended.
func (s *h2Stream) awaitFound() *exchange.Fault {
	s.mu.Lock()
	for !s.isOffered && !s.interrupted {
		s.wake.Wait()
	}
	offered := s.isOffered
	s.mu.Unlock()
	if !offered && s.mux.leave(s) {
		return over(s.attempt.Life)
	}
	s.mu.Lock()
	s.found, s.offered, s.isOffered = s.offered, h2Found{}, false
	s.mu.Unlock()
	return s.found.fault
}

// letGo gives the object back before anything was sent, because the attempt goes another way.
func (s *h2Stream) letGo(a *Attempt) *exchange.Fault {
	a.carrier = nil
	lasts := a.Life.Detach()
	s.recycle()
	if !lasts {
		return over(a.Life)
	}
	return nil
}

// begin makes s a stream of c, as far as this side goes.
func (s *h2Stream) begin(c *h2Conn) (interrupted bool) {
	s.inbox.Init(&c.tuner, h2Window, maxH2Window, s)
	s.window.Init(&c.credit)
	s.turn.Init(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = c
	s.left, s.length, s.body = MaxResponseHeaderBytes, -1, 0
	s.head, s.connect = s.attempt.Request.Method == "HEAD", s.attempt.Request.Protocol != ""
	return s.interrupted
}

// unbegin undoes begin: the connection takes no more streams.
func (s *h2Stream) unbegin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = nil
	s.window.Close()
}

// roundTrip carries the attempt over c, of which a stream is reserved. sent is false when c closes and nothing was sent; the reservation is
// given back then.
func (s *h2Stream) roundTrip(c *h2Conn, a *Attempt) (fault *exchange.Fault, sent bool) {
	if s.begin(c) {
		return over(a.Life), true
	}
	if fault := s.send.compose(c, a); fault != nil {
		return fault, true
	}
	opened, err := s.send.open(c, a)
	if err != nil {
		fault := faultOfConn(err)
		fault.Retryable = true // nothing was sent
		return s.faultOf(a, fault), true
	}
	if !opened {
		s.unbegin()
		c.release()
		return nil, false
	}
	if fault := s.await(a); fault != nil {
		s.giveUp(h2.Cancel)
		return fault, true
	}
	if a.Request.Protocol != "" {
		s.answerTunnel(a)
	} else {
		a.Answer = s
	}
	return nil, true
}

// await waits for the final head and passes interim ones on.
func (s *h2Stream) await(a *Attempt) *exchange.Fault {
	s.mu.Lock()
	for {
		switch {
		case s.interrupted:
			s.mu.Unlock()
			return s.faultOf(a, errInterrupted)
		case len(s.interim) > 0:
			head := s.interim[0]
			s.interim = s.interim[1:]
			s.mu.Unlock()
			a.Inform.Inform(head.Status, head.Fields)
			s.mu.Lock()
		case s.headed:
			// A copy, because the list goes on to be somebody else's memory.
			a.Response.Status = s.response.Status
			a.Response.Fields = append(a.Response.Fields[:0], s.response.Fields...)
			s.mu.Unlock()
			return nil
		case s.fault != nil:
			fault := s.fault
			s.mu.Unlock()
			return s.faultOf(a, fault)
		default:
			s.wake.Wait()
		}
	}
}

// mayResend reports whether the attempt may be made again on another connection, without anybody being asked.
func (s *h2Stream) mayResend(a *Attempt) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stale && safe(a.Request.Method) && a.Request.Protocol == "" && a.Body.Length() == 0 && !s.interrupted
}

// faultOf says what went wrong with an attempt: what the client did comes first, then what ended the attempt, then the endpoint.
func (s *h2Stream) faultOf(a *Attempt, err error) *exchange.Fault {
	if f := a.hold.failed.Load(); f != nil {
		return f
	}
	if a.Life.Over() {
		return over(a.Life)
	}
	return exchange.AsFault(err, exchange.UpstreamReset)
}

// Give sends WINDOW_UPDATE, for the Inbox.
func (s *h2Stream) Give(n uint32) { s.conn.giveBack(s.id.Load(), n) }

// Read returns the answer's body.
func (s *h2Stream) Read(p []byte) (int, error) {
	n, err := s.inbox.Read(p)
	if err == errInterrupted {
		return n, s.faultOf(s.attempt, err)
	}
	return n, err
}

// Close gives up what is left of the answer.
func (s *h2Stream) Close() error {
	if !s.inbox.Whole() {
		s.inbox.Cut(net.ErrClosed)
		s.giveUp(h2.Cancel)
	}
	return nil
}

// Length is the answer's content length, -1 when unknown.
func (s *h2Stream) Length() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.length
}

// Trailers returns the answer's trailers.
func (s *h2Stream) Trailers() exchange.Fields {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trailers
}

// Ready tells what of the answer can be read without waiting.
func (s *h2Stream) Ready() (n int, whole bool) { return s.inbox.Ready() }

// giveUp resets the stream, unless both sides ended it.
func (s *h2Stream) giveUp(code h2.Code) {
	s.mu.Lock()
	c, id := s.conn, s.id.Load()
	needed := id != 0 && !s.reset && !(s.ended && s.sentEnd.Load())
	s.reset = s.reset || needed
	if needed {
		s.stopSending(c, errOver)
	}
	s.mu.Unlock()
	if needed {
		c.sendReset(id, code)
	}
}

// end ends the attempt.
func (s *h2Stream) end(a *Attempt) {
	a.Life.Detach()
	if c := s.conn; c != nil {
		s.giveUp(h2.Cancel)
		s.stopSending(c, errOver)
		s.send.wait()
		s.mu.Lock()
		id := s.id.Swap(0)
		s.conn = nil
		s.mu.Unlock()
		s.inbox.Close()
		s.window.Close()
		c.remove(id)
	}
	s.recycle()
}

// fail ends the stream from the connection's side. It is called with mu held.
func (s *h2Stream) fail(f *exchange.Fault) {
	if s.fault == nil && !s.ended {
		s.fault = f
	}
	s.inbox.Fail(f)
	s.stopSending(s.conn, f)
	s.wake.Broadcast()
}

// malformed is an endpoint's breach of the protocol.
func malformed(format string, args ...any) *exchange.Fault {
	return exchange.NewFault(exchange.UpstreamProtocol, fmt.Errorf(format, args...))
}
