package upstream

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/buffer"
	"gatehouse.dev/gatehouse/gateway/codec/h1"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h1Send is how the body of a request gets out on a connection. What of it lies in memory goes with the head, in one write. For the
// rest a goroutine reads the body and writes, piece by piece, while RoundTrip's reads the answer, because an endpoint may answer before
// it has everything. It ends when the body does, when a write fails, or with the attempt.
type h1Send struct {
	left  int64 // what is to be sent of a body of known length; -1 for chunks
	whole bool  // all was sent

	answered atomic.Bool // the final head is there

	running bool          // a goroutine sends; for RoundTrip's and End's goroutine
	waits   bool          // the body waits for 100 (Continue)
	run     func()        // the goroutine's function, made once
	done    chan struct{} // gets one when the goroutine ends
	word    chan bool     // gets whether to send the body that waits
}

const (
	// mostChunk bounds a chunk with what is around it, so that its length has four digits.
	mostChunk = 64 << 10
	// chunkLead is room for the line before a chunk of less than 64 KiB.
	chunkLead = len("ffff\r\n")
	// chunkRoom is room for what is around it, without trailers.
	chunkRoom = chunkLead + len("\r\n"+"0\r\n\r\n")
	// leastInline is the least room that is worth an extra read of the body.
	leastInline = 64
)

func (s *h1Send) begin() {
	s.left, s.whole, s.running, s.waits = 0, false, false, false
	s.answered.Store(false)
}

// compose appends the head and what of the body lies in memory.
func (c *conn) compose(dst []byte, a *Attempt) ([]byte, error) {
	s, head := &c.send, a.Request
	if head.Protocol != "" {
		s.whole = true
		return c.composeUpgrade(dst, head), nil
	}
	s.left = a.Body.Length()
	s.whole = s.left == 0
	s.waits = !s.whole && strings.EqualFold(head.Fields.Get(exchange.Expect), "100-continue")
	c.request = h1.Message{Proto: exchange.HTTP11, Length: s.left, Continue: s.waits}
	out := c.appendHead(dst, head)
	if s.whole || s.waits {
		return out, nil
	}
	return c.inline(out, a)
}

// appendHead appends the head. An HTTP/1.0 client may have named no host.
func (c *conn) appendHead(dst []byte, head *exchange.Head) []byte {
	if head.Authority == "" {
		named := *head
		named.Authority = c.pool.addr.String()
		head = &named
	}
	return h1.AppendRequest(dst, head, &c.request, c.upgrade)
}

// inline appends what of the body can be had without waiting, as far as there is room.
func (c *conn) inline(out []byte, a *Attempt) ([]byte, error) {
	body, ok := a.Body.(exchange.Ready)
	if !ok {
		return out, nil
	}
	for {
		n, whole := body.Ready()
		room := cap(out) - len(out) - chunkRoom
		if room < leastInline || n == 0 && !whole {
			return out, nil
		}
		var err error
		out, err = c.piece(out, a, min(room, max(n, 1)))
		if err == io.EOF {
			c.send.whole = true
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// piece appends the next piece of the body, of at most room bytes read, as it stands on the wire. io.EOF comes with the last one; any
// other error is errDetached or in the attempt's hold.
func (c *conn) piece(out []byte, a *Attempt, room int) ([]byte, error) {
	s := &c.send
	if s.left < 0 {
		return chunk(out, a, room)
	}
	at := len(out)
	n, err := a.readBody(out[at : at+int(min(int64(room), s.left))])
	s.left -= int64(n)
	switch {
	case err != nil && err != io.EOF:
		return nil, err
	case s.left == 0:
		return out[:at+n], io.EOF
	case err == io.EOF:
		err = fmt.Errorf("the request's body ended %d bytes before its length", s.left)
		a.hold.failed.Store(exchange.NewFault(exchange.BadRequest, err))
		return nil, err
	default:
		return out[:at+n], nil
	}
}

// chunk appends a piece as a chunk, and with the end the last chunk. The data is read behind where the chunk's first line can end at
// the latest, and moved up to where it does.
func chunk(out []byte, a *Attempt, room int) ([]byte, error) {
	at := len(out) + chunkLead
	n, err := a.readBody(out[at : at+room])
	if err != nil && err != io.EOF {
		return nil, err
	}
	if n > 0 {
		data := out[at : at+n]
		out = append(append(h1.AppendChunkHead(out, n), data...), "\r\n"...)
	}
	if err == io.EOF {
		out = h1.AppendLastChunk(out, a.hold.trailers)
	}
	return out, err
}

// start has a goroutine send the rest.
func (s *h1Send) start(c *conn) {
	if s.run == nil {
		s.done, s.word = make(chan struct{}, 1), make(chan bool, 1)
		s.run = func() {
			s.whole = c.sendRest(c.attempt)
			s.done <- struct{}{}
		}
	}
	select {
	case <-s.word: // of an attempt that did not wait for it in the end
	default:
	}
	s.running = true
	go s.run()
}

func (c *conn) sendRest(a *Attempt) (whole bool) {
	if c.send.waits && !c.send.told() {
		return false
	}
	var memory buffer.Piece
	defer memory.Release()
	for last := 0; ; {
		room := memory.Next(last)
		if c.send.left < 0 {
			room = room[:min(len(room), mostChunk)-chunkRoom]
		}
		out, err := c.piece(room[:0], a, len(room))
		last = len(out)
		if err != nil && err != io.EOF {
			if !errors.Is(err, errDetached) {
				c.cutShort()
			}
			return false
		}
		if len(out) > 0 {
			if _, failed := c.rw.Write(out); failed != nil {
				return false // the endpoint may have answered nonetheless: reading tells
			}
		}
		if err == io.EOF {
			return true
		}
	}
}

// cutShort ends a request whose body its client did not finish. There is no use in waiting for the answer, unless it is on its way
// already: a client may well stop sending because it got a refusal. The endpoint, which may wait for more, is told then that nothing
// follows.
func (c *conn) cutShort() {
	if !c.send.answered.Load() {
		c.line.Interrupt()
	} else if half, ok := c.rw.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// told waits for the endpoint's word, or ContinueTimeout: not every endpoint knows 100 (Continue).
func (s *h1Send) told() bool {
	timer := time.NewTimer(ContinueTimeout)
	defer timer.Stop()
	select {
	case send := <-s.word:
		return send
	case <-timer.C:
		return true
	}
}

// proceed tells a body that waits whether to go.
func (s *h1Send) proceed(send bool) {
	if !s.running || !s.waits {
		return
	}
	select {
	case s.word <- send:
	default: // it had its word
	}
}

// settle waits for the goroutine that sends, if there is one, and reports whether all was sent. Without whole, or after settleTime, it
// closes the line first.
func (s *h1Send) settle(l *line, whole bool) bool {
	if !s.running {
		return s.whole
	}
	s.running = false
	if whole {
		select {
		case <-s.done:
			return s.whole
		default:
		}
		timer := time.NewTimer(settleTime)
		defer timer.Stop()
		select {
		case <-s.done:
			return s.whole
		case <-timer.C:
		}
	}
	_ = l.Close()
	<-s.done
	return false
}
