package downstream

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"gatehouse.dev/gatehouse/gateway/codec/h3"
	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h3Stream is one request stream: the task that a worker runs, the request's body, and the Responder (h3responder.go). Its object is used
// again for other streams.
type h3Stream struct {
	session *h3Session
	str     *quic.Stream
	id      quic.StreamID
	at      int // its place in session.streams; guarded by session.mu
	reader  h3.Reader
	x       *exchange.Exchange
	gone    func() // called when the client gives the response up, or the connection ends; see tick

	left int64 // body bytes still allowed; negative for no limit

	reading, writing watch // the ticker looks at them with session.mu held

	mu      sync.Mutex
	life    *exchange.Life // of the exchange until its response is whole, nil otherwise; guarded by mu
	unwatch func() bool    // ends the watch over the stream's context; guarded by mu
	fired   bool           // that was too late: gone is called, or will be; guarded by mu
	busy    bool           // a read is under way; guarded by mu
	closed  bool           // nobody wants the rest of the body; guarded by mu
	late    bool           // the client stayed silent for too long; guarded by mu
	dropped bool           // the client reset the stream; guarded by mu
	err     error          // what reading ended with, for ever; guarded by mu
	got     int64          // bytes of the body read; guarded by mu
	pace    pace           // guarded by mu
	code    h3.Code        // what the stream is reset with; guarded by mu

	h3Output
}

var (
	_ task           = (*h3Stream)(nil)
	_ exchange.Ready = (*h3Stream)(nil)
)

func newH3Stream() *h3Stream {
	st := new(h3Stream)
	st.gone = func() { st.lose(context.Cause(st.str.Context())) }
	return st
}

// begin makes the object ready for a stream. It is called with session.mu held, and so is nothing else of the stream's meanwhile.
func (st *h3Stream) begin(s *h3Session, str *quic.Stream, at int) {
	st.session, st.str, st.id, st.at = s, str, str.StreamID(), at
	st.left = s.limits.MaxBodyBytes
	st.got, st.pace = 0, pace{}
	st.busy, st.closed, st.late, st.dropped, st.err, st.code = false, false, false, false, nil, h3.NoError
	st.h3Output.begin()
	st.reading.next(h3Head)
}

// run implements task.
func (st *h3Stream) run(x *exchange.Exchange) {
	s, str := st.session, st.str
	x.Peer, x.Start, st.x = s.peer, time.Now(), x
	st.reader.Init(str, section.Limits{Bytes: s.limits.MaxHeaderBytes, Fields: s.limits.MaxHeaderCount})
	whole := st.request() && st.exchange()
	st.reading.next(0)
	st.release()
	st.reader.Release()
	st.x = nil
	if st.held {
		s.batch.add(st)
	} else {
		st.end(whole)
	}
}

// end comes last. whole tells that the response went out whole.
func (st *h3Stream) end(whole bool) {
	s, str := st.session, st.str
	st.mu.Lock()
	code, fired := st.code, st.fired
	st.mu.Unlock()
	// If there is a rest of the body, it is of no use (RFC 9114 4.1).
	str.CancelRead(quic.StreamErrorCode(code))
	s.end(st, whole)
	if !fired {
		st.session, st.str = nil, nil
		s.server.spares.Put(st)
	}
}

// request reads the request's head; false means that there is no request to serve.
func (st *h3Stream) request() bool {
	x := st.x
	err := st.reader.ReadRequest(&x.Req)
	st.reading.next(0)
	if err != nil {
		fault, isFault := errors.AsType[*exchange.Fault](err)
		if !isFault {
			st.refuse(err)
			return false
		}
		st.blame(fault)
		x.Fault = fault
	}
	// The gateway was reached by TLS, whatever the client writes.
	x.Req.Scheme = "https"
	if x.Fault != nil {
		return true
	}
	st.prioritise()
	st.asks = strings.EqualFold(x.Req.Fields.Get(exchange.Expect), "100-continue")
	if x.Req.Protocol == "" && st.hasBody() {
		x.ReqBody = st
	}
	if st.left >= 0 && st.reader.Length() > st.left {
		x.Fault = exchange.NewFault(exchange.BodyTooLarge, nil)
	}
	return true
}

// refuse ends a stream whose request did not come.
func (st *h3Stream) refuse(err error) {
	s := st.session
	code := h3.RequestIncomplete
	if breach, ok := errors.AsType[*h3.StreamError](err); ok {
		code = breach.Code
	}
	reset(st.str, code)
	if _, ok := errors.AsType[*quic.StreamError](err); ok {
		s.spend(&s.resets, 1, "streams reset")
		return
	}
	s.spend(&s.provoked, 1, "requests that do not come")
	s.fail(err)
}

// blame notes what the client has done wrong: it costs, and decides on the code that its stream is reset with.
func (st *h3Stream) blame(err error) {
	if breach, ok := errors.AsType[*h3.StreamError](err); ok {
		st.mu.Lock()
		st.code = breach.Code
		st.mu.Unlock()
	}
	st.session.spend(&st.session.provoked, 1, "requests that must be refused")
}

// prioritise takes the request's Priority field (RFC 9218 5). Clients that know of priorities mean "not incremental" by saying nothing.
func (st *h3Stream) prioritise() {
	const name = "priority"
	s := st.session
	for i := range st.x.Req.Fields {
		f := &st.x.Req.Fields[i]
		if f.ID == exchange.Unknown && f.Name == name {
			s.prioritised.Store(true)
			p := h3.ParsePriority(f.Value)
			st.str.SetPriority(p.Urgency, p.Incremental)
			return
		}
	}
	if s.prioritised.Load() {
		p := h3.ParsePriority("")
		st.str.SetPriority(p.Urgency, p.Incremental)
	}
}

// probeTime bounds the wait for the end of a request that probably has no body.
const probeTime = 100 * time.Millisecond

// hasBody reports whether the request has a body. Where its head does not say, the end of the stream does, which comes with the head in one
// packet nearly always. A request that seldom has a body waits for it a little, since a GET must not reach an HTTP/1.1 endpoint in chunks
// because its end was late.
func (st *h3Stream) hasBody() bool {
	if st.reader.Length() > 0 {
		return true
	}
	if st.reader.Length() == 0 {
		st.empty()
		return false
	}
	n, whole := st.reader.Ready()
	if n > 0 || whole {
		return n > 0
	}
	if st.asks || !seldomHasBody(st.x.Req.Method) {
		return true
	}
	_ = st.str.SetReadDeadline(time.Now().Add(probeTime))
	// An error is the first read's, unless it is that time is up.
	_ = st.reader.Wait()
	_ = st.str.SetReadDeadline(time.Time{})
	n, whole = st.reader.Ready()
	return n > 0 || !whole
}

// empty looks whether a request that says to have no body has one.
func (st *h3Stream) empty() {
	if _, whole := st.reader.Ready(); whole {
		return
	}
	var none [1]byte
	_ = st.str.SetReadDeadline(time.Now().Add(probeTime))
	_, err := st.reader.Read(none[:])
	_ = st.str.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	if err = st.fault(err, false, false); err != io.EOF {
		st.x.Fault = exchange.AsFault(err, exchange.BadRequest)
	}
}

// seldomHasBody names the methods whose requests have a body only by way of exception (RFC 9110 9.3).
func seldomHasBody(method string) bool {
	switch method {
	case "GET", "HEAD", "DELETE", "OPTIONS":
		return true
	}
	return false
}

// exchange serves the request. It reports whether the response is whole.
func (st *h3Stream) exchange() bool {
	st.mu.Lock()
	st.life = st.x.Life
	st.mu.Unlock()
	if st.str.Context().Err() != nil {
		st.gone()
	}
	st.session.server.bind.options.Handler.ServeExchange(st.x, st)
	return st.finish()
}

// lose ends the exchange because the client has gone.
func (st *h3Stream) lose(cause error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.life != nil {
		st.life.End(exchange.NewFault(exchange.ClientAborted, cause))
	}
}

// release ends the watch: from now on the client may go, and the end of the sending side, which ends the stream's context too, is not taken
// for that.
func (st *h3Stream) release() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.life = nil
	if st.unwatch != nil {
		st.fired = !st.unwatch()
		st.unwatch = nil
	}
}

// tick ends what is overdue, and begins the watch over a client that may give the response up. To watch every stream from its beginning
// would cost five allocations, where nothing else of ours makes any, for exchanges that are over within a moment; so the first moments of
// an exchange, a period of the ticker at most, go unwatched. It is called with session.mu held.
func (st *h3Stream) tick(now time.Time, elapsed time.Duration) {
	st.mu.Lock()
	if st.life != nil && st.unwatch == nil && !st.fired {
		st.unwatch = context.AfterFunc(st.str.Context(), st.gone)
	}
	st.mu.Unlock()
	limits := st.session.limits
	switch kind := st.reading.kind(); {
	case kind == h3Head && st.reading.overdue(now, limits.HeaderTimeout):
		_ = st.str.SetReadDeadline(longAgo())
	case kind == h3Body:
		silent := st.reading.overdue(now, limits.BodyIdleTimeout)
		st.mu.Lock()
		if st.busy && (silent || st.reader.Length() >= 0 && st.pace.trickles(st.got, elapsed, limits.BodyIdleTimeout)) {
			st.late = true
			_ = st.str.SetReadDeadline(longAgo())
		}
		st.mu.Unlock()
	}
	if st.writing.kind() != 0 && st.writing.overdue(now, limits.BodyIdleTimeout) {
		_ = st.str.SetWriteDeadline(longAgo())
	}
}

// Read reads the request's body. It returns a *Fault for everything but the end, and asks a client that waits for it to send the body.
func (st *h3Stream) Read(p []byte) (int, error) {
	st.mu.Lock()
	if st.err == nil && st.closed {
		st.err = exchange.NewFault(exchange.ClientAborted, errBodyClosed)
	}
	if err := st.err; err != nil {
		st.mu.Unlock()
		return 0, err
	}
	st.busy = true
	st.reading.next(h3Body)
	st.mu.Unlock()

	if st.asks {
		st.proceed()
	}
	n, err := st.reader.Read(p)

	st.mu.Lock()
	st.busy = false
	st.got += int64(n)
	st.reading.next(0)
	if st.left >= 0 {
		if int64(n) > st.left {
			n = int(st.left)
			err = exchange.NewFault(exchange.BodyTooLarge, nil)
		}
		st.left -= int64(n)
	}
	closed, late := st.closed, st.late
	st.mu.Unlock()
	if err != nil {
		err = st.fault(err, closed, late)
		st.mu.Lock()
		st.err = err
		st.mu.Unlock()
	}
	return n, err
}

// fault names an error of reading.
func (st *h3Stream) fault(err error, closed, late bool) error {
	switch {
	case err == io.EOF:
		return err
	case closed:
		return exchange.NewFault(exchange.ClientAborted, errBodyClosed)
	case late && errors.Is(err, os.ErrDeadlineExceeded):
		return exchange.NewFault(exchange.ClientTimeout, err)
	}
	if _, ok := errors.AsType[*h3.ConnError](err); ok {
		st.session.fail(err)
		return exchange.NewFault(exchange.BadRequest, err)
	}
	if fault, ok := errors.AsType[*exchange.Fault](err); ok {
		if fault.Kind != exchange.BodyTooLarge { // which many a client cannot know beforehand
			st.blame(err)
		}
		return fault
	}
	if _, ok := errors.AsType[*quic.StreamError](err); ok {
		st.mu.Lock()
		st.dropped = true
		st.mu.Unlock()
	}
	st.lose(err)
	return exchange.AsFault(err, exchange.ClientAborted)
}

// Close gives up what is left and ends a read under way. The client is told after the response. It may be called from any goroutine.
func (st *h3Stream) Close() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil || st.closed {
		return nil
	}
	st.closed = true
	if st.busy {
		_ = st.str.SetReadDeadline(longAgo())
	}
	return nil
}

// Length is the body's length, -1 when the client did not say.
func (st *h3Stream) Length() int64 { return st.reader.Length() }

// Ready implements exchange.Ready.
func (st *h3Stream) Ready() (int, bool) {
	n, whole := st.reader.Ready()
	return n, whole && (st.left < 0 || int64(n) <= st.left)
}

// Trailers returns the trailers, after Read returned io.EOF.
func (st *h3Stream) Trailers() exchange.Fields { return st.reader.Trailers() }
