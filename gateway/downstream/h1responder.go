package downstream

import (
	"errors"
	"io"
	"sync"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h1"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// h1Responder writes the responses of one connection. What is small is gathered, so that head and body leave in one write:
//
//	Respond, Write(130 bytes), Finish   -> buffer: head, body                 -> 1 write
//	Respond, Write(32 KiB), Finish      -> buffer: head; head and body in one -> 1 write, nothing copied (over TLS: copied into records)
type h1Responder struct {
	work    *h1Work
	buffer  []byte      // what is held back
	vector  sock.Vector // for what is not copied
	extra   [1]exchange.Field
	message h1.Message // the response's framing
	framing framing
	left    int64 // with framingLength: body bytes still to come
	keep    bool  // another request may follow
	done    bool  // the response is whole
	aborted bool
	tunnel  bool
	failed  error // a write's error, for ever

	// heads serialises response heads: 100 (Continue) is sent by who reads the body first.
	heads sync.Mutex
	asks  bool // the client waits for it; constant during an exchange
	final bool // the final head is made, or 100 is sent; guarded by heads
}

var _ exchange.Responder = (*h1Responder)(nil)

// framing is how the client finds the end of the response.
type framing uint8

const (
	framingNone       framing = iota // no head yet
	framingBodyless                  // nothing follows the head
	framingLength                    // so many bytes
	framingChunked                   // chunks
	framingUntilClose                // the end of the connection
)

const (
	statusSwitchingProtocols = 101
	statusNoContent          = 204
	statusNotModified        = 304
)

// writeAtMost bounds one write of what is not copied: the client has the limit's time for each.
const writeAtMost = 64 << 10

var (
	errEarlyBytes  = errors.New("the client sent bytes before the upgrade was accepted")
	errTooManyBody = errors.New("the response's body is longer than its head says")
	errNoUpgrade   = errors.New("the client asked for no upgrade")
	errNotAccepted = errors.New("a tunnel begins with a response 101")
)

func (o *h1Responder) begin() {
	o.buffer = o.buffer[:0]
	if cap(o.buffer) > 4*h1WriteBuffer { // a giant head needed it
		o.buffer = make([]byte, 0, h1WriteBuffer+chunkRoom)
	}
	o.framing, o.left, o.keep, o.done, o.aborted, o.tunnel, o.failed = framingNone, 0, false, false, false, false, nil
	o.asks, o.final = o.work.message.Continue, false
}

// end is called after the exchange, and reports whether the response is whole and was sent.
func (o *h1Responder) end() bool {
	if o.aborted || o.failed != nil || o.framing == framingNone {
		return false
	}
	if !o.done {
		// A handler may leave out Finish where nothing can follow.
		if o.framing == framingChunked || o.framing == framingUntilClose || o.left > 0 {
			return false
		}
		o.done = true
	}
	return o.Flush() == nil
}

// proceed asks the client for its body, unless the final head is made already or the body is there.
func (o *h1Responder) proceed() {
	o.heads.Lock()
	defer o.heads.Unlock()
	if o.final {
		return
	}
	o.final = true
	if n, _ := o.work.reader.Ready(); n == 0 {
		_ = o.send(continueResponse) // the read that follows will tell
	}
}

// Inform sends an interim response, if the client's protocol has those.
func (o *h1Responder) Inform(status int, fields exchange.Fields) error {
	if o.work.message.Proto == exchange.HTTP10 {
		return nil
	}
	o.heads.Lock()
	defer o.heads.Unlock()
	m := h1.Message{Proto: exchange.HTTP11, Length: h1.Unsaid}
	o.buffer = h1.AppendResponse(o.buffer, &exchange.Response{Status: status, Fields: fields}, &m, "", "", nil)
	return o.Flush()
}

// Respond makes the final head. It leaves with the body's first bytes, or at Flush or Finish.
func (o *h1Responder) Respond(resp *exchange.Response, length int64) error {
	if resp.Status == statusSwitchingProtocols {
		return o.switchProtocols(resp)
	}
	w := o.work
	if o.asks {
		o.heads.Lock()
		defer o.heads.Unlock()
		o.final = true
	}
	o.frame(resp.Status, length)
	o.keep = !o.message.Close
	bind := w.session.client.bind
	extra := exchange.Fields(nil)
	if advertised := bind.altSvc.Load(); advertised != nil {
		resp.Fields.DelID(exchange.AltSvc)
		o.extra[0] = exchange.Field{Name: "Alt-Svc", Value: *advertised, ID: exchange.AltSvc}
		extra = o.extra[:]
	}
	date := ""
	if !resp.Fields.Has(exchange.Date) {
		date = bind.clock.Date(time.Now())
	}
	o.buffer = h1.AppendResponse(o.buffer, resp, &o.message, "", date, extra)
	return nil
}

// frame decides how the client finds the end of the response (RFC 9112 6.3), and whether the connection persists after it.
func (o *h1Responder) frame(status int, length int64) {
	w := o.work
	ends := w.message.Close || w.session.closing.Load() || !w.body.ends() || o.earlyBytes() || w.x.Peer.TLS.TurnedAway()
	o.message = h1.Message{Proto: w.message.Proto, Length: length, Close: ends}
	o.left = 0
	switch {
	case status < 200 || status == statusNoContent:
		o.framing, o.message.Length = framingBodyless, h1.Unsaid
	case status == statusNotModified || w.x.Req.Method == "HEAD":
		o.framing = framingBodyless
		if length < 0 {
			o.message.Length = h1.Unsaid
		}
	case length >= 0:
		o.framing, o.left = framingLength, length
	case w.message.Proto == exchange.HTTP10:
		o.framing, o.message.Length, o.message.Close = framingUntilClose, h1.UntilClose, true
	default:
		o.framing, o.message.Length = framingChunked, h1.Chunked
	}
}

// earlyBytes reports whether the client sent anything behind a request for a tunnel before that was answered. It was meant for the tunnel, and
// must not be taken for a request where there is none.
func (o *h1Responder) earlyBytes() bool {
	w := o.work
	return w.x.Req.Protocol != "" && (len(w.reader.Buffered()) > 0 || w.session.hasBytes())
}

// Write sends body bytes. What fits is held back.
func (o *h1Responder) Write(p []byte) (int, error) {
	if o.failed != nil {
		return 0, o.failed
	}
	switch o.framing {
	case framingNone, framingBodyless:
		return len(p), nil
	case framingLength:
		if int64(len(p)) > o.left {
			o.aborted = true
			return 0, errTooManyBody
		}
		o.left -= int64(len(p))
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(o.buffer)+len(p)+chunkRoom <= h1WriteBuffer {
		if o.framing == framingChunked {
			o.buffer = h1.AppendChunk(o.buffer, p)
		} else {
			o.buffer = append(o.buffer, p...)
		}
		return len(p), nil
	}
	return o.writeBig(p)
}

// chunkRoom is what a chunk takes besides its data: the size in hex and two line ends.
const chunkRoom = 16 + 2 + 2

var (
	crlf             = []byte("\r\n")
	continueResponse = []byte(h1.ContinueResponse)
)

// writeBig sends what does not fit the buffer together with what is in it.
func (o *h1Responder) writeBig(p []byte) (int, error) {
	tail := []byte(nil)
	if o.framing == framingChunked {
		o.buffer = h1.AppendChunkHead(o.buffer, len(p))
		tail = crlf
	}
	if o.work.session.client.secure != nil {
		return o.writeRecords(p, tail)
	}
	s := o.work.session
	for rest := p; len(rest) > 0; {
		piece := rest[:min(len(rest), writeAtMost)]
		rest = rest[len(piece):]
		pieces := [3][]byte{o.buffer, piece, nil}
		if len(rest) == 0 {
			pieces[2] = tail
		}
		s.writing.next(phaseWrite)
		_, o.failed = s.client.sock.WriteVector(&o.vector, pieces)
		s.writing.next(phaseNone)
		o.buffer = o.buffer[:0]
		if o.failed != nil {
			return len(p) - len(rest) - len(piece), o.failed
		}
	}
	return len(p), nil
}

// writeRecords sends full TLS records and holds the rest back: the buffer is filled up, and what lies behind it is not copied. The records
// leave in one write.
func (o *h1Responder) writeRecords(p, tail []byte) (int, error) {
	s := o.work.session
	s.client.secure.wire.hold()
	for rest := p; len(rest) > 0; {
		if len(o.buffer) == 0 && len(rest) >= h1WriteBuffer {
			full := min(len(rest), writeAtMost) / h1WriteBuffer * h1WriteBuffer
			_ = o.send(rest[:full])
			rest = rest[full:]
			continue
		}
		n := min(len(rest), max(h1WriteBuffer-len(o.buffer), 0))
		o.buffer = append(o.buffer, rest[:n]...)
		rest = rest[n:]
		if len(o.buffer) >= h1WriteBuffer {
			_ = o.Flush()
		}
	}
	o.buffer = append(o.buffer, tail...)
	s.writing.next(phaseWrite)
	err := s.client.secure.wire.release()
	s.writing.next(phaseNone)
	if o.failed == nil {
		o.failed = err
	}
	if o.failed != nil {
		return 0, o.failed
	}
	return len(p), nil
}

// send writes at once.
func (o *h1Responder) send(p []byte) error {
	if o.failed != nil {
		return o.failed
	}
	s := o.work.session
	s.writing.next(phaseWrite)
	_, o.failed = s.client.rw.Write(p)
	s.writing.next(phaseNone)
	return o.failed
}

// Flush sends what is held back.
func (o *h1Responder) Flush() error {
	if len(o.buffer) == 0 {
		return o.failed
	}
	err := o.send(o.buffer)
	o.buffer = o.buffer[:0]
	return err
}

// Finish ends the response. Trailers need chunks to stand behind.
func (o *h1Responder) Finish(trailers exchange.Fields) error {
	switch o.framing {
	case framingNone:
		return nil
	case framingLength:
		if o.left > 0 {
			o.aborted = true
			return io.ErrUnexpectedEOF
		}
	case framingChunked:
		o.buffer = h1.AppendLastChunk(o.buffer, trailers)
	}
	o.done = true
	return o.Flush()
}

// Abort ends the connection before the response is whole, which tells the client.
func (o *h1Responder) Abort() { o.aborted = o.aborted || !o.done }

// switchProtocols accepts an upgrade.
func (o *h1Responder) switchProtocols(resp *exchange.Response) error {
	w := o.work
	s := w.session
	if w.x.Req.Protocol == "" {
		return errNoUpgrade
	}
	if o.earlyBytes() {
		// They can only be meant for a server that does not look: a smuggled request.
		o.message = h1.Message{Proto: exchange.HTTP11, Close: true}
		o.framing, o.done = framingLength, true
		o.buffer = h1.AppendResponse(o.buffer, &exchange.Response{Status: 400}, &o.message, "", "", nil)
		return errors.Join(errEarlyBytes, o.Flush())
	}
	if !s.becomeTunnel() {
		return errHungUp
	}
	o.tunnel, o.framing, o.done = true, framingBodyless, true
	m := h1.Message{Proto: exchange.HTTP11, Length: h1.Unsaid}
	o.buffer = h1.AppendResponse(o.buffer, resp, &m, w.x.Req.Protocol, "", nil)
	return o.Flush()
}

// Tunnel returns the raw stream.
func (o *h1Responder) Tunnel() (exchange.Stream, error) {
	if !o.tunnel {
		return nil, errNotAccepted
	}
	return &h1Tunnel{session: o.work.session}, nil
}
