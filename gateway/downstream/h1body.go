package downstream

import (
	"errors"
	"io"
	"os"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h1Body is a request's body with its limits. One goroutine reads it, which need not be the session's; the session, the ticker and Close
// look at it from others.
type h1Body struct {
	work *h1Work
	left int64 // bytes still allowed; negative for no limit
	lies bool  // it lies in the buffer whole

	// All guarded by the session's mu.
	whole   bool  // every byte was read, or there is none
	reading bool  // a read is under way
	closed  bool  // nobody wants the rest
	late    bool  // the client stayed silent for too long
	ended   bool  // a read was ended by a deadline, which the socket still has
	err     error // what reading ended with, for ever
	got     int64 // bytes read
	pace    pace
}

var _ exchange.Ready = (*h1Body)(nil)

func (b *h1Body) begin(most int64) {
	*b = h1Body{work: b.work, left: most, whole: b.work.message.Length == 0}
	if !b.whole {
		_, b.lies = b.work.reader.Ready()
	}
}

// Read returns a *Fault for everything but the end. It asks a client that waits for it to send the body.
func (b *h1Body) Read(p []byte) (int, error) {
	w := b.work
	s := w.session
	s.mu.Lock()
	if b.err == nil && b.closed {
		b.err = exchange.NewFault(exchange.ClientAborted, errBodyClosed)
	}
	if err := b.err; err != nil {
		s.mu.Unlock()
		return 0, err
	}
	b.reading = true
	s.reading.next(phaseBody)
	s.mu.Unlock()

	if w.out.asks {
		w.out.proceed()
	}
	n, err := w.reader.Read(p)

	s.mu.Lock()
	defer s.mu.Unlock()
	b.reading = false
	b.got += int64(n)
	s.reading.next(phaseNone)
	b.whole = b.whole || err == io.EOF || w.reader.Whole()
	if b.left >= 0 {
		if int64(n) > b.left {
			n = int(b.left)
			err = exchange.NewFault(exchange.BodyTooLarge, nil)
		}
		b.left -= int64(n)
	}
	if err != nil {
		b.err = b.fault(err)
	}
	return n, b.err
}

var errBodyClosed = errors.New("the rest of the request's body is not wanted")

// fault names an error of reading.
func (b *h1Body) fault(err error) error {
	switch {
	case err == io.EOF:
		return err
	case b.closed:
		return exchange.NewFault(exchange.ClientAborted, errBodyClosed)
	case b.late && errors.Is(err, os.ErrDeadlineExceeded):
		return exchange.NewFault(exchange.ClientTimeout, err)
	}
	return exchange.AsFault(err, exchange.ClientAborted)
}

// longAgo is a deadline that ends what waits.
func longAgo() time.Time { return time.Unix(1, 0) }

// expire ends the read under way, whose client is silent. It is called with the session's mu held.
func (b *h1Body) expire() {
	if b.reading {
		b.late, b.ended = true, true
		_ = b.work.session.client.sock.SetReadDeadline(longAgo())
	}
}

// trickles reports whether a body that is waited for comes too slowly. It is called with the session's mu held.
func (b *h1Body) trickles(elapsed, limit time.Duration) bool {
	return b.reading && b.work.message.Length >= 0 && b.pace.trickles(b.got, elapsed, limit)
}

// Close gives up what is left and ends a read under way. The connection ends after the response unless the body was read to its end.
// It may be called from any goroutine.
func (b *h1Body) Close() error {
	s := b.work.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.whole || b.closed {
		return nil
	}
	b.closed = true
	if b.reading {
		b.ended = true
		_ = s.client.sock.SetReadDeadline(longAgo())
	}
	return nil
}

// ends reports whether another request can follow the body, as far as is known now.
func (b *h1Body) ends() bool {
	if b.work.message.Length == 0 {
		return true
	}
	s := b.work.session
	s.mu.Lock()
	defer s.mu.Unlock()
	return b.whole || b.lies && b.err == nil
}

// settle is called after the exchange. It reports whether another request can be read, after reading what of the body lies in the buffer.
func (b *h1Body) settle() bool {
	switch {
	case b.ended:
		return false
	case b.whole:
		return true
	case !b.lies:
		return false
	}
	var scratch [512]byte
	for {
		if _, err := b.work.reader.Read(scratch[:]); err != nil {
			return err == io.EOF
		}
	}
}

// Length is the body's length, -1 when it is chunked.
func (b *h1Body) Length() int64 { return max(b.work.message.Length, -1) }

// Ready implements exchange.Ready.
func (b *h1Body) Ready() (int, bool) { return b.work.reader.Ready() }

// Trailers returns the trailers, after Read returned io.EOF.
func (b *h1Body) Trailers() exchange.Fields { return b.work.reader.Trailers() }
