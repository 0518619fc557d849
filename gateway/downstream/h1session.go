package downstream

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h1"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// h1Session serves HTTP/1.0 and HTTP/1.1 on one connection.
//
// One goroutine reads, parses, has the Handler serve, and writes. It does so within sock.Conn.Serve, which saves the read that finds
// nothing before each wait; only what must wait for more of the client's bytes leaves it:
//
//	wait -> bytes -> poll: read, parse, serve, write -> wait
//	             \-> a body still to come, an upgrade: leave poll, serve with reads that wait -> wait
//
// While it waits for a request it holds no memory but its own. What it works with, the h1Work, is taken when bytes come and given back
// when they are answered, so that ten thousand idle connections share a few.
//
// A goroutine that has served exchanges keeps the stack that they needed, while waiting needs little. When a connection stays idle, a new
// goroutine takes it over.
//
// Within poll nothing may close the socket: Close waits for poll to end. Other goroutines interrupt it instead.
type h1Session struct {
	client  *client
	work    *h1Work     // nil while idle; written while live is false
	step    func() bool // poll, made once
	turn    h1Turn      // why poll ended
	known   bool        // it is HTTP/1, and not the preface of HTTP/2
	watched bool        // the client's hang-up is watched for
	renewed bool        // a new goroutine has taken over: it needs not read yet
	preface []byte      // with turnHTTP2: what was read
	linger  bool        // the client may be sending still: it must see the response before the connection ends
	abort   bool        // the response is not whole: the connection ends without a word
	reset   bool        // with abort: only a reset tells, because the end of the connection is the end of the response

	reading, writing watch
	ticked           time.Time // the ticker's last look

	closing atomic.Bool // no more requests after the one under way

	mu          sync.Mutex
	live        bool // an exchange is under way; guarded by mu
	tunnel      bool // it became a tunnel; guarded by mu
	gone        bool // the client hung up; guarded by mu
	expired     bool // the head took too long; guarded by mu
	interrupted bool // the socket is, because the session was idle; guarded by mu
	deep        bool // the goroutine's stack has grown; guarded by mu
	renewing    bool // the socket is interrupted for a new goroutine to take over; guarded by mu
	wasCut      bool // guarded by mu
}

// h1Turn is what comes after poll.
type h1Turn uint8

const (
	turnEnd   h1Turn = iota // the connection is over
	turnServe               // a request is there that must be served with reads that wait
	turnHTTP2               // the client speaks HTTP/2
	turnRenew               // a new goroutine is to go on
)

// The phases of a session's watches.
const (
	phaseNone uint8 = iota
	phaseIdle
	phaseHead
	phaseBody
	phaseWrite
)

var (
	errHungUp   = errors.New("the client hung up")
	errCut      = errors.New("the connection was cut: the drain time is over, or the client took no bytes for too long")
	errLateHead = errors.New("the request's head did not come in time")
)

func newH1(c *client) *h1Session {
	s := &h1Session{client: c, known: c.secure != nil, deep: c.secure != nil}
	s.step = s.poll
	s.reading.next(phaseIdle)
	return s
}

// serve serves the connection to its end, until the client turns out to speak HTTP/2, when preface is set, or until another goroutine is to
// call it. The result says which.
func (s *h1Session) serve() h1Turn {
	for {
		s.turn = turnEnd
		switch err := s.client.sock.Serve(s.step); {
		case err != nil && s.renew():
			return turnRenew
		case err != nil && s.tooLate():
			s.refuse(exchange.NewFault(exchange.ClientTimeout, errLateHead))
		case s.turn == turnHTTP2:
			s.dropWork()
			return turnHTTP2
		case s.turn == turnServe && s.exchange():
			continue
		}
		s.close()
		s.dropWork()
		return turnEnd
	}
}

// renewAfter is how long an idle connection keeps a grown stack.
const renewAfter = time.Second

// renew reports whether serve was interrupted for another goroutine to go on.
func (s *h1Session) renew() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.renewing || s.interrupted || s.gone || s.wasCut {
		return false
	}
	s.renewing, s.deep, s.renewed = false, false, true
	s.client.sock.Revive()
	return true
}

// poll serves what requests are there, within Serve. It returns true to wait for more bytes, and false with turn set.
func (s *h1Session) poll() bool {
	if s.renewed {
		s.renewed = false
		if !s.client.sock.Readable() {
			return true
		}
	}
	secure := s.client.secure
	if secure != nil {
		secure.fresh()
	}
	empty := false // the socket was read empty: another read would find nothing
	for s.advance() {
		started := s.started()
		if empty && !started {
			return s.rest()
		}
		room := s.room()
		if len(room) == 0 {
			s.refuse(exchange.NewFault(exchange.FieldsTooLarge, nil))
			return false
		}
		n, err := s.tryRead(room)
		if n > 0 {
			s.arrived(n, !started)
			empty = secure == nil && n < len(room)
		}
		switch {
		case errors.Is(err, sock.ErrAgain) && started:
			return true
		case errors.Is(err, sock.ErrAgain):
			return s.rest()
		case err != nil:
			s.turn = turnEnd
			return false
		}
	}
	return false
}

// started reports whether bytes of a request lie in the buffer.
func (s *h1Session) started() bool { return s.work != nil && s.work.reader.Started() }

// room returns where to read to.
func (s *h1Session) room() []byte {
	if s.work == nil {
		s.takeWork()
	}
	return s.work.reader.Space()
}

func (s *h1Session) arrived(n int, first bool) {
	s.work.reader.Advance(n)
	if first {
		s.work.x.Start = time.Now()
	}
}

func (s *h1Session) tryRead(p []byte) (int, error) {
	if secure := s.client.secure; secure != nil {
		return secure.tryRead(p)
	}
	return s.client.sock.TryRead(p)
}

// advance serves the requests that lie in the buffer. It returns true when more bytes are needed, and false with turn set.
func (s *h1Session) advance() bool {
	for s.started() {
		w := s.work
		if !s.known {
			switch speaksHTTP2(w.reader.Buffered()) {
			case yes:
				s.preface = append([]byte(nil), w.reader.Buffered()...)
				s.turn = turnHTTP2
				return false
			case maybe:
				s.partial()
				return true
			}
			s.known = true
			s.client.count(exchange.HTTP11)
		}
		ok, err := w.reader.NextRequest(&w.x.Req, &w.message)
		switch {
		case err != nil:
			s.refuse(exchange.AsFault(err, exchange.BadRequest))
			return false
		case !ok:
			s.partial()
			return true
		case !w.lies():
			s.turn = turnServe
			return false
		case !s.exchange():
			s.turn = turnEnd
			return false
		}
	}
	return true
}

// partial notes that a request has begun; its head has a time to come in.
func (s *h1Session) partial() {
	if s.reading.kind() != phaseHead {
		s.reading.next(phaseHead)
	}
}

type guess uint8

const (
	no guess = iota
	maybe
	yes
)

// http2Preface opens a connection of HTTP/2 with prior knowledge (RFC 9113 3.4). No request of HTTP/1.x begins so.
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

func speaksHTTP2(begin []byte) guess {
	n := min(len(begin), len(http2Preface))
	switch {
	case string(begin[:n]) != http2Preface[:n]:
		return no
	case n < len(http2Preface):
		return maybe
	}
	return yes
}

// rest goes back to waiting for a request. It returns false when none may come any more.
func (s *h1Session) rest() bool {
	if s.reading.kind() == phaseHead {
		s.dropWork() // an empty line came, which the reader remembers
	} else {
		s.giveWork()
	}
	s.reading.next(phaseIdle)
	// A drain that came before saw that the session was not idle.
	s.turn = turnEnd
	return !s.closing.Load()
}

// exchange serves the request whose head was read, and reports whether another can follow.
func (s *h1Session) exchange() bool {
	w := s.work
	w.prepare(s.client.bind)
	if !s.begin() {
		s.abort = true
		return false
	}
	s.client.bind.options.Handler.ServeExchange(&w.x, &w.out)
	gone := s.finish()
	if !w.out.end() {
		s.abort, s.reset = true, w.out.framing == framingUntilClose
		return false
	}
	if w.out.tunnel {
		return false
	}
	whole := w.body.settle()
	if !w.out.keep || !whole || gone || s.closing.Load() {
		// Who asked for the end of the connection has nothing on its way.
		s.linger = !whole || !w.message.Close || w.x.Fault != nil || len(w.reader.Buffered()) > 0
		return false
	}
	w.next()
	if w.reader.Started() {
		w.x.Start = time.Now()
	}
	return true
}

// refuse answers a request that cannot be read, and ends the connection.
func (s *h1Session) refuse(fault *exchange.Fault) {
	w := s.work
	w.x.Fault = fault
	w.message = h1.Message{Proto: exchange.HTTP11, Close: true}
	s.exchange()
	s.turn = turnEnd
}

// begin makes the exchange one that the client's hang-up and a cut end.
func (s *h1Session) begin() bool {
	s.reading.next(phaseNone)
	s.mu.Lock()
	if s.wasCut {
		s.mu.Unlock()
		return false
	}
	if (s.interrupted || s.renewing) && !s.gone {
		// The request came at the very moment: it is served, but for a renewal as the last.
		s.interrupted, s.renewing = false, false
		s.client.sock.Revive()
	}
	s.live, s.deep = true, true
	if s.gone {
		s.work.x.Life.End(exchange.NewFault(exchange.ClientAborted, errHungUp))
	}
	s.mu.Unlock()
	if !s.watched {
		s.watched = true
		s.client.sock.Watch(s.hungUp)
	}
	return true
}

// finish ends what begin began, and reports whether the client hung up.
func (s *h1Session) finish() (gone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = false
	return s.gone
}

// hungUp is called when the client closed the connection or its half of it. Nobody waits for the answer then.
func (s *h1Session) hungUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	switch {
	case s.tunnel: // one direction of it ended
	case s.live:
		s.work.x.Life.End(exchange.NewFault(exchange.ClientAborted, errHungUp))
	default:
		s.client.sock.Interrupt()
	}
}

// tooLate reports whether the head of a request took too long; it can be answered then.
func (s *h1Session) tooLate() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expired && !s.gone && !s.wasCut && s.started()
}

// tick implements session.
func (s *h1Session) tick(now time.Time) {
	limits := &s.client.bind.options.Limits
	if s.writing.kind() == phaseWrite && s.writing.overdue(now, limits.BodyIdleTimeout) {
		s.cut()
		return
	}
	elapsed := time.Duration(0)
	if !s.ticked.IsZero() {
		elapsed = now.Sub(s.ticked)
	}
	s.ticked = now
	kind, limit := s.reading.kind(), time.Duration(0)
	switch kind {
	case phaseIdle:
		limit = limits.IdleTimeout
	case phaseHead:
		limit = limits.HeaderTimeout
	case phaseBody:
		limit = limits.BodyIdleTimeout
	}
	switch {
	case s.reading.overdue(now, limit):
		s.expire(kind)
	case kind == phaseBody:
		s.hurry(elapsed, limit)
	case kind == phaseIdle && s.reading.overdue(now, renewAfter):
		s.startRenewal()
	}
}

// hurry ends a body that trickles.
func (s *h1Session) hurry(elapsed, limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live && s.work.body.trickles(elapsed, limit) {
		s.work.body.expire()
	}
}

// expire ends a wait that took too long, unless it has just come to its end.
func (s *h1Session) expire(kind uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.reading.same():
	case kind == phaseBody:
		s.work.body.expire()
	case !s.live:
		s.closing.Store(true)
		s.interrupted, s.expired = true, kind == phaseHead
		s.client.sock.Interrupt()
	}
}

// startRenewal has another goroutine take an idle connection over, if there is something to gain.
func (s *h1Session) startRenewal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deep && !s.live && !s.renewing && !s.interrupted && !s.gone && !s.wasCut && s.reading.same() {
		s.renewing = true
		s.client.sock.Interrupt()
	}
}

// drain implements session. A tunnel goes on until it ends or is cut.
func (s *h1Session) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing.Store(true)
	if !s.live && s.reading.kind() == phaseIdle {
		s.interrupted = true
		s.client.sock.Interrupt()
	}
}

// cut implements session.
func (s *h1Session) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wasCut = true
	s.closing.Store(true)
	if s.live {
		s.work.x.Life.End(exchange.NewFault(exchange.ClientAborted, errCut))
	}
	s.client.sock.Interrupt()
}

// close ends the connection as the last exchange left it.
func (s *h1Session) close() {
	switch {
	case s.reset:
		_ = s.client.sock.SetLinger(0)
	case s.abort: // TLS must not say that all was well
	case s.linger:
		s.client.linger(s.mayLinger)
	default:
		_ = s.client.rw.Close()
	}
}

// mayLinger bounds what is read from now on, unless the session was cut.
func (s *h1Session) mayLinger() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wasCut || s.gone {
		return false
	}
	return s.client.sock.SetReadDeadline(time.Now().Add(lingerTime)) == nil
}
