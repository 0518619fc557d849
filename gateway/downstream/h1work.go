package downstream

import (
	"gatehouse.dev/gatehouse/gateway/codec/h1"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h1Work is what an HTTP/1.x session works with while a request is there: buffers, the Exchange, its body and responder. Sessions share
// them; see h1Session.
type h1Work struct {
	session *h1Session // who has it
	limits  h1.Limits
	reader  h1.Reader
	message h1.Message
	x       exchange.Exchange
	body    h1Body
	out     h1Responder
	memory  [h1ReadBuffer]byte // the reader's
}

const (
	// h1ReadBuffer holds nearly every request's head, and with it many a body. What needs more gets it for as long as it needs it.
	h1ReadBuffer = 4 << 10
	// h1WriteBuffer holds a response's head with a body that is small, or the first part of it. It is a TLS record's size.
	h1WriteBuffer = 16 << 10
)

func newH1Work(limits h1.Limits) *h1Work {
	w := &h1Work{limits: limits}
	w.reader.Init(w, w.memory[:], limits)
	w.body.work, w.out.work = w, w
	w.out.buffer = make([]byte, 0, h1WriteBuffer+chunkRoom)
	w.x.Reset()
	return w
}

// Read waits for the client's bytes. It is the reader's source for what does not lie in its buffer.
func (w *h1Work) Read(p []byte) (int, error) { return w.session.client.rw.Read(p) }

// lies reports whether the request whose head was read can be served without waiting for the client.
func (w *h1Work) lies() bool {
	if w.x.Req.Protocol != "" {
		return false
	}
	if w.message.Length == 0 {
		return true
	}
	_, whole := w.reader.Ready()
	return whole
}

// prepare fills in what the request's head says about the exchange.
func (w *h1Work) prepare(b *bind) {
	x := &w.x
	x.Peer.Proto = w.message.Proto
	x.Req.Scheme = "http"
	if b.Kind == KindTLS {
		x.Req.Scheme = "https"
	}
	w.out.begin()
	most := b.options.Limits.MaxBodyBytes
	w.body.begin(most)
	if w.message.Length != 0 {
		x.ReqBody = &w.body
		if w.message.Continue && !w.body.lies {
			// Who carries the request on lets the endpoint decide whether the body is wanted.
			x.Req.Fields.AddID(exchange.Expect, "Expect", "100-continue")
		}
	}
	if x.Req.Method == "CONNECT" {
		// What follows is meant for a tunnel, which there will not be.
		w.message.Close = true
	}
	if most >= 0 && w.message.Length > most && x.Fault == nil {
		x.Fault = exchange.NewFault(exchange.BodyTooLarge, nil)
	}
}

// next makes the work ready for the next request of the same connection.
func (w *h1Work) next() {
	w.reader.Next()
	w.x.Reset()
}

func (s *h1Session) takeWork() {
	w, _ := s.client.bind.spares.Get().(*h1Work)
	w.session, w.x.Peer = s, s.client.peer
	s.work = w
}

// giveWork gives back work that is done.
func (s *h1Session) giveWork() {
	w := s.work
	if w == nil {
		return
	}
	s.work = nil
	w.reader.Next() // an empty line that was read is this connection's
	w.session, w.x.Peer = nil, exchange.Peer{}
	s.client.bind.spares.Put(w)
}

// dropWork gives back work that ended in the middle.
func (s *h1Session) dropWork() {
	w := s.work
	if w == nil {
		return
	}
	w.reader.Release()
	w.reader.Init(w, w.memory[:], w.limits)
	w.x.Reset()
	s.giveWork()
}
