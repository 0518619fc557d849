package downstream

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h2Stream is one request and its response. It is a task for the workers, the exchange.Responder of its exchange and, as h2Body and h2Tunnel,
// the request's body and the raw stream. It is used again for other streams, of other connections, too.
type h2Stream struct {
	session *h2Session
	id      uint32

	// Written by the goroutine that reads before the worker begins.
	start  time.Time
	head   exchange.Head
	arena  section.Arena   // of head and trailers
	length int64           // of the request's body; -1 unknown
	fault  *exchange.Fault // why the request cannot be served
	refuse h2.Code         // not 0: a malformed request, which is logged and reset with this code
	expect bool            // 100 (Continue) is awaited
	// bodyless says that the request ended with its head, connect that what follows the head is a tunnel's and no body.
	bodyless, connect bool

	inbox    h2.Inbox
	window   h2.Window
	turn     h2.Turn
	trailers exchange.Fields // written before inbox.End

	waiting watch // h2Waiting while a Read waits for the client
	stall   watch // h2Waiting while a Write waits for the client's window
	gave    atomic.Bool

	// Guarded by session.mu.
	priority h2.Priority
	whole    bool  // the client's side of the stream has ended
	got      int64 // bytes of the body received
	pace     pace
	taken    int64 // bytes of it that the connection's window was opened again for
	lost     *exchange.Fault
	life     *exchange.Life // while the exchange is served

	// Guarded by the Output's lock, between its Begin and End: 100 (Continue) is sent by who reads the body first.
	responded bool

	// Of the worker.
	isHead   bool
	promised int64 // the content-length of the response; -1 unknown
	sent     int64
	mute     bool // the response has no body, whatever is written
	ended    bool // END_STREAM was sent
	aborted  bool
	tunnel   bool
	progress int // bytes that the client's window gave since stall began
}

var h2Streams = sync.Pool{New: func() any { return new(h2Stream) }}

func getH2Stream() *h2Stream {
	st, _ := h2Streams.Get().(*h2Stream)
	return st
}

// begin makes the object that of a new stream.
func (st *h2Stream) begin(s *h2Session, id uint32) {
	st.session, st.id = s, id
	st.inbox.Init(&s.tuner, h2StreamWindow, h2StreamMost, st)
	st.window.Init(&s.credit)
	st.turn.Init(id)
	st.priority = h2.DefaultPriority()
}

// accept takes what the decoding of the request's head said: end is END_STREAM, length the content-length.
func (st *h2Stream) accept(end bool, length int64, err error) {
	st.whole, st.bodyless, st.length = end, end, length
	st.head.Scheme = "http" // how the client reached the gateway, whatever it says
	if st.session.client.secure != nil {
		st.head.Scheme = "https"
	}
	if err == nil && len(st.head.Fields) > st.session.limits.MaxHeaderCount {
		err = section.ErrTooLarge
	}
	switch {
	case errors.Is(err, section.ErrTooLarge):
		st.fault = exchange.NewFault(exchange.FieldsTooLarge, err)
		return
	case err != nil:
		st.malformed(h2.ProtocolError, err)
		return
	case end && length > 0:
		st.malformed(h2.ProtocolError, errors.New("content-length announces a body, and none follows"))
		return
	}
	st.connect = st.head.Method == "CONNECT"
	if most := st.session.limits.MaxBodyBytes; most >= 0 && length > most {
		st.fault = exchange.NewFault(exchange.BodyTooLarge, nil)
	}
	st.expect = !end && strings.EqualFold(st.head.Fields.Get(exchange.Expect), "100-continue")
}

func (st *h2Stream) malformed(code h2.Code, err error) {
	st.refuse = code
	st.fault = exchange.NewFault(exchange.BadRequest, err)
}

// lengthHolds reports whether the body, which has ended, is as long as content-length says. It is called with the session's mu held.
func (st *h2Stream) lengthHolds() bool { return st.length < 0 || st.length == st.got }

// run implements task.
func (st *h2Stream) run(x *exchange.Exchange) {
	s := st.session
	x.Peer, x.Start, x.Fault = s.peer, st.start, st.fault
	x.Req, st.head = st.head, x.Req // each keeps the other's memory for its fields
	st.promised, st.isHead = -1, x.Req.Method == "HEAD"
	s.mu.Lock()
	st.prepareBody(x)
	if st.lost == nil {
		st.life = x.Life
	} else {
		x.Life.End(st.lost)
		x.Fault = st.lost
	}
	s.mu.Unlock()

	s.client.bind.options.Handler.ServeExchange(x, st)
	st.end()
}

// prepareBody is called with the session's mu held.
func (st *h2Stream) prepareBody(x *exchange.Exchange) {
	n, whole := st.inbox.Ready()
	switch {
	case st.connect, st.bodyless, whole && n == 0 && len(st.trailers) == 0:
	default:
		if whole && len(st.trailers) == 0 {
			st.length = int64(n) // an endpoint of HTTP/1.1 is spared the chunks
		}
		x.ReqBody = (*h2Body)(st)
	}
}

// end comes after the exchange: it completes what the handler left open and takes the stream off the session.
func (st *h2Stream) end() {
	s := st.session
	s.mu.Lock()
	st.life = nil
	lost := st.lost != nil
	s.mu.Unlock()
	if !lost {
		st.complete()
	}
	s.mu.Lock()
	if st.ended && !st.short() {
		s.budgets.resets.Give(1)
	}
	given := s.giveBack(int(st.got - st.taken)) // nobody reads it any more
	s.remove(st)
	s.mu.Unlock()
	if given {
		_ = s.out.Flush()
	}
	st.recycle()
	s.working.Done()
}

// complete ends the response, or breaks it off visibly, and asks the client to stop sending what nobody reads (RFC 9113 8.1).
func (st *h2Stream) complete() {
	s := st.session
	s.mu.Lock()
	if st.ended && st.whole {
		s.mu.Unlock()
		return
	}
	code := h2.NoError
	switch {
	case st.refuse != 0:
		code = st.refuse
	case st.tunnel:
		code = h2.Cancel // RFC 8441 5
	case st.ended:
	case st.aborted || !st.responded || st.short():
		code = h2.InternalError
	}
	buf := s.out.Begin()
	if code == h2.NoError && !st.ended {
		buf = s.out.AppendEnd(buf, &st.turn)
		st.ended = true
	}
	if code != h2.NoError || !st.whole {
		buf = h2.AppendReset(buf, st.id, code)
	}
	if !st.whole {
		s.resets.add(st.id)
	}
	s.out.End(buf)
	s.mu.Unlock()
	_ = s.out.Flush()
}

// short reports whether less was sent than the response's content-length says.
func (st *h2Stream) short() bool { return st.promised >= 0 && st.sent != st.promised }

// recycle makes the object free for another stream. Nobody may use it any more.
func (st *h2Stream) recycle() {
	st.inbox.Close()
	st.window.Close()
	st.arena.Reset()
	head, trailers := st.head.Fields, st.trailers
	clear(head[:cap(head)])
	clear(trailers[:cap(trailers)])
	st.session, st.head, st.trailers = nil, exchange.Head{Fields: head[:0]}, trailers[:0]
	st.start, st.fault, st.refuse, st.expect, st.connect = time.Time{}, nil, 0, false, false
	st.whole, st.got, st.taken, st.lost, st.life = false, 0, 0, nil, nil
	st.pace = pace{}
	st.responded, st.sent, st.mute, st.ended, st.aborted, st.tunnel, st.progress = false, 0, false, false, false, false, 0
	st.gave.Store(false)
	h2Streams.Put(st)
}

// lose ends the stream's work: nothing is sent on it any more. It is called with the session's mu held.
func (st *h2Stream) lose(fault *exchange.Fault) {
	if st.lost != nil {
		return
	}
	st.lost = fault
	if st.life != nil {
		st.life.End(fault)
	}
	st.inbox.Cut(fault)
	st.window.Fail(fault)
	st.session.out.Cancel(&st.turn, fault)
}

// reset sends RST_STREAM and ends the stream's work. It is called with the session's mu held.
func (st *h2Stream) reset(code h2.Code, fault *exchange.Fault) {
	if st.lost != nil {
		return
	}
	st.session.sendReset(st.id, code, !st.whole)
	st.lose(fault)
}

// prioritize takes what the client asked for. It is called with the session's mu held.
func (st *h2Stream) prioritize(p h2.Priority) {
	if p != st.priority {
		st.priority = p
		st.session.out.Prioritize(&st.turn, p)
	}
}

// tick ends what is overdue. It is called with the session's mu held.
func (st *h2Stream) tick(now time.Time, elapsed time.Duration) {
	limit := st.session.limits.BodyIdleTimeout
	if st.waiting.kind() != 0 && (st.waiting.overdue(now, limit) || st.length >= 0 && st.pace.trickles(st.got, elapsed, limit)) {
		st.inbox.Fail(exchange.NewFault(exchange.ClientTimeout, fmt.Errorf("next to nothing of the body came within %v", limit)))
	}
	if st.stall.kind() != 0 && st.stall.overdue(now, limit) {
		st.reset(h2.Cancel, exchange.NewFault(exchange.ClientAborted, fmt.Errorf("the client's window gave next to nothing for %v", limit)))
		st.session.out.Kick()
	}
}

// Give implements h2.Giver.
func (st *h2Stream) Give(n uint32) {
	out := &st.session.out
	out.End(h2.AppendWindowUpdate(out.Begin(), st.id, n))
	st.gave.Store(true)
}

// h2Body is the stream as the request's body.
type h2Body h2Stream

// Read returns a *Fault for everything but the end.
func (b *h2Body) Read(p []byte) (int, error) {
	st := (*h2Stream)(b)
	if n, whole := st.inbox.Ready(); n > 0 || whole {
		return st.read(p)
	}
	if st.expect {
		st.expect = false
		st.proceed()
	}
	st.waiting.next(h2Waiting)
	n, err := st.read(p)
	st.waiting.next(0)
	return n, err
}

// read takes bytes out of the inbox and opens the windows again.
func (st *h2Stream) read(p []byte) (int, error) {
	n, err := st.inbox.Read(p)
	s := st.session
	s.mu.Lock()
	st.taken += int64(n)
	given := s.giveBack(n)
	s.mu.Unlock()
	if st.gave.Swap(false) || given {
		_ = s.out.Flush()
	}
	return n, err
}

var errH2BodyClosed = errors.New("the body was closed before its end")

// Close gives up what is left. Who is in Read returns.
func (b *h2Body) Close() error {
	st := (*h2Stream)(b)
	if !st.inbox.Whole() {
		st.inbox.Cut(exchange.NewFault(exchange.ClientAborted, errH2BodyClosed))
	}
	return nil
}

// Length is the content-length, or what lay in memory when it was whole; -1 when neither is known.
func (b *h2Body) Length() int64 { return b.length }

// Trailers returns the request's trailers.
func (b *h2Body) Trailers() exchange.Fields { return b.trailers }

// Ready tells what lies in memory.
func (b *h2Body) Ready() (n int, whole bool) { return (*h2Stream)(b).inbox.Ready() }
