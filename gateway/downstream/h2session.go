package downstream

import (
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// h2Session serves one HTTP/2 connection (RFC 9113).
//
// One goroutine reads. It takes all frames out of what one read brought, and only then hands the new streams to workers, so that a body
// that came with its head lies whole in the stream's Inbox when the worker looks. Workers write by themselves, through the Output that all
// streams share:
//
//	read: HEADERS 1, HEADERS 3, DATA 3   ->  worker A serves stream 1  \
//	                                         worker B serves stream 3  -> Output: both answers in one write
//
// A stream is in the list of streams from its HEADERS until its worker has ended, also when it was reset long before: work that goes on
// counts against MaxStreams. Its object is used again afterwards; whoever is not its worker uses it with mu held, while it is on the list.
//
// Locks are taken in the order mu, then those of Output, Credit, Inbox and Life.
type h2Session struct {
	client *client
	limits *Limits
	peer   exchange.Peer

	// Of the goroutine that reads.
	in       h2.Reader
	decoder  h2.Decoder
	settings h2.Settings // the peer's
	stage    h2Stage
	fresh    []*h2Stream // begun, and not yet handed to a worker
	taken    int         // frames taken since the reading last settled
	batch    int         // bytes read since streams were last handed to workers
	began    time.Time   // when the first of the fresh streams was
	readErr  error       // what reading ended with

	out      h2.Output
	credit   h2.Credit
	tuner    h2.Tuner
	maxFrame atomic.Int32 // the largest payload sent
	table    h2Table      // guarded by the Output's lock

	reading watch // h2Partial while a frame or a header block is incomplete
	heard   watch // goes on whenever something is read

	mu       sync.Mutex  // guards all below
	streams  []*h2Stream // by identifier
	last     uint32      // the client's latest stream
	resets   h2Resets
	early    h2Early
	budgets  h2Budgets
	received h2.Receive // the connection's receive window
	idle     watch      // h2Idle while there is no stream
	unacked  watch      // h2Unacked until our SETTINGS are acknowledged
	end      h2End

	working sync.WaitGroup // the streams on the list

	// Of the ticker.
	ticked  time.Time
	asked   bool      // PING was sent because nothing is heard
	written uint64    // Output's progress as last seen
	stuck   time.Time // since when it is that
}

// h2Stage is how far the connection's beginning is.
type h2Stage uint8

const (
	h2Preface h2Stage = iota
	h2FirstSettings
	h2Working
)

// h2Table is what the client knows of our table for header compression, which we never use.
type h2Table uint8

const (
	tableUntold h2Table = iota
	tableDue            // the client has made it smaller: the next header block has to say its size (RFC 7541 4.2)
	tableTold           // that it is 0
)

// The phases of the session's and the streams' watches.
const (
	h2Partial uint8 = iota + 1
	h2Idle
	h2Unacked
	h2Waiting
	h2Heard
)

// h2End is how the session ends.
type h2End struct {
	greeted  bool
	draining bool
	drained  time.Time // when the ticker first saw it drain
	refusing bool      // the last GOAWAY is out: later streams are not served
	accepted uint32    // the last stream that is served then
	reason   *h2.ConnError
	over     bool // reading has ended
	hungUp   bool
	cut      bool
}

const (
	// h2StreamWindow and h2ConnWindow are the receive windows at first, in bytes; what their growth is bounded by follows. The
	// connection's bounds what a client can make the gateway hold.
	h2StreamWindow = 256 << 10
	h2StreamMost   = 4 << 20
	h2ConnWindow   = 1 << 20
	h2ConnMost     = 8 << 20
	h2DrainTime    = time.Second // at most between the two GOAWAY frames
	// A client with streams under way that is silent for h2PingAfter gets a PING; one that does not answer within h2PingTime is gone.
	h2PingAfter     = 30 * time.Second
	h2PingTime      = 15 * time.Second
	h2LargestFrame  = 64 << 10
	h2DispatchBytes = 128 << 10 // read at most before streams are handed to workers
	h2LeastBlock    = 128 << 10
)

// What our PING frames carry. That of a drain comes back when the client has seen the first GOAWAY.
var (
	h2DrainPing = [8]byte{'g', 'o', 'i', 'n', 'g', 'a', 'w', 'y'}
	h2AlivePing = [8]byte{'r', 'u', 't', 'h', 'e', 'r', 'e', '?'}
)

// newH2 makes the session of a connection; read is what was read of it already.
func newH2(c *client, read []byte) *h2Session {
	s := &h2Session{client: c, limits: &c.bind.options.Limits, peer: c.peer}
	s.peer.Proto = exchange.HTTP2
	s.in.Init(nil, h2.ReaderLimits{Block: max(2*s.limits.MaxHeaderBytes, h2LeastBlock)})
	s.decoder.Init(h2.TableSize)
	s.settings.Init()
	s.out.Init(c.rw)
	s.credit.Init()
	s.received.Init(&s.tuner, h2ConnWindow, h2ConnMost)
	s.maxFrame.Store(h2.MinFrameSize)
	s.budgets.init(s.limits.MaxStreams)
	for len(read) > 0 {
		n := copy(s.in.Space(), read)
		s.in.Advance(n)
		read = read[n:]
	}
	return s
}

// serve implements session.
func (s *h2Session) serve() {
	s.greet()
	if !s.strong() {
		s.mu.Lock()
		s.stop(h2.InadequateSecurity, "the cipher suite is not allowed for HTTP/2")
		s.mu.Unlock()
	}
	s.client.sock.Watch(s.hungUp) // the end of what the client sends may bring no turn of its own
	if s.process() {
		s.settle()
		s.readErr = s.client.sock.Serve(s.turn)
	}
	s.finish()
}

// strong reports whether TLS is as strong as HTTP/2 asks for (RFC 9113 9.2.2): of TLS 1.2 the suites with ephemeral keys and an AEAD.
func (s *h2Session) strong() bool {
	info := s.peer.TLS
	if info == nil || info.Version > tls.VersionTLS12 {
		return true
	}
	switch info.CipherSuite {
	case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return true
	}
	return false
}

// greet sends the server's preface: its settings.
func (s *h2Session) greet() {
	buf := s.out.Begin()
	buf = h2.AppendSettings(buf,
		h2.Setting{ID: h2.SettingMaxConcurrentStreams, Value: uint32(s.limits.MaxStreams)},
		h2.Setting{ID: h2.SettingInitialWindowSize, Value: h2StreamWindow},
		h2.Setting{ID: h2.SettingMaxHeaderListSize, Value: uint32(s.limits.MaxHeaderBytes)},
		h2.Setting{ID: h2.SettingEnableConnect, Value: 1},
		h2.Setting{ID: h2.SettingNoPriorities, Value: 1},
	)
	buf = h2.AppendWindowUpdate(buf, 0, h2ConnWindow-h2.InitialWindow)
	s.out.End(buf)
	_ = s.out.Flush() // a new socket has room for it

	s.mu.Lock()
	defer s.mu.Unlock()
	s.end.greeted = true
	s.reading.next(h2Partial)
	s.unacked.next(h2Unacked)
	s.idle.next(h2Idle)
	if s.end.draining {
		s.announce()
	}
}

// turn reads what is there and takes the frames out of it; false ends the reading. It is the step of sock.Conn.Serve.
func (s *h2Session) turn() bool {
	secure := s.client.secure
	if secure != nil {
		secure.fresh()
	}
	for {
		space := s.in.Space()
		var n int
		var err error
		if secure != nil {
			n, err = secure.tryRead(space)
		} else {
			n, err = s.client.sock.TryRead(space)
		}
		if n > 0 {
			s.in.Advance(n)
			s.heard.next(h2Heard)
			if !s.process() {
				return false
			}
			s.batch += n
		}
		switch {
		case errors.Is(err, sock.ErrAgain), err == nil && secure == nil && n < len(space):
			s.settle()
			return s.out.Err() == nil
		case err != nil:
			s.readErr = err
			return false
		case s.batch > h2DispatchBytes:
			s.dispatch()
			s.out.Kick()
			if s.out.Err() != nil {
				return false
			}
		}
	}
}

// process takes the frames out of what is buffered; false ends the reading.
func (s *h2Session) process() bool {
	err := s.frames()
	if err == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end.reason == nil {
		s.end.reason, _ = errors.AsType[*h2.ConnError](err)
	}
	return false
}

func (s *h2Session) frames() error {
	if s.stage == h2Preface {
		ok, err := s.in.Preface()
		if !ok || err != nil {
			return err
		}
		s.stage = h2FirstSettings
	}
	for {
		f, ok, err := s.in.Buffered()
		if !ok || err != nil {
			return err
		}
		s.taken++
		if s.stage == h2FirstSettings {
			if f.Type != h2.TypeSettings || f.Flags&h2.FlagAck != 0 {
				return &h2.ConnError{Code: h2.ProtocolError, Reason: "the first frame is not SETTINGS"}
			}
			s.stage = h2Working
		}
		if err := s.frame(&f); err != nil {
			return err
		}
	}
}

// settle comes when everything that arrived was taken: the reader is about to wait.
func (s *h2Session) settle() {
	s.dispatch()
	s.out.Kick()
	s.in.Release()
	switch partial := s.stage != h2Working || s.in.Partial(); {
	case partial && (s.taken > 0 && s.stage == h2Working || s.reading.kind() == 0):
		s.reading.next(h2Partial)
	case !partial && s.reading.kind() != 0:
		s.reading.next(0)
	}
	s.taken = 0
}

// dispatch hands the new streams to workers.
func (s *h2Session) dispatch() {
	s.batch = 0
	if len(s.fresh) == 0 {
		return
	}
	s.mu.Lock()
	for i, st := range s.fresh {
		if st.lost != nil && st.lost.Kind == exchange.ClientAborted { // gone before it began: nothing is left to do, or to log
			s.fresh[i] = nil
			s.remove(st)
			st.recycle()
			s.working.Done()
		}
	}
	s.mu.Unlock()
	for i, st := range s.fresh {
		if st != nil {
			s.fresh[i] = nil
			s.client.bind.workers.run(st)
		}
	}
	s.fresh, s.began = s.fresh[:0], time.Time{}
}

// now is when the batch of frames under way came, read at most once for it.
func (s *h2Session) now() time.Time {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	return s.began
}

// finish ends what is left once reading has ended: the streams, then the connection.
func (s *h2Session) finish() {
	s.mu.Lock()
	s.end.over = true
	reason := s.end.reason
	orderly := reason != nil && s.out.Err() == nil && !s.end.cut
	if orderly && !(s.end.refusing && reason.Code == h2.NoError) {
		buf := s.out.Begin()
		s.out.End(h2.AppendGoAway(buf, min(s.last, s.accepted()), reason.Code, reason.Reason))
		s.out.Kick()
	}
	cause := s.cause()
	for _, st := range s.streams {
		st.lose(exchange.NewFault(exchange.ClientAborted, cause))
	}
	s.mu.Unlock()
	s.credit.Fail(cause)
	s.dispatch()
	if orderly {
		s.working.Wait()
		s.out.Shut(cause)
		s.client.linger(s.mayLinger)
	} else {
		s.out.Fail(cause)
		s.client.sock.Interrupt() // ends a write under way
		s.working.Wait()
	}
	s.in.Close()
}

// cause says for the log why the streams ended. It is called with mu held.
func (s *h2Session) cause() error {
	switch {
	case s.end.reason != nil:
		return s.end.reason
	case s.out.Err() != nil: // errCut among others
		return s.out.Err()
	case s.end.hungUp || s.readErr == nil || errors.Is(s.readErr, io.EOF):
		return errHungUp
	}
	return s.readErr
}

// mayLinger bounds the time in which the client can read our last frames, unless the session was cut.
func (s *h2Session) mayLinger() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.end.cut && s.client.sock.SetReadDeadline(time.Now().Add(lingerTime)) == nil
}

// wake ends the reading, because of what end says. It is called with mu held.
func (s *h2Session) wake() {
	if !s.end.over {
		_ = s.client.sock.SetReadDeadline(time.Unix(1, 0))
	}
}

// hungUp is called when the client closed the connection or its half of it. Nobody waits for answers then.
func (s *h2Session) hungUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end.hungUp = true
	s.wake()
}

// stop ends the session with a reason for GOAWAY: at the next frame, or when the reading would wait. It is called with mu held.
func (s *h2Session) stop(code h2.Code, reason string) {
	if s.end.reason == nil {
		s.end.reason = &h2.ConnError{Code: code, Reason: reason}
		s.wake()
	}
}

// drain implements session: GOAWAY with the largest identifier, then, once the client has seen it, with that of the last stream
// (RFC 9113 6.8), so that no request on its way is lost.
func (s *h2Session) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end.draining {
		return
	}
	s.end.draining = true
	if s.end.greeted {
		s.announce()
	}
}

func (s *h2Session) announce() {
	buf := s.out.Begin()
	buf = h2.AppendGoAway(buf, h2.MaxStream, h2.NoError, "")
	s.out.End(h2.AppendPing(buf, false, h2DrainPing))
	s.out.Kick()
}

// refuse is the second step of drain. It is called with mu held.
func (s *h2Session) refuse() {
	if !s.end.draining || s.end.refusing || s.end.over {
		return
	}
	s.end.refusing, s.end.accepted = true, s.last
	buf := s.out.Begin()
	s.out.End(h2.AppendGoAway(buf, s.last, h2.NoError, ""))
	s.out.Kick()
	s.leave()
}

// accepted returns the last stream that is served. It is called with mu held.
func (s *h2Session) accepted() uint32 {
	if s.end.refusing {
		return s.end.accepted
	}
	return h2.MaxStream
}

// leave ends a session that drains and has no stream. It is called with mu held.
func (s *h2Session) leave() {
	if s.end.refusing && len(s.streams) == 0 {
		s.stop(h2.NoError, "")
	}
}

// cut implements session.
func (s *h2Session) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutNow()
}

// cutNow is called with mu held.
func (s *h2Session) cutNow() {
	s.end.cut = true
	s.out.Fail(errCut)
	s.client.sock.Interrupt()
}

// tick implements session.
func (s *h2Session) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	elapsed := time.Duration(0)
	if !s.ticked.IsZero() {
		elapsed = now.Sub(s.ticked)
	}
	s.ticked = now
	s.budgets.refill(elapsed)
	if s.stalled(now) {
		s.cutNow()
		return
	}
	if s.end.over {
		return
	}
	switch {
	case s.reading.kind() != 0 && s.reading.overdue(now, s.limits.HeaderTimeout):
		s.stop(h2.EnhanceYourCalm, "a header block or frame took too long to arrive")
	case s.unacked.kind() != 0 && s.unacked.overdue(now, s.limits.HeaderTimeout):
		s.stop(h2.SettingsTimeout, "SETTINGS were not acknowledged")
	case s.idle.kind() != 0 && s.idle.overdue(now, s.limits.IdleTimeout):
		s.stop(h2.NoError, "the connection was idle")
	}
	if s.end.draining && s.end.drained.IsZero() {
		s.end.drained = now
	} else if s.end.draining && now.Sub(s.end.drained) >= h2DrainTime {
		s.refuse()
	}
	for _, st := range s.streams {
		st.tick(now, elapsed)
	}
	if s.gone(now) {
		s.cutNow()
	}
}

// gone reports whether the client has vanished while requests are under way: it is silent and does not answer PING. It is called with mu
// held.
func (s *h2Session) gone(now time.Time) bool {
	switch {
	case len(s.streams) == 0 || !s.heard.overdue(now, h2PingAfter):
		s.asked = false
	case !s.asked:
		s.asked = true
		s.out.End(h2.AppendPing(s.out.Begin(), false, h2AlivePing))
		s.out.Kick()
	default:
		return s.heard.overdue(now, h2PingAfter+h2PingTime)
	}
	return false
}

// stalled reports whether a write is under way for longer than a client may refuse to read.
func (s *h2Session) stalled(now time.Time) bool {
	if written := s.out.Progress(); written != s.written || written%2 == 0 {
		s.written, s.stuck = written, now
		return false
	}
	return s.limits.BodyIdleTimeout > 0 && now.Sub(s.stuck) >= s.limits.BodyIdleTimeout
}
