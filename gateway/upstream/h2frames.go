package upstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// got does as a frame says. An error ends the connection.
func (c *h2Conn) got(f *h2.Frame) error {
	switch f.Type {
	case h2.TypeData:
		return c.gotData(f)
	case h2.TypeHeaders:
		return c.gotHeaders(f)
	case h2.TypeReset:
		return c.gotReset(f)
	case h2.TypeSettings:
		return c.gotSettings(f)
	case h2.TypePing:
		return c.gotPing(f)
	case h2.TypeGoAway:
		return c.gotGoAway(f)
	case h2.TypeWindowUpdate:
		return c.gotWindow(f)
	default: // PRIORITY, and what an extension may have added (RFC 9113 5.5)
		return c.spend("frames of no use")
	}
}

// spend counts a frame that cost something and brought nothing. Each frame that is sent and each that brings something gives back: an
// endpoint that answers much may also ask much.
func (c *h2Conn) spend(what string) error {
	if c.budget.Spend(1) {
		return nil
	}
	c.budget.Give(1) // what could not be spent
	now := c.mux.dialer.upkeep.ticks.Load()
	c.budget.Refill(time.Duration(now-c.refilled) * tickPeriod)
	c.refilled = now
	c.budget.Give(int(min(c.worth.Swap(0), h2Acts)))
	if c.budget.Spend(1) {
		return nil
	}
	return &h2.ConnError{Code: h2.EnhanceYourCalm, Reason: "the endpoint floods the connection with " + what}
}

// find returns the open stream of an identifier. It returns nil for one that is over, whose frames may still be under way, and an error for
// one that never was.
func (c *h2Conn) find(f *h2.Frame) (*h2Stream, error) {
	c.mu.Lock()
	s, next := c.streams.get(f.Stream), c.next
	c.mu.Unlock()
	if s == nil && (f.Stream&1 == 0 || f.Stream >= next) {
		return nil, &h2.ConnError{Code: h2.ProtocolError, Reason: fmt.Sprintf("the endpoint sent a frame of stream %d, which is not open", f.Stream)}
	}
	return s, nil
}

// lock locks the stream and reports whether it still is the one of this identifier; it is not locked otherwise.
func (s *h2Stream) lock(c *h2Conn, id uint32) bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	if s.conn == c && s.id.Load() == id {
		return true
	}
	s.mu.Unlock()
	return false
}

// refuse ends a stream, which is locked, for an endpoint's breach of the protocol, and unlocks it.
func (c *h2Conn) refuse(s *h2Stream, id uint32, code h2.Code, f *exchange.Fault) {
	s.fail(f)
	send := !s.reset
	s.reset = true
	s.mu.Unlock()
	if send {
		c.sendReset(id, code)
	}
}

// lost ends a stream because its connection ended.
func (s *h2Stream) lost(c *h2Conn, id uint32, err error) {
	if !s.lock(c, id) {
		return
	}
	defer s.mu.Unlock()
	f := faultOfConn(err)
	// Nothing of the body went out, so nothing was processed.
	f.Retryable = f.Retryable || !s.headed && s.attempt.hold.read.Load() == 0 && s.attempt.Body != nil && s.attempt.Body.Length() != 0
	s.reset = true
	_, dead := errors.AsType[h2Dead](err)
	s.stale = f.Kind == exchange.UpstreamReset && !dead && id > 1 && s.left == MaxResponseHeaderBytes
	s.fail(f)
}

func (c *h2Conn) gotHeaders(f *h2.Frame) error {
	s, err := c.find(f)
	if err != nil {
		return err
	}
	if !s.lock(c, f.Stream) {
		if err := c.decoder.Skip(f.Payload); err != nil {
			return err
		}
		return c.spend("heads of streams that are over")
	}
	switch {
	case s.ended:
		s.mu.Unlock()
		return &h2.ConnError{Code: h2.StreamClosed, Reason: "the endpoint sent more after the end of its stream"}
	case f.Code != 0:
		return c.refuseHead(s, f, f.Code, malformed("malformed frame: %s", f.Reason))
	}
	c.budget.Give(1)
	if s.headed {
		return c.gotTrailers(s, f)
	}
	length, err := c.decoder.Response(f.Payload, &s.arena, &s.scratch, section.Limits{Bytes: s.left, Fields: maxResponseFields})
	if err != nil {
		return c.badHead(s, f, err)
	}
	s.left -= c.decoder.Size()
	switch {
	case s.scratch.Status >= 200:
		s.scratch, s.response = s.response, s.scratch
		s.gotFinal(f, length)
	case f.EndStream():
		c.refuse(s, f.Stream, h2.ProtocolError, malformed("the endpoint ended the stream with an interim response"))
		return nil
	case s.scratch.Status == 100:
		s.proceed = true
	case s.attempt.Inform != nil:
		s.interim = append(s.interim, s.scratch)
		s.scratch.Fields = nil
	}
	s.wake.Broadcast()
	s.mu.Unlock()
	return nil
}

// badHead ends the stream, or the connection, for a head or trailers that cannot be used.
func (c *h2Conn) badHead(s *h2Stream, f *h2.Frame, err error) error {
	var fault *exchange.Fault
	switch broken, ok := errors.AsType[*h2.ConnError](err); {
	case ok:
		s.mu.Unlock()
		return broken
	case err == section.ErrTooLarge:
		fault = malformed("the response headers exceeded %d bytes or %d fields", MaxResponseHeaderBytes, maxResponseFields)
	default:
		fault = malformed("malformed response: %w", err)
	}
	c.refuse(s, f.Stream, h2.ProtocolError, fault)
	return nil
}

// refuseHead ends the stream for HEADERS that it does not take, whose block must be decoded all the same.
func (c *h2Conn) refuseHead(s *h2Stream, f *h2.Frame, code h2.Code, fault *exchange.Fault) error {
	c.refuse(s, f.Stream, code, fault)
	return c.decoder.Skip(f.Payload)
}

// gotFinal takes the final head.
func (s *h2Stream) gotFinal(f *h2.Frame, length int64) {
	s.headed = true
	s.length = length
	switch {
	case s.connect && s.response.Status/100 == 2:
		s.length = -1 // content-length means nothing here (RFC 9110 9.3.6)
	case s.response.Status == 204:
		s.length = 0
	case length < 0 && f.EndStream() && !s.head:
		s.length = 0
	}
	if f.EndStream() {
		s.gotEnd()
	}
}

// bodiless reports whether the answer has no body, whatever its content-length says (RFC 9110 6.4.1).
func (s *h2Stream) bodiless() bool {
	return s.head || s.response.Status == 204 || s.response.Status == 304
}

// gotEnd takes the end of the endpoint's side.
func (s *h2Stream) gotEnd() {
	s.ended = true
	s.inbox.End()
}

// short reports whether the body ends before its length.
func (s *h2Stream) short() bool { return s.length >= 0 && s.body != s.length && !s.bodiless() }

func (c *h2Conn) gotTrailers(s *h2Stream, f *h2.Frame) error {
	if !f.EndStream() {
		return c.refuseHead(s, f, h2.ProtocolError, malformed("the endpoint sent a second response"))
	}
	err := c.decoder.Trailers(f.Payload, &s.arena, &s.trailers, section.Limits{Bytes: s.left, Fields: maxResponseFields})
	if err != nil {
		s.trailers = s.trailers[:0]
		return c.badHead(s, f, err)
	}
	if s.short() {
		c.refuse(s, f.Stream, h2.ProtocolError, malformed("bad content-length: the body has %d bytes, not %d", s.body, s.length))
		return nil
	}
	s.gotEnd()
	s.mu.Unlock()
	return nil
}

func (c *h2Conn) gotData(f *h2.Frame) error {
	if !c.window.Got(f.Size) {
		return &h2.ConnError{Code: h2.FlowControlError, Reason: "the endpoint sent more than the connection's window allows"}
	}
	now := int64(0)
	if c.window.Due(f.Size) {
		now = time.Now().UnixNano()
	}
	if give := c.window.Done(f.Size, now); give > 0 {
		c.out.End(h2.AppendWindowUpdate(c.out.Begin(), 0, give))
		c.flush()
	}
	s, err := c.find(f)
	if err != nil {
		return err
	}
	if len(f.Payload) > 0 {
		c.budget.Give(1)
	} else if f.Frames > 0 && !f.EndStream() && !f.More {
		if err := c.spend("empty DATA"); err != nil {
			return err
		}
	}
	if !s.lock(c, f.Stream) {
		return nil
	}
	return c.bodyOf(s, f)
}

// bodyOf takes bytes of the answer's body. The stream is locked; bodyOf unlocks it.
func (c *h2Conn) bodyOf(s *h2Stream, f *h2.Frame) error {
	s.body += int64(len(f.Payload))
	switch {
	case s.ended:
		s.mu.Unlock()
		return &h2.ConnError{Code: h2.StreamClosed, Reason: "the endpoint sent more after the end of its stream"}
	case !s.headed:
		c.refuse(s, f.Stream, h2.ProtocolError, malformed("the endpoint sent DATA before its response"))
		return nil
	case s.bodiless() && s.body > 0:
		c.refuse(s, f.Stream, h2.ProtocolError, malformed("malformed response: it has a body that it may not have"))
		return nil
	case s.length >= 0 && s.body > s.length, f.EndStream() && s.short():
		c.refuse(s, f.Stream, h2.ProtocolError, malformed("bad content-length: the body has another length than %d bytes", s.length))
		return nil
	}
	if !s.inbox.Put(f.Payload, f.Size) {
		s.mu.Unlock()
		return &h2.ConnError{Code: h2.FlowControlError, Reason: "the endpoint sent more than the stream's window allows"}
	}
	if f.EndStream() {
		s.gotEnd()
	}
	s.mu.Unlock()
	return nil
}

// ResetError is the cause of a Fault: the endpoint ended the stream with this code.
type ResetError struct{ Code h2.Code }

// Error names the code.
func (e *ResetError) Error() string { return "the endpoint reset the stream (" + e.Code.String() + ")" }

// gotReset ends a stream. After a whole answer it says only that the rest of the request is not wanted (RFC 9113 8.1).
func (c *h2Conn) gotReset(f *h2.Frame) error {
	s, err := c.find(f)
	if err != nil {
		return err
	}
	if !s.lock(c, f.Stream) {
		return c.spend("RST_STREAM")
	}
	defer s.mu.Unlock()
	code := h2.Code(binary.BigEndian.Uint32(f.Payload))
	s.reset = true
	fault := exchange.NewFault(exchange.UpstreamReset, &ResetError{Code: code})
	fault.Retryable = code == h2.RefusedStream && !s.headed
	s.fail(fault)
	return nil
}

// gotSettings applies the endpoint's settings and acknowledges them.
func (c *h2Conn) gotSettings(f *h2.Frame) error {
	if f.Flags&h2.FlagAck != 0 {
		return c.spend("SETTINGS")
	}
	if err := c.settings.Apply(f.Payload, true); err != nil {
		return err
	}
	if err := c.credit.SetInitial(c.settings.InitialWindowSize); err != nil {
		return err
	}
	c.headLimit.Store(c.settings.MaxHeaderListSize)
	if c.settings.HeaderTableSize < h2.TableSize {
		c.noTable.Store(true)
	}
	c.mu.Lock()
	more := c.allowed
	c.allowed = int(min(c.settings.MaxConcurrentStreams, maxH2Streams))
	more = c.allowed - more
	c.extended = c.settings.ExtendedConnect
	c.mu.Unlock()
	c.out.End(h2.AppendSettingsAck(c.out.Begin()))
	c.flush()
	if more > 0 && c.mux.waiting.Load() > 0 {
		c.mux.serve()
	}
	return c.spend("SETTINGS")
}

func (c *h2Conn) gotPing(f *h2.Frame) error {
	data := [8]byte(f.Payload)
	switch {
	case f.Flags&h2.FlagAck == 0:
		c.out.End(h2.AppendPing(c.out.Begin(), true, data))
		c.flush()
	case data == h2.ProbePing():
		c.tuner.Acked(time.Now().UnixNano())
	}
	return c.spend("PING")
}

// gotGoAway ends the streams that the endpoint says it did not look at; they may be tried again (RFC 9113 6.8). The connection gets no new ones
// and ends with those that are left.
func (c *h2Conn) gotGoAway(f *h2.Frame) error {
	last, code := binary.BigEndian.Uint32(f.Payload)&h2.MaxStream, h2.Code(binary.BigEndian.Uint32(f.Payload[4:]))
	c.last = min(c.last, last)
	c.mu.Lock()
	c.draining = true
	open := c.streams.all()
	c.mu.Unlock()
	refused := exchange.NewFault(exchange.UpstreamReset, fmt.Errorf("the endpoint closed the connection (GOAWAY, %s)", code))
	refused.Retryable = true
	for _, p := range open {
		if p.id > c.last && p.stream.lock(c, p.id) {
			p.stream.reset = true
			p.stream.fail(refused)
			p.stream.mu.Unlock()
		}
	}
	c.expire()
	if c.mux.waiting.Load() > 0 {
		c.mux.serve()
	}
	return c.spend("GOAWAY")
}

func (c *h2Conn) gotWindow(f *h2.Frame) error {
	n := binary.BigEndian.Uint32(f.Payload) & h2.MaxWindow
	if err := c.spend("WINDOW_UPDATE"); err != nil {
		return err
	}
	if f.Stream == 0 {
		return c.credit.Add(n)
	}
	s, err := c.find(f)
	if err != nil || !s.lock(c, f.Stream) {
		return err
	}
	if f.Code != 0 {
		c.refuse(s, f.Stream, f.Code, malformed("malformed frame: %s", f.Reason))
		return nil
	}
	if !s.window.Add(n) {
		c.refuse(s, f.Stream, h2.FlowControlError, malformed("the endpoint opened a window beyond its bound"))
		return nil
	}
	s.mu.Unlock()
	return nil
}
