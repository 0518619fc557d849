package upstream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h1"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// conn is one HTTP/1.1 connection to an endpoint. It carries one attempt after another; all that an attempt needs on the way is part of it,
// so that a connection that is used again allocates nothing.
//
//	roundTripOn   compose the head, and the body as far as it lies in memory, in the memory that the answer is read into later;
//	              write, wait, read; a goroutine sends the rest of the body meanwhile, see h1Send
//	              parse: interim responses go to the Informer, the final one ends it
//	end           back to the pool when both messages were whole, closed otherwise
//
// An answer that was there before its request is another request's (a body behind the answer to HEAD, a second answer to one request),
// and must not be taken for this one's. A connection is therefore looked at before it is used again: what can be read then condemns it.
// The look is a system call. It is left out where the connection was idle for so short a time that hardly anything can have come in it:
// when requests follow each other that closely, what comes unasked comes while one is under way, and then no look helps anyone. Bytes
// behind a whole answer condemn the connection in any case, and on one that was not looked at the answer too.
type conn struct {
	pool  *h1Pool
	line  *line
	rw    net.Conn // the line, or TLS over it
	plain bool     // rw is the line
	in    h1.Reader

	parked time.Duration // when it became idle, on the upkeep's clock
	kept   bool          // it waited in the pool before
	wary   bool          // it is to be looked at before it is used again

	// Of the attempt under way.
	attempt  *Attempt
	state    h1State
	stale    staleness
	looked   bool
	upgrade  string // the protocol asked for, "" for none
	key      string // the Sec-WebSocket-Key made here, "" for none
	request  h1.Message
	response h1.Message
	answer   h1Answer
	send     h1Send

	nudged   atomic.Bool // hungUp ended the wait under way, which may have missed the hang-up
	forgiven bool        // that was undone
}

// h1State is how far an attempt got.
type h1State uint8

const (
	composing h1State = iota
	asked             // RoundTrip's goroutine wrote all it had to
	begun             // bytes of an answer came
	headed            // the final head is there
	switched          // the connection is a raw stream
)

// staleness says that a kept connection was found closed, and what that means for the request.
type staleness uint8

const (
	notStale  staleness = iota
	unsent              // nothing was processed: part of the head is missing at least
	maybeSent           // the endpoint may have processed it, and processing it twice means the same as once (RFC 9110 9.2.2)
)

func newConn(p *h1Pool, l *line, rw net.Conn) *conn {
	c := &conn{pool: p, line: l, rw: rw, plain: rw == net.Conn(l)}
	c.answer.conn = c
	c.in.Init(c, nil, h1.Limits{Bytes: MaxResponseHeaderBytes, Fields: maxResponseFields})
	return c
}

// maxResponseFields bounds the field lines of an endpoint's response head.
const maxResponseFields = 1000

// roundTripOn carries one attempt over a new connection.
func (p *h1Pool) roundTripOn(c *conn, a *Attempt) *exchange.Fault {
	fault, _ := p.try(c, a)
	return fault
}

// try carries one attempt over a connection that nobody uses.
func (p *h1Pool) try(c *conn, a *Attempt) (*exchange.Fault, staleness) {
	if !a.Life.Attach(c.line) {
		p.put(c)
		return over(a.Life), notStale
	}
	c.attempt, c.state, c.stale, c.upgrade, c.key = a, composing, notStale, "", ""
	c.send.begin()
	a.carrier = c
	fault := c.roundTrip(a)
	if fault != nil {
		c.send.proceed(false)
		_ = c.line.Close() // at once: the endpoint must not take what it got for a whole request, nor the body's goroutine wait for it
	}
	return fault, c.stale
}

func (c *conn) roundTrip(a *Attempt) *exchange.Fault {
	if c.kept && !c.quiet() {
		return c.fault(a, errStale)
	}
	if err := c.ask(a); err != nil {
		return c.fault(a, err)
	}
	return c.receive(a)
}

var errStale = errors.New("the endpoint closed the kept connection, or sent something unasked")

// lookAfter is how long a connection must have been idle to be looked at.
const lookAfter = 200 * time.Microsecond

// quiet reports whether the connection can be used again, as far as that can be known.
func (c *conn) quiet() bool {
	c.looked = c.wary || c.pool.dialer.upkeep.clock()-c.parked >= lookAfter
	if !c.looked {
		return !c.line.Hung()
	}
	return c.line.look(c.rw)
}

// ask sends the head, and the body as far as it lies in memory, or has a goroutine send it. The first bytes of the answer may be there
// when it returns.
func (c *conn) ask(a *Attempt) error {
	space := c.in.Space()
	out, err := c.compose(space[:0], a)
	if err != nil {
		return err
	}
	if c.plain && c.send.whole {
		n, all, err := c.line.RoundTrip(out, space)
		if all {
			c.state = asked
		}
		if n > 0 {
			c.advance(n)
			return nil
		}
		if all && c.forgive(err) {
			return nil
		}
		return err
	}
	if _, err := c.rw.Write(out); err != nil {
		return err
	}
	c.state = asked
	if !c.send.whole {
		c.send.start(c)
	}
	return nil
}

func (c *conn) advance(n int) {
	c.in.Advance(n)
	c.state = max(c.state, begun)
}

// Read is where the codec gets its bytes from.
func (c *conn) Read(p []byte) (int, error) {
	for {
		n, err := c.rw.Read(p)
		if n > 0 || err == nil || !c.forgive(err) {
			return n, err
		}
	}
}

// mostInterim bounds the interim responses to one request: more than any upload reports its progress with, and an end to an endpoint that sends
// nothing else.
const mostInterim = 1000

var errInterim = fmt.Errorf("more than %d interim responses and no final one", mostInterim)

// receive reads up to the final head, or to 101.
func (c *conn) receive(a *Attempt) *exchange.Fault {
	method := c.method(a)
	for interim := 0; ; {
		ok, err := c.in.NextResponse(&a.Response, &c.response, method)
		if ok && a.Response.Status < 200 {
			interim++
		}
		switch {
		case err != nil:
			return c.fault(a, err)
		case interim > mostInterim:
			return exchange.NewFault(exchange.UpstreamProtocol, errInterim)
		case !ok:
			space := c.in.Space()
			n, err := c.Read(space)
			if n == 0 && err == nil { // the codec has no room for more and no word for it
				err = io.ErrNoProgress
			}
			if n == 0 {
				return c.fault(a, err)
			}
			c.advance(n)
		case a.Response.Status >= 200:
			return c.finalHead(a, method)
		case a.Response.Status == 101:
			return c.switchOver(a)
		case a.Response.Status == 100:
			c.send.proceed(true)
			c.in.Next()
		default:
			if a.Inform != nil {
				a.Inform.Inform(a.Response.Status, a.Response.Fields)
			}
			c.in.Next()
		}
	}
}

// method is the request's on the wire: an extended CONNECT goes out as GET.
func (c *conn) method(a *Attempt) string {
	if c.upgrade != "" {
		return "GET"
	}
	return a.Request.Method
}

func (c *conn) finalHead(a *Attempt, method string) *exchange.Fault {
	c.send.proceed(false)
	status := a.Response.Status
	c.wary = method == "HEAD" || status == 204 || status == 304
	if n, whole := c.in.Ready(); whole && c.response.Length != h1.Chunked && len(c.in.Buffered()) > n && c.doubtful() {
		return exchange.NewFault(exchange.UpstreamProtocol, errSurplus)
	}
	c.state = headed
	c.send.answered.Store(true)
	a.Answer = &c.answer
	return nil
}

var errSurplus = errors.New("bytes follow the endpoint's answer on a kept connection: it may be the answer to another request")

// doubtful reports whether bytes that follow an answer put it in doubt.
func (c *conn) doubtful() bool { return c.kept && !c.looked }

// fault says what went wrong with an attempt before its final head, and whether the request may go out again.
func (c *conn) fault(a *Attempt, err error) *exchange.Fault {
	f := c.cause(a, err)
	if f.Kind != exchange.UpstreamReset && f.Kind != exchange.UpstreamTLS || c.state >= begun {
		return f
	}
	untouched := a.hold.read.Load() == 0
	bare := a.Body.Length() == 0 || c.upgrade != ""
	switch {
	case c.state == composing && untouched:
		// Not even the head went out whole.
		f.Retryable = true
		if c.kept {
			c.stale = unsent
		}
	case !c.kept:
	case !bare:
		// Nothing of the body went out, so that nothing was processed.
		f.Retryable = untouched
	case safe(c.method(a)):
		c.stale = maybeSent
	}
	return f
}

// cause says whose fault a failed read or write is.
func (c *conn) cause(a *Attempt, err error) *exchange.Fault {
	if f := a.hold.failed.Load(); f != nil {
		return f
	}
	if a.Life.Over() {
		return over(a.Life)
	}
	if f, ok := errors.AsType[*exchange.Fault](err); ok {
		return f
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	f := exchange.NewFault(exchange.UpstreamReset, err)
	if isAlert(err) { // in TLS 1.3 an endpoint that wants a client certificate says so only now
		f = exchange.NewFault(exchange.UpstreamTLS, err)
		f.Retryable = false
	}
	return f
}

// safe reports whether a request may be sent twice without anybody having asked for it (RFC 9110 9.2.1).
func safe(method string) bool { return method == "GET" || method == "HEAD" || method == "OPTIONS" }

// settleTime is how long a connection waits, after a whole answer, for the rest of the request to be sent: an endpoint may have
// answered when it had the last byte, before the goroutine that sent it was done.
const settleTime = 50 * time.Millisecond

// end implements carrier.
func (c *conn) end(a *Attempt) {
	whole := a.Life.Detach() && c.state == headed && !c.response.Close && c.in.Whole() && len(c.in.Buffered()) == 0 &&
		a.hold.failed.Load() == nil
	whole = c.send.settle(c.line, whole) && whole
	c.attempt = nil
	if !whole {
		c.close(false)
		return
	}
	c.in.Next()
	c.pool.put(c)
}

// close gives up a connection that nobody uses, with TLS's farewell where the endpoint may be waiting for more. That is for connections
// that were idle: the endpoint of another may not be reading.
func (c *conn) close(farewell bool) {
	if farewell {
		_ = c.rw.Close()
	}
	_ = c.line.Close()
	c.in.Release()
	c.pool.open.Add(-1)
}

// hungUp is called, once, when the endpoint closed or half-closed the connection. A connection in use may wait for an event that it missed,
// because the hang-up came just before it began to wait: the wait is ended, and begins anew by reading.
func (c *conn) hungUp() {
	if c.pool.remove(c) {
		c.close(false)
		return
	}
	if c.plain {
		c.nudged.Store(true)
		_ = c.line.SetReadDeadline(time.Unix(1, 0))
	}
}

// forgive undoes what hungUp did to a wait that ended with err, and reports whether that was it.
func (c *conn) forgive(err error) bool {
	if c.forgiven || !c.nudged.Load() || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.forgiven = true
	_ = c.line.SetReadDeadline(time.Time{})
	if c.attempt.Life.Over() || c.state < headed && c.attempt.hold.failed.Load() != nil {
		c.line.Interrupt() // which may just have been undone with it
		return false
	}
	return true
}

// h1Answer is the body of an answer.
type h1Answer struct{ conn *conn }

// Read returns the endpoint's bytes.
func (b *h1Answer) Read(p []byte) (int, error) {
	c := b.conn
	n, err := c.in.Read(p)
	switch {
	case err == nil:
	case err != io.EOF:
		err = c.cause(c.attempt, err)
	case len(c.in.Buffered()) > 0 && c.doubtful():
		return 0, exchange.NewFault(exchange.UpstreamProtocol, errSurplus)
	}
	return n, err
}

// Close does nothing: Attempt.End gives up what is left.
func (*h1Answer) Close() error { return nil }

// Length is the content length, -1 when it is unknown. In the answer to HEAD, and in a 304, it is that of the content that is not sent.
func (b *h1Answer) Length() int64 {
	c := b.conn
	switch {
	case c.response.Length >= 0:
		return c.response.Length
	case c.response.Length == h1.Unsaid && c.attempt.Response.Status == 204:
		return 0
	default:
		return -1
	}
}

// Trailers returns the trailers.
func (b *h1Answer) Trailers() exchange.Fields { return b.conn.in.Trailers() }

// Ready tells what lies in memory already.
func (b *h1Answer) Ready() (n int, whole bool) { return b.conn.in.Ready() }
