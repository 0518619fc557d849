package upstream

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Informer gets the interim responses of an attempt, other than 100 (Continue): from RoundTrip's goroutine, before RoundTrip returns. The
// fields are valid until Inform returns.
type Informer interface {
	Inform(status int, fields exchange.Fields)
}

// Attempt is one try to carry a request to an endpoint. Its owner fills in what is to be sent, begins Life under the exchange's, and calls
// in this order
//
//	fault := endpoint.RoundTrip(&a)   // the head of the answer is there, or a fault
//	... read a.Answer, or use a.Tunnel
//	a.Detach()                        // only where another attempt may follow
//	a.End()                           // always, also after a fault
//	a.Reset()                         // to use it again
//
// An attempt that is used again allocates nothing. All but Detach and End is for one goroutine at a time.
type Attempt struct {
	// Request is the head to send; its fields must hold nothing hop-by-hop but "TE: trailers" and Trailer.
	Request *exchange.Head
	// Body is read to its end or until the endpoint answers otherwise, from a goroutine of the attempt's where it does not lie in memory
	// already. It is not closed.
	Body exchange.Body
	// Inform may be nil.
	Inform Informer
	// Life bounds the attempt, the body of the answer included. Whoever ends it gets the cause back as the fault of what was under way.
	// Reset makes it; it is not the same from one use to the next where somebody may still hold the one before.
	Life *exchange.Life

	// Response is the head of the answer. Its strings are views that are valid until End.
	Response exchange.Response
	// Answer is the body of the answer, valid until End.
	Answer exchange.Body
	// Tunnel is the raw stream after a protocol switch, nil otherwise; Answer is empty then. It is valid until End, which closes it.
	Tunnel exchange.Stream

	hold    hold    // on Body
	carrier carrier // what RoundTrip took and End gives back; nil when there is nothing
}

// carrier is what an attempt occupies: an HTTP/1.1 connection, a stream of an HTTP/2 connection.
type carrier interface {
	// end gives it back, or up where the exchange was not whole, and waits for the goroutine that sends the body. It is called once for
	// each RoundTrip.
	end(a *Attempt)
}

// RoundTrip carries one request to the endpoint and returns when the response head is there. A Fault with Retryable set means that the
// endpoint certainly did not start on the request.
func (e *Endpoint) RoundTrip(a *Attempt) *exchange.Fault {
	if a.Life == nil { // an attempt that was never Reset
		a.Life = &exchange.Life{}
	}
	return e.client.roundTrip(a)
}

// Detach ends the attempt's hold on Body, so that another attempt can read it. It returns false when a Read is under way, whose bytes
// would be lost; it waits up to 100 ms for that Read to end.
func (a *Attempt) Detach() bool { return a.hold.release() }

// End ends the attempt: its connection goes back to where it came from when both messages were whole and Life lasts, and is closed
// otherwise. It waits for the goroutine that sends the body: the caller has interrupted Body by now, or lets it end. It may be called
// again.
func (a *Attempt) End() {
	if c := a.carrier; c != nil {
		a.carrier = nil
		c.end(a)
	}
	if a.Life != nil {
		a.Life.Leave()
	}
}

// Reset makes an attempt that is new or ended ready for a try, with the memory of before.
func (a *Attempt) Reset() {
	fields := a.Response.Fields
	clear(fields[:cap(fields)])
	*a = Attempt{Response: exchange.Response{Fields: fields[:0]}, Life: a.Life.Fresh()}
}

// detachTime is how long a retry waits for a Read under way: an endpoint may answer when it has the whole body, before the body's end
// was seen here.
const detachTime = 100 * time.Millisecond

var errDetached = errors.New("the attempt was given up")

// hold is an attempt's hold on its Body: it says what was read, remembers a fault on the client's side so that it is not blamed on the
// endpoint, and can be released for another attempt.
type hold struct {
	read   atomic.Int64
	failed atomic.Pointer[exchange.Fault]
	// trailers are Body's, once its end was read. They are for who reads it.
	trailers exchange.Fields

	mu       sync.Mutex
	reading  bool          // a Read is under way; guarded by mu
	released bool          // no Read begins any more; guarded by mu
	ended    chan struct{} // closed when the Read under way ends, for release; guarded by mu
}

// readBody reads from Body for as long as the attempt holds it. An error other than io.EOF is errDetached or the client's fault.
func (a *Attempt) readBody(p []byte) (int, error) {
	if !a.hold.begin() {
		return 0, errDetached
	}
	defer a.hold.finish()
	n, err := a.Body.Read(p)
	a.hold.read.Add(int64(n))
	switch {
	case err == io.EOF:
		a.hold.trailers = a.Body.Trailers() // while nobody else can hold it
	case err != nil:
		a.hold.failed.Store(exchange.AsFault(err, exchange.ClientAborted))
	}
	return n, err
}

func (h *hold) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reading = !h.released
	return h.reading
}

func (h *hold) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reading = false
	if h.ended != nil {
		close(h.ended)
		h.ended = nil
	}
}

func (h *hold) release() bool {
	h.mu.Lock()
	h.released = true
	if !h.reading {
		h.mu.Unlock()
		return true
	}
	if h.ended == nil {
		h.ended = make(chan struct{})
	}
	ended := h.ended
	h.mu.Unlock()
	timer := time.NewTimer(detachTime)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}
