package downstream

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// This file is what each frame does (RFC 9113 5.1, 6). All of it runs on the goroutine that reads. An error ends the connection; what is wrong
// with one stream resets that stream and costs of a budget.

func (s *h2Session) frame(f *h2.Frame) error {
	if f.Type == h2.TypeHeaders {
		return s.headers(f)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end.reason != nil { // the ticker's
		return s.end.reason
	}
	switch f.Type {
	case h2.TypeData:
		return s.data(f)
	case h2.TypeReset:
		return s.resetByClient(f)
	case h2.TypeWindowUpdate:
		return s.windowUpdate(f)
	case h2.TypeSettings:
		return s.setting(f)
	case h2.TypePing:
		return s.ping(f)
	case h2.TypePriority:
		return s.priority(f)
	case h2.TypePriorityUpdate:
		return s.priorityUpdate(f)
	case h2.TypeGoAway:
		// The client opens no more streams; those under way go on. A connection that stays idle then is closed like any other.
		return s.budgets.spendControl(1, "too many GOAWAY frames")
	default: // RFC 9113 5.5
		return s.budgets.spendControl(1+len(f.Payload)/h2UnknownBytes, "too many frames of unknown types")
	}
}

// find returns the stream with an identifier if it is on the list, and the place it would have. It is called with mu held.
func (s *h2Session) find(id uint32) (st *h2Stream, at int) {
	low, high := 0, len(s.streams)
	for low < high {
		mid := int(uint(low+high) >> 1)
		if s.streams[mid].id < id {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low < len(s.streams) && s.streams[low].id == id {
		return s.streams[low], low
	}
	return nil, low
}

// remove takes a stream off the list. It is called with mu held.
func (s *h2Session) remove(st *h2Stream) {
	if _, at := s.find(st.id); at < len(s.streams) && s.streams[at] == st {
		s.streams = slices.Delete(s.streams, at, at+1)
	}
	if len(s.streams) == 0 {
		s.idle.next(h2Idle)
		s.leave()
	}
}

// isIdle reports whether a stream has never begun (RFC 9113 5.1). It is called with mu held.
func (s *h2Session) isIdle(id uint32) bool { return id > s.last || id%2 == 0 }

// headers begins a stream, or ends one with trailers.
func (s *h2Session) headers(f *h2.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end.reason != nil {
		return s.end.reason
	}
	if f.Frames > 1 {
		if err := s.budgets.spendControl(f.Frames-1, "too many CONTINUATION frames"); err != nil {
			return err
		}
	}
	switch {
	case f.Stream%2 == 0:
		return &h2.ConnError{Code: h2.ProtocolError, Reason: "HEADERS on a stream that a client cannot open"}
	case f.Stream > s.last:
		s.last = f.Stream
		return s.open(f)
	}
	st, _ := s.find(f.Stream)
	switch {
	case st != nil && st.whole || st == nil && !s.resets.has(f.Stream):
		return &h2.ConnError{Code: h2.StreamClosed, Reason: "HEADERS on a stream that the client has ended"}
	case st == nil || st.lost != nil: // it was on its way when we reset the stream
		return s.decoder.Skip(f.Payload)
	}
	return s.trailers(st, f)
}

// open begins a stream. It is called with mu held.
func (s *h2Session) open(f *h2.Frame) error {
	if s.end.refusing { // RFC 9113 6.8: the client knows that it is not served
		s.resets.add(f.Stream)
		return s.decoder.Skip(f.Payload)
	}
	if len(s.streams) >= s.limits.MaxStreams {
		if err := s.decoder.Skip(f.Payload); err != nil {
			return err
		}
		s.sendReset(f.Stream, h2.RefusedStream, !f.EndStream())
		return spend(&s.budgets.refused, 1, "too many requests beyond SETTINGS_MAX_CONCURRENT_STREAMS")
	}
	s.budgets.control.Give(h2GiveRequest)
	st := getH2Stream()
	st.begin(s, f.Stream)
	limits := section.Limits{Bytes: s.limits.MaxHeaderBytes, Fields: s.limits.MaxHeaderCount + h2PseudoFields}
	length, err := s.decoder.Request(f.Payload, &st.arena, &st.head, limits)
	if connErr, ok := errors.AsType[*h2.ConnError](err); ok {
		st.recycle()
		return connErr
	}
	st.start = s.now()
	st.accept(f.EndStream(), length, err)
	if f.Code != 0 {
		st.malformed(f.Code, errors.New(f.Reason))
	}
	s.prioritize(st)
	if len(s.streams) == 0 {
		s.idle.next(0)
	}
	s.streams = append(s.streams, st)
	s.fresh = append(s.fresh, st)
	s.working.Add(1)
	if err != nil || st.refuse != 0 {
		return spend(&s.budgets.provoked, provocation(err), "too many malformed or too large requests")
	}
	return nil
}

// h2PseudoFields is how many fields beyond Limits.MaxHeaderCount are decoded: pseudo-fields do not count.
const h2PseudoFields = 5

// prioritize takes the priority that the client gave a new stream (RFC 9218 5, 7): a frame ahead of it outdoes the field.
func (s *h2Session) prioritize(st *h2Stream) {
	if p, ok := s.early.take(st.id); ok {
		st.prioritize(p)
	} else {
		st.prioritize(h2.ParsePriority(priorityOf(st.head.Fields)))
	}
}

func priorityOf(fields exchange.Fields) string {
	for i := range fields {
		if f := &fields[i]; f.ID == exchange.Unknown && f.Name == "priority" {
			return f.Value
		}
	}
	return ""
}

// trailers ends the request of a stream. It is called with mu held.
func (s *h2Session) trailers(st *h2Stream, f *h2.Frame) error {
	if !f.EndStream() || f.Code != 0 {
		if err := s.decoder.Skip(f.Payload); err != nil {
			return err
		}
		return s.provoked(st, h2.ProtocolError, "trailers do not end the request")
	}
	limits := section.Limits{Bytes: s.limits.MaxHeaderBytes, Fields: s.limits.MaxHeaderCount}
	err := s.decoder.Trailers(f.Payload, &st.arena, &st.trailers, limits)
	if connErr, ok := errors.AsType[*h2.ConnError](err); ok {
		return connErr
	}
	switch {
	case errors.Is(err, section.ErrTooLarge):
		st.whole = true
		st.inbox.Fail(exchange.NewFault(exchange.FieldsTooLarge, err))
		return spend(&s.budgets.provoked, provocation(err), "too many trailers that are too large")
	case err != nil:
		return s.provoked(st, h2.ProtocolError, err.Error())
	case !st.lengthHolds():
		return s.provoked(st, h2.ProtocolError, "the body is not as long as content-length says")
	}
	st.whole = true
	st.inbox.End()
	return nil
}

// data takes a piece of a body. It is called with mu held.
func (s *h2Session) data(f *h2.Frame) error {
	if !s.received.Got(f.Size) {
		return &h2.ConnError{Code: h2.FlowControlError, Reason: "DATA beyond the connection's window"}
	}
	if s.isIdle(f.Stream) {
		return &h2.ConnError{Code: h2.ProtocolError, Reason: "DATA on a stream that has not begun"}
	}
	if len(f.Payload) == 0 && !f.More && !f.EndStream() {
		if err := s.budgets.spendControl(h2CostEmptyData, "too many empty DATA frames"); err != nil {
			return err
		}
	}
	st, _ := s.find(f.Stream)
	if st != nil && st.lost == nil && !st.whole {
		return s.body(st, f)
	}
	s.giveBack(f.Size)
	switch {
	case f.Frames == 0: // the rest of a frame
		return nil
	case st != nil && st.lost == nil:
		return s.provoked(st, h2.StreamClosed, "DATA after the end of the request")
	case st != nil && st.whole || st == nil && !s.resets.has(f.Stream):
		return s.late(f.Stream, h2.StreamClosed)
	}
	// It was on its way when we reset the stream. Large frames cost the client as much as they cost us.
	if f.Size > h2SmallData {
		return nil
	}
	return s.budgets.spendControl(1, "too many DATA frames on streams that were reset")
}

// late is a frame on a stream that the client has ended. It is called with mu held.
func (s *h2Session) late(id uint32, code h2.Code) error {
	s.sendReset(id, code, false)
	return spend(&s.budgets.provoked, 1, "too many frames on closed streams")
}

// body takes a piece of an open stream's body. It is called with mu held.
func (s *h2Session) body(st *h2Stream, f *h2.Frame) error {
	st.got += int64(len(f.Payload))
	s.giveBack(f.Size - len(f.Payload)) // padding is consumed here
	end := f.EndStream()
	if st.length >= 0 && st.got > st.length || end && !st.lengthHolds() {
		s.giveBack(len(f.Payload))
		st.taken += int64(len(f.Payload))
		return s.provoked(st, h2.ProtocolError, "the body is not as long as content-length says")
	}
	if most := s.limits.MaxBodyBytes; most >= 0 && st.got > most && !st.connect {
		st.inbox.Fail(exchange.NewFault(exchange.BodyTooLarge, nil))
	}
	if !st.inbox.Put(f.Payload, f.Size) {
		return s.provoked(st, h2.FlowControlError, "DATA beyond the stream's window")
	}
	if end {
		st.whole = true
		st.inbox.End()
	}
	return nil
}

// giveBack opens the connection's window again for n bytes that were consumed. It reports whether there is something to flush. It is called
// with mu held.
func (s *h2Session) giveBack(n int) bool {
	if n == 0 {
		return false
	}
	now := int64(0)
	if s.received.Due(n) {
		now = nanotime()
	}
	give := s.received.Done(n, now)
	if give == 0 {
		return false
	}
	s.out.End(s.appendProbe(h2.AppendWindowUpdate(s.out.Begin(), 0, give), now))
	return true
}

// appendProbe appends a PING that measures the round trip, if one is due.
func (s *h2Session) appendProbe(buf []byte, now int64) []byte {
	if s.tuner.Probe(now) {
		return h2.AppendPing(buf, false, h2.ProbePing())
	}
	return buf
}

func nanotime() int64 { return time.Now().UnixNano() }

// resetByClient is RST_STREAM. It is called with mu held.
func (s *h2Session) resetByClient(f *h2.Frame) error {
	if s.isIdle(f.Stream) {
		return &h2.ConnError{Code: h2.ProtocolError, Reason: "RST_STREAM on a stream that has not begun"}
	}
	st, _ := s.find(f.Stream)
	if st == nil || st.lost != nil {
		return s.budgets.spendControl(1, "too many RST_STREAM frames on closed streams")
	}
	code := h2.Code(binary.BigEndian.Uint32(f.Payload))
	st.whole = true // nothing follows
	st.lose(exchange.NewFault(exchange.ClientAborted, &h2.StreamError{Stream: st.id, Code: code, Reason: "the client reset the stream"}))
	return spend(&s.budgets.resets, 1, "too many requests were reset")
}

// windowUpdate opens a send window. It is called with mu held.
func (s *h2Session) windowUpdate(f *h2.Frame) error {
	if err := s.budgets.spendControl(1, "too many WINDOW_UPDATE frames"); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(f.Payload) & h2.MaxWindow
	if f.Stream == 0 {
		return s.credit.Add(n)
	}
	if s.isIdle(f.Stream) {
		return &h2.ConnError{Code: h2.ProtocolError, Reason: "WINDOW_UPDATE on a stream that has not begun"}
	}
	st, _ := s.find(f.Stream)
	switch {
	case st == nil || st.lost != nil:
		return nil
	case f.Code != 0:
		return s.provoked(st, f.Code, f.Reason)
	case !st.window.Add(n):
		return s.provoked(st, h2.FlowControlError, "WINDOW_UPDATE opens the window beyond 2^31-1")
	}
	return nil
}

// setting takes the client's SETTINGS, or its acknowledgement of ours. It is called with mu held.
func (s *h2Session) setting(f *h2.Frame) error {
	if err := s.budgets.spendControl(h2CostSettings, "too many SETTINGS frames"); err != nil {
		return err
	}
	if f.Flags&h2.FlagAck != 0 {
		s.unacked.next(0)
		return nil
	}
	before := s.settings.InitialWindowSize
	if err := s.settings.Apply(f.Payload, false); err != nil {
		return err
	}
	if now := s.settings.InitialWindowSize; now != before {
		if err := s.credit.SetInitial(now); err != nil {
			return err
		}
	}
	s.maxFrame.Store(int32(min(s.settings.MaxFrameSize, h2LargestFrame)))
	buf := s.out.Begin()
	if s.table == tableUntold && s.settings.HeaderTableSize < h2.TableSize {
		s.table = tableDue
	}
	s.out.End(h2.AppendSettingsAck(buf))
	return nil
}

// ping answers a PING, or takes the answer to one of ours. It is called with mu held.
func (s *h2Session) ping(f *h2.Frame) error {
	if err := s.budgets.spendControl(1, "too many PING frames"); err != nil {
		return err
	}
	data := [8]byte(f.Payload)
	switch {
	case f.Flags&h2.FlagAck == 0:
		s.out.End(h2.AppendPing(s.out.Begin(), true, data))
	case data == h2DrainPing:
		s.refuse()
	case data == h2.ProbePing():
		s.tuner.Acked(nanotime())
	}
	return nil
}

// priority is PRIORITY of RFC 7540, which nothing is done with. It is called with mu held.
func (s *h2Session) priority(f *h2.Frame) error {
	if f.Code != 0 {
		if s.isIdle(f.Stream) {
			return &h2.ConnError{Code: f.Code, Reason: f.Reason}
		}
		if st, _ := s.find(f.Stream); st != nil && st.lost == nil {
			return s.provoked(st, f.Code, f.Reason)
		}
		return s.late(f.Stream, f.Code)
	}
	return s.budgets.spendControl(1, "too many PRIORITY frames")
}

// priorityUpdate is RFC 9218 7.1. It is called with mu held.
func (s *h2Session) priorityUpdate(f *h2.Frame) error {
	if err := s.budgets.spendControl(1, "too many PRIORITY_UPDATE frames"); err != nil {
		return err
	}
	id := binary.BigEndian.Uint32(f.Payload) & h2.MaxStream
	if id%2 == 0 {
		return &h2.ConnError{Code: h2.ProtocolError, Reason: "PRIORITY_UPDATE for a stream that a client cannot open"}
	}
	p := h2.ParsePriority(string(f.Payload[4:]))
	if st, _ := s.find(id); st != nil {
		st.prioritize(p)
	} else if id > s.last {
		s.early.put(id, p)
	}
	return nil
}

// provoked resets a stream for what the client did wrong with it. It is called with mu held.
func (s *h2Session) provoked(st *h2Stream, code h2.Code, reason string) error {
	st.reset(code, exchange.NewFault(exchange.BadRequest, &h2.StreamError{Stream: st.id, Code: code, Reason: reason}))
	return spend(&s.budgets.provoked, 1, "too many stream errors")
}

// sendReset sends RST_STREAM; sending says that the client may still be sending on the stream. It is called with mu held.
func (s *h2Session) sendReset(id uint32, code h2.Code, sending bool) {
	if sending {
		s.resets.add(id)
	}
	s.out.End(h2.AppendReset(s.out.Begin(), id, code))
}
