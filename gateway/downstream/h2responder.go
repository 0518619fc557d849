package downstream

import (
	"errors"
	"fmt"
	"io"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// This file is the response's way: h2Stream as an exchange.Responder. Heads and bodies go to the session's Output at once and are written at
// the latest by Flush or Finish. END_STREAM goes onto the last frame if that is not being written yet, so that a small response is one
// HEADERS frame and one DATA frame in one write.

const (
	// h2Chunk is how much of a body is appended at once at most, so that streams take turns.
	h2Chunk = 32 << 10
)

const (
	statusContinue = 100
	statusOK       = 200
)

var (
	errH2Malformed = errors.New("a malformed request is answered by a reset of its stream")
	errH2NoHead    = errors.New("the response has no head")
)

// Inform sends an interim response.
func (st *h2Stream) Inform(status int, fields exchange.Fields) error {
	if err := st.appendHead(status, fields, -1, false); err != nil {
		return err
	}
	return st.Flush()
}

// proceed sends 100 (Continue), unless the final head is out already.
func (st *h2Stream) proceed() {
	s := st.session
	buf := s.out.Begin()
	if !st.responded {
		block, err := h2.AppendResponse(s.openHeaders(buf), statusContinue, nil, -1)
		buf = st.sealHeaders(buf, block, false, err)
	}
	s.out.End(buf)
	_ = s.out.Flush()
}

// openHeaders begins a header block, between Begin or BeginStream and End.
func (s *h2Session) openHeaders(buf []byte) []byte {
	buf = h2.OpenHeaders(buf)
	if s.table == tableDue {
		buf = append(buf, 0x20) // its size is 0 (RFC 7541 6.3)
	}
	return buf
}

// sealHeaders completes what openHeaders began when the buffer was buf, or drops it after an error. It returns the buffer.
func (st *h2Stream) sealHeaders(buf, block []byte, end bool, err error) []byte {
	if err != nil {
		return buf
	}
	s := st.session
	if s.table == tableDue {
		s.table = tableTold
	}
	return h2.SealHeaders(block, len(buf), st.id, end, int(s.maxFrame.Load()))
}

// Respond sends the final head. A protocol switch is a 200 here (RFC 8441 5). A *Fault says that the head has a field that cannot be sent, and
// that nothing was; any other error, that the client is gone.
func (st *h2Stream) Respond(resp *exchange.Response, length int64) error {
	if st.session.client.peer.TLS.TurnedAway() {
		st.session.drain()
	}
	status := resp.Status
	switch {
	case st.refuse != 0:
		return errH2Malformed
	case status == statusSwitchingProtocols:
		status, length = statusOK, -1
	case status < statusOK || status == statusNoContent:
		length = -1 // RFC 9110 8.6
	}
	if st.session.client.bind.altSvc.Load() != nil && resp.Fields.Has(exchange.AltSvc) {
		resp.Fields.DelID(exchange.AltSvc) // the endpoint's is not ours
	}
	if err := st.appendHead(status, resp.Fields, length, true); err != nil {
		return err
	}
	st.promised = length
	if st.isHead || status == statusNoContent || status == statusNotModified { // the length is of what is not sent (RFC 9110 6.4.1)
		st.promised, st.mute = 0, true
	}
	return nil
}

// appendHead appends HEADERS, the final ones or an interim response's.
func (st *h2Stream) appendHead(status int, fields exchange.Fields, length int64, final bool) error {
	s := st.session
	buf, err := s.out.BeginStream(&st.turn)
	if err != nil {
		return err
	}
	at := len(buf)
	block, err := h2.AppendResponse(s.openHeaders(buf), status, fields, length)
	if err == nil && final {
		block, err = st.appendOwn(block, fields.Has(exchange.Date))
	}
	buf = st.sealHeaders(buf, block, false, err)
	if final && err == nil {
		st.responded = true
		s.out.Sent(&st.turn, at)
	}
	s.out.End(buf)
	if err != nil {
		return exchange.NewFault(exchange.UpstreamProtocol, fmt.Errorf("the response cannot be sent over http/2: %w", err))
	}
	return nil
}

// appendOwn appends the fields that a response gets here.
func (st *h2Stream) appendOwn(block []byte, dated bool) (_ []byte, err error) {
	bind := st.session.client.bind
	if advertised := bind.altSvc.Load(); advertised != nil {
		block, err = h2.AppendField(block, &exchange.Field{Name: "alt-svc", Value: *advertised, ID: exchange.AltSvc})
	}
	if err == nil && !dated {
		block, err = h2.AppendField(block, &exchange.Field{Name: "date", Value: bind.clock.Date(time.Now()), ID: exchange.Date})
	}
	return block, err
}

// Write sends body bytes.
func (st *h2Stream) Write(p []byte) (n int, err error) {
	if !st.responded {
		return 0, errH2NoHead
	}
	if st.mute {
		return len(p), nil
	}
	if st.promised >= 0 && st.sent+int64(len(p)) > st.promised {
		st.aborted = true
		return 0, errTooManyBody
	}
	for n < len(p) {
		most, err := st.credit(min(len(p)-n, h2Chunk))
		if err != nil {
			return n, err
		}
		if err := st.appendData(p[n : n+most]); err != nil {
			return n, err
		}
		n += most
		st.sent += int64(most)
	}
	st.unstall()
	return n, nil
}

// credit takes up to n bytes from the windows, and waits for them if it must.
func (st *h2Stream) credit(n int) (int, error) {
	if st.window.TryTake(n) {
		return n, nil
	}
	// The client opens its window for what it has seen.
	if err := st.session.out.Flush(); err != nil {
		return 0, err
	}
	if st.stall.kind() == 0 {
		st.progress = 0
		st.stall.next(h2Waiting)
	}
	got, err := st.window.Take(n)
	if st.progress += got; st.progress >= leastProgress || err != nil {
		st.unstall()
	}
	return got, err
}

func (st *h2Stream) unstall() {
	if st.stall.kind() != 0 {
		st.stall.next(0)
	}
}

// appendData appends DATA frames that the windows have room for.
func (st *h2Stream) appendData(p []byte) error {
	s := st.session
	buf, err := s.out.BeginStream(&st.turn)
	if err != nil {
		_ = s.credit.Add(uint32(len(p))) // for the other streams: the client will not
		return err
	}
	most := int(s.maxFrame.Load())
	var at int // where the last frame begins
	for {
		at = len(buf)
		n := min(len(p), most)
		buf = h2.AppendData(buf, st.id, p[:n], false)
		s.budgets.sent.Add(1)
		if p = p[n:]; len(p) == 0 {
			break
		}
	}
	s.out.Sent(&st.turn, at)
	s.out.End(buf)
	return nil
}

// Flush sends what was held back.
func (st *h2Stream) Flush() error { return st.session.out.Flush() }

// Finish ends the response.
func (st *h2Stream) Finish(trailers exchange.Fields) error {
	if !st.responded {
		return errH2NoHead
	}
	if st.short() {
		return fmt.Errorf("the response has %d bytes, its content-length says %d", st.sent, st.promised)
	}
	s := st.session
	buf, err := s.out.BeginStream(&st.turn)
	if err != nil {
		return err
	}
	if len(trailers) == 0 {
		buf = s.out.AppendEnd(buf, &st.turn)
	} else {
		var block []byte
		block, err = h2.AppendTrailers(s.openHeaders(buf), trailers)
		buf = st.sealHeaders(buf, block, true, err)
	}
	st.ended = err == nil
	s.out.End(buf)
	if err != nil {
		return exchange.NewFault(exchange.UpstreamProtocol, fmt.Errorf("the trailers cannot be sent over http/2: %w", err))
	}
	return s.out.Flush()
}

// Abort makes the client notice that the response is not whole: its stream is reset when the exchange has ended.
func (st *h2Stream) Abort() { st.aborted = true }

// Tunnel makes the stream a raw one.
func (st *h2Stream) Tunnel() (exchange.Stream, error) {
	if err := st.Flush(); err != nil {
		return nil, err
	}
	st.tunnel = true
	return (*h2Tunnel)(st), nil
}

// h2Tunnel is the stream after an accepted CONNECT (RFC 8441). One goroutine may read while another writes.
type h2Tunnel h2Stream

// Read returns the client's bytes; a tunnel may be silent for as long as it likes.
func (t *h2Tunnel) Read(p []byte) (int, error) { return (*h2Stream)(t).read(p) }

// Write sends bytes at once.
func (t *h2Tunnel) Write(p []byte) (int, error) {
	st := (*h2Stream)(t)
	if t.ended {
		return 0, io.ErrClosedPipe
	}
	n, err := st.Write(p)
	if err == nil {
		err = st.Flush()
	}
	return n, err
}

// CloseWrite ends our side of the stream.
func (t *h2Tunnel) CloseWrite() error {
	if t.ended {
		return nil
	}
	return (*h2Stream)(t).Finish(nil)
}

// Close ends both sides. What is not sent yet is dropped with the stream when the exchange has ended.
func (t *h2Tunnel) Close() error {
	st := (*h2Stream)(t)
	fault := exchange.NewFault(exchange.ClientAborted, io.ErrClosedPipe)
	if !st.inbox.Whole() {
		st.inbox.Cut(fault)
	}
	st.window.Fail(fault)
	st.session.out.Cancel(&st.turn, fault)
	return nil
}
