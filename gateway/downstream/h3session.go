package downstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/codec/h3"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h3Session serves one HTTP/3 connection (RFC 9114).
//
// quic-go's goroutines read and write packets. One goroutine of ours takes the streams with requests and hands each to a worker, which
// reads the request, serves the exchange and writes the response; the client's control stream and QPACK's streams have a goroutine each,
// which nearly always waits.
//
// A stream is in the list of streams until its worker has ended, also when the client gave it up long before: QUIC does not let the
// client open another in its place until then. Its object is used again afterwards; whoever is not its worker uses it with mu held, while
// it is on the list.
//
// Locks are taken in the order h3Session.mu, h3Stream.mu, then those of quic-go and Life.
type h3Session struct {
	server *http3Server
	limits *Limits
	conn   *quic.Conn
	peer   exchange.Peer // complete once the handshake is done
	at     int           // its place in server.sessions, which owns it

	working     sync.WaitGroup // the streams' goroutines, the workers with requests among them
	prioritised atomic.Bool    // the client has told how urgent a request is
	batch       h3Batch

	mu          sync.Mutex // guards all below
	control     *quic.SendStream
	established bool // the handshake is done
	streams     []*h3Stream
	spent       []*quic.Stream // over, and still counted against MaxStreams; see repay
	next        quic.StreamID  // the first stream that no request came on yet
	critical    uint8          // the client's streams that there may be only one of, as bits
	draining    bool
	resets      h2.Budget
	provoked    h2.Budget
	acts        h2.Budget
	idle        watch // h3Idle while there is no stream

	ticked time.Time // of the ticker
}

// The phases of the session's and the streams' watches.
const (
	h3Idle uint8 = iota + 1
	h3Head
	h3Body
	h3Write
)

const (
	// goAwayTime is how long an idle connection stays open after GOAWAY, at least, so that requests on their way are refused by it, which
	// a client may safely send again, and not cut, and so that the last response arrives whole.
	goAwayTime = 200 * time.Millisecond
	// goAwayRoundTrips is the same for clients that are far away.
	goAwayRoundTrips = 4

	// What a client may have the gateway do without asking it for anything useful; see h2.Budget. Each response that goes out whole gives
	// one reset back, and each request h3ActsGiven acts.
	h3Provoked    = 100
	h3Acts        = 1000
	h3ActsGiven   = 8
	h3ActsPerTime = 200
	h3ResetsLeast = 100

	// Streams that are over are given back together, before they are this part of MaxStreams, and no more than that many.
	h3SpentPart = 8
	h3SpentMost = 32
	h3PerSecond = 20
)

func newH3(h *http3Server, conn *quic.Conn) *h3Session {
	s := &h3Session{server: h, limits: &h.bind.options.Limits, conn: conn}
	s.resets.Init(max(h3ResetsLeast, s.limits.MaxStreams), h3PerSecond)
	s.provoked.Init(h3Provoked, h3PerSecond)
	s.acts.Init(h3Acts, h3ActsPerTime)
	s.idle.next(h3Idle)
	return s
}

// run serves the connection to its end.
func (s *h3Session) run() {
	defer s.server.sessions.remove(s)
	defer s.working.Wait()
	if err := s.greet(); err != nil {
		s.fail(err)
		return
	}
	select {
	case <-s.conn.HandshakeComplete():
	case <-s.conn.Context().Done():
		return
	}
	if guest, ok := s.conn.Context().Value(h3GuestKey{}).(*h3Guest); ok {
		guest.arrive()
	}
	bind := s.server.bind
	bind.options.OnConnections(bind.key, exchange.HTTP3, 1)
	defer bind.options.OnConnections(bind.key, exchange.HTTP3, -1)
	s.establish()
	s.working.Go(s.acceptUni)
	s.accept()
	s.lose(context.Cause(s.conn.Context()))
	s.working.Wait()
}

// greet opens the control stream. It does not wait for the handshake: clients wait for SETTINGS before they use extended CONNECT.
func (s *h3Session) greet() error {
	control, err := s.conn.OpenUniStream()
	if err != nil {
		return &h3.ConnError{Code: h3.GeneralProtocolError, Reason: "the client does not let the gateway open its control stream"}
	}
	begin := h3.AppendControl(nil, h3.Settings{MaxFieldSection: int64(s.limits.MaxHeaderBytes), EnableConnect: true})
	if control.TryWriteAll(begin) == quic.ErrWouldBlock {
		// A client should have room for far more (RFC 9114 6.2); one that has not is not waited for.
		s.working.Go(func() { _, _ = control.Write(begin) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control = control
	return nil
}

// establish fills in what the handshake established.
func (s *h3Session) establish() {
	state := s.conn.ConnectionState().TLS
	s.peer = exchange.Peer{
		Bind: s.server.bind.key, Proto: exchange.HTTP3, TLS: tlsInfo(state),
		Remote: addrPort(s.conn.RemoteAddr()), Local: addrPort(s.conn.LocalAddr()),
	}
	s.peer.RemoteIP = s.peer.Remote.Addr().String()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.established = true
	s.idle.next(h3Idle)
	if s.draining {
		s.announce()
	}
}

// accept takes requests until the connection is over.
func (s *h3Session) accept() {
	for {
		str, err := s.conn.AcceptStream(context.Background())
		if err != nil {
			return
		}
		if st := s.begin(str); st != nil {
			s.server.bind.workers.run(st)
		} else {
			str.ReleaseStreamCredit()
			reset(str, h3.RequestRejected)
		}
	}
}

// begin puts a stream on the list; nil means that it is not served.
func (s *h3Session) begin(str *quic.Stream) *h3Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil
	}
	s.next = str.StreamID() + 4
	s.acts.Give(h3ActsGiven)
	st, _ := s.server.spares.Get().(*h3Stream)
	st.begin(s, str, len(s.streams))
	if st.at == 0 {
		s.idle.next(0)
	}
	s.streams = append(s.streams, st)
	s.working.Add(1)
	return st
}

// end takes a stream off the list. whole tells that its response went out whole.
func (s *h3Session) end(st *h3Stream, whole bool) {
	s.mu.Lock()
	s.spent = append(s.spent, st.str)
	if len(s.spent) > s.limits.MaxStreams/h3SpentPart || len(s.spent) >= h3SpentMost {
		s.repay()
	}
	last := len(s.streams) - 1
	s.streams[st.at] = s.streams[last]
	s.streams[st.at].at = st.at
	s.streams[last] = nil
	s.streams = s.streams[:last]
	if whole {
		s.resets.Give(1)
	}
	if last == 0 {
		s.idle.next(h3Idle)
		if s.draining {
			s.leaveLater()
		}
	}
	s.mu.Unlock()
	s.working.Done()
}

// repay lets the client open streams in place of those that are over. quic-go tells the client of each by itself, with a packet if need
// be; so it is done for many at a time. It is called with mu held.
func (s *h3Session) repay() {
	for i, str := range s.spent {
		str.ReleaseStreamCredit()
		s.spent[i] = nil
	}
	s.spent = s.spent[:0]
}

// lose ends the exchanges under way because the connection is over.
func (s *h3Session) lose(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		st.lose(cause)
	}
}

func reset(str *quic.Stream, code h3.Code) {
	str.CancelRead(quic.StreamErrorCode(code))
	str.CancelWrite(quic.StreamErrorCode(code))
}

// shut closes the connection without waiting for that.
func (s *h3Session) shut(code h3.Code, reason string) {
	go func() { _ = s.conn.CloseWithError(quic.ApplicationErrorCode(code), reason) }() // ends with the connection
}

// fail closes the connection because of a breach of the protocol; any other error is the connection's own end.
func (s *h3Session) fail(err error) {
	if breach, ok := errors.AsType[*h3.ConnError](err); ok {
		s.shut(breach.Code, breach.Reason)
	}
}

// spend takes one from a budget; a client over it loses the connection.
func (s *h3Session) spend(budget *h2.Budget, n int, flood string) {
	s.mu.Lock()
	within := n == 0 || budget.Spend(n)
	s.mu.Unlock()
	if !within {
		s.shut(h3.ExcessiveLoad, flood)
	}
}

// acceptUni takes the client's unidirectional streams until the connection is over.
func (s *h3Session) acceptUni() {
	for {
		str, err := s.conn.AcceptUniStream(context.Background())
		if err != nil {
			return
		}
		s.working.Go(func() {
			s.fail(s.uni(str))
			str.ReleaseStreamCredit()
		})
	}
}

// uni reads a unidirectional stream (RFC 9114 6.2). Its errors are connection errors, or the connection's end.
func (s *h3Session) uni(str *quic.ReceiveStream) error {
	var memory [64]byte
	var kind uint64
	var rest []byte
	for have := 0; ; {
		n, err := str.Read(memory[have:])
		have += n
		if v, length := h3.Varint(memory[:have]); length > 0 {
			kind, rest = v, memory[length:have]
			break
		}
		if err != nil {
			return nil // a stream may end before its type (RFC 9114 6.2)
		}
	}
	switch kind {
	case h3.StreamControl, h3.StreamEncoder, h3.StreamDecoder:
		if !s.claim(kind) {
			return &h3.ConnError{Code: h3.StreamCreationError, Reason: "a stream that there may be only one of was opened twice"}
		}
	case h3.StreamPush:
		return &h3.ConnError{Code: h3.StreamCreationError, Reason: "a client opened a push stream"}
	default:
		s.spend(&s.acts, 1, "streams of unknown types")
		str.CancelRead(quic.StreamErrorCode(h3.StreamCreationError))
		return nil
	}
	if kind == h3.StreamControl {
		return s.readControl(io.MultiReader(bytes.NewReader(rest), str))
	}
	return s.readQPACK(kind, str, memory[:], rest)
}

// claim notes that a stream of the type is there; false when it is the second.
func (s *h3Session) claim(kind uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	bit := uint8(1) << kind
	first := s.critical&bit == 0
	s.critical |= bit
	return first
}

// readControl reads the client's control stream until the connection is over, or should be.
func (s *h3Session) readControl(src io.Reader) error {
	control := h3.Control{Source: src}
	for {
		event, err := control.Next()
		if err != nil {
			return critical(err)
		}
		s.spend(&s.acts, 1, "frames on the control stream")
		if event.Kind == h3.KindPriority {
			s.prioritise(quic.StreamID(event.Stream), event.Priority)
		}
	}
}

// readQPACK reads one of QPACK's streams; memory holds rest, what was read of it already, and what follows.
func (s *h3Session) readQPACK(kind uint64, str *quic.ReceiveStream, memory, rest []byte) error {
	var acknowledgements h3.Acknowledgements
	for {
		acts := len(rest)
		var err error
		if kind == h3.StreamEncoder {
			err = h3.CheckEncoder(rest)
		} else {
			acts, err = acknowledgements.Take(rest)
		}
		if err != nil {
			return err
		}
		s.spend(&s.acts, acts, "instructions on QPACK's streams")
		n, err := str.Read(memory)
		rest = memory[:n]
		if n == 0 && err != nil {
			return critical(err)
		}
	}
}

// critical names the end of a stream that lasts as long as the connection.
func critical(err error) error {
	if _, reset := errors.AsType[*quic.StreamError](err); reset || errors.Is(err, io.EOF) {
		return h3.ErrClosed
	}
	return err
}

// prioritise sets how urgent a response is. A priority that comes before its request, or after the response, is of no use.
func (s *h3Session) prioritise(id quic.StreamID, p h3.Priority) {
	s.prioritised.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		if st.id == id {
			st.str.SetPriority(p.Urgency, p.Incremental)
			return
		}
	}
}

// drain implements session: GOAWAY with the first stream that is not served (RFC 9114 5.2).
func (s *h3Session) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return
	}
	s.draining = true
	if s.established {
		s.announce()
	}
}

// announce sends GOAWAY. It is called with mu held.
func (s *h3Session) announce() {
	if s.control.TryWriteAll(h3.AppendGoAway(nil, uint64(s.next))) != nil || len(s.streams) == 0 {
		s.leaveLater()
	}
}

// leaveLater closes a session that drains once the client had time to see it. It is called with mu held.
func (s *h3Session) leaveLater() {
	wait := max(goAwayTime, goAwayRoundTrips*s.conn.ConnectionStats().SmoothedRTT)
	time.AfterFunc(wait, func() {
		s.mu.Lock()
		idle := len(s.streams) == 0
		s.mu.Unlock()
		if idle {
			s.shut(h3.NoError, "")
		}
	})
}

func (s *h3Session) place() *int { return &s.at }

// cut implements session.
func (s *h3Session) cut() { s.shut(h3.NoError, "") }

// tick implements session.
func (s *h3Session) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	elapsed := time.Duration(0)
	if !s.ticked.IsZero() {
		elapsed = now.Sub(s.ticked)
		s.resets.Refill(elapsed)
		s.provoked.Refill(elapsed)
		s.acts.Refill(elapsed)
	}
	s.ticked = now
	if s.idle.kind() != 0 && s.idle.overdue(now, s.limits.IdleTimeout) {
		s.shut(h3.NoError, "the connection was idle")
	}
	if len(s.streams) == 0 {
		s.repay() // an idle connection holds no memory for them
	}
	for _, st := range s.streams {
		st.tick(now, elapsed)
	}
}
