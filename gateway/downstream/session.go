package downstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// UDP has no connections, so what a client's datagrams belong to is made up here: a Session begins with the first datagram from an address
// and ends when nothing has passed either way for a while. Each has a socket of its own towards its endpoint, so that the endpoint's
// answers say whose they are:
//
//	client A --.                                    .--> session A's socket --> endpoint 1
//	            >--> the bind's socket --> by address
//	client B --'                                    '--> session B's socket --> endpoint 2
//
// One goroutine reads the bind's socket and writes to the sessions'; each session has one that waits for answers. Anybody can forge the
// address of a datagram: sessions are bounded, and over the bound new ones are refused.

const (
	// sessionBacklog is how many datagrams wait for an endpoint to be chosen; later ones are dropped.
	sessionBacklog = 16
	// backlogBytes bounds what these hold together: anybody can forge ten thousand clients. It is as much as one datagram can have.
	backlogBytes = 64 << 10
	// refusedFor is for how long the datagrams of a client that was refused are dropped, before somebody looks again: a flood must not
	// make as many decisions, and log lines, as it has datagrams.
	refusedFor = time.Second
	// receiveBuffer is what the kernel is asked to hold of what was not read yet: one goroutine reads for all clients.
	receiveBuffer = 4 << 20
	// drainIdle takes SessionIdleTimeout's place on a socket that is about to be closed.
	drainIdle = 5 * time.Second
	// fullEvery is how often the log says that a socket has no room for sessions.
	fullEvery = time.Minute
)

// Endpoint is where the datagrams of a Session go.
type Endpoint interface {
	// Write sends a datagram.
	io.Writer
	// Receive hands every datagram that comes to take, until the endpoint is closed or says that it is not there.
	Receive(take func(p []byte)) error
	// Gone reports whether the endpoint has left the configuration: a session must not go on sending to it.
	Gone() bool
	// Close makes Receive return.
	io.Closer
}

// sessions is an open UDP socket.
type sessions struct {
	key     string
	options *Options
	conn    *net.UDPConn
	wild    bool // bound to all interfaces: answers leave by the address that was asked

	reading sync.WaitGroup
	over    chan struct{} // ends the ticker

	mu       sync.Mutex
	byClient map[netip.AddrPort]*Session // guarded by mu
	ended    bool                        // no session begins; guarded by mu
	empty    chan struct{}               // made by drain, closed when there is no session; guarded by mu

	dropped  uint64    // datagrams for want of room; of the goroutine that reads
	toldFull time.Time // of the goroutine that reads
}

func openSessions(want Bind, o *Options) (*sessions, error) {
	packets, err := net.ListenPacket("udp", want.listenAddress())
	if err != nil {
		return nil, fmt.Errorf("the udp address cannot be bound: %w", err)
	}
	conn, ok := packets.(*net.UDPConn)
	if !ok {
		_ = packets.Close()
		return nil, errors.New("the udp address cannot be bound: the socket is of another kind")
	}
	b := &sessions{
		key: want.Key(), options: o, conn: conn, wild: !want.Addr.IsValid() || want.Addr.IsUnspecified(),
		over: make(chan struct{}), byClient: map[netip.AddrPort]*Session{},
	}
	if b.wild {
		b.wild = sock.AskLocal(conn) == nil
	}
	_ = conn.SetReadBuffer(receiveBuffer) // the system may allow less
	b.reading.Go(b.read)
	b.reading.Go(b.tick)
	return b, nil
}

// update has nothing to do: what a session reaches is decided when it begins.
func (b *sessions) update(Bind) error { return nil }

// closeListeners lets no more sessions begin. The socket carries the present ones and stays until drain.
func (b *sessions) closeListeners() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
}

func (b *sessions) drain(ctx context.Context) {
	b.mu.Lock()
	if len(b.byClient) > 0 {
		b.empty = make(chan struct{})
	}
	empty := b.empty
	b.mu.Unlock()
	if empty != nil {
		select {
		case <-empty:
		case <-ctx.Done():
			for _, s := range b.all(nil) {
				s.End(exchange.NewFault(exchange.ClientAborted, errDrained))
				if s.wasRefused() {
					b.forget(s)
				}
			}
			<-empty
		}
	}
	close(b.over)
	_ = b.conn.Close()
	b.reading.Wait()
}

func (b *sessions) all(room []*Session) []*Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.byClient {
		room = append(room, s)
	}
	return room
}

// read takes datagrams until the socket is closed.
func (b *sessions) read() {
	room := make([]byte, sock.MaxDatagram)
	control := make([]byte, sock.LocalSize)
	failing := false
	for {
		n, c, _, from, err := b.conn.ReadMsgUDPAddrPort(room, control)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !failing {
				b.options.Logger.Error("datagrams cannot be received; trying again until they can", "bind", b.key, "error", err)
			}
			failing = true
			select {
			case <-b.over:
				return
			case <-time.After(acceptRetry):
			}
			continue
		}
		failing = false
		if s := b.session(from, control[:c]); s != nil {
			s.deliver(room[:n])
		}
	}
}

// session returns the client's, or begins one; nil when there is no room.
func (b *sessions) session(from netip.AddrPort, control []byte) *Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.byClient[from]; s != nil {
		return s
	}
	if b.ended {
		return nil
	}
	if most := b.options.Limits.MaxSessions; most > 0 && len(b.byClient) >= most {
		b.full()
		return nil
	}
	s := &Session{bind: b, from: from, start: time.Now()}
	s.peer = exchange.Peer{Bind: b.key, Remote: unmap(from), Local: addrPort(b.conn.LocalAddr()), Proto: exchange.UDP}
	s.peer.RemoteIP = s.peer.Remote.Addr().String()
	if b.wild {
		s.control = slices.Clone(sock.FromLocal(control))
	}
	b.byClient[from] = s
	go s.serve()
	return s
}

// full tells of a datagram that was dropped, now and then.
func (b *sessions) full() {
	b.dropped++
	if now := time.Now(); now.Sub(b.toldFull) >= fullEvery {
		b.toldFull = now
		b.options.Logger.Warn("the datagrams of new clients are dropped: the socket has as many sessions as it may",
			"bind", b.key, "sessions", len(b.byClient), "dropped", b.dropped)
	}
}

// forget takes a session out.
func (b *sessions) forget(s *Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byClient[s.from] != s {
		return
	}
	delete(b.byClient, s.from)
	if len(b.byClient) == 0 && b.empty != nil {
		close(b.empty)
		b.empty = nil
	}
}

func (b *sessions) tick() {
	ticker := time.NewTicker(b.options.Limits.period())
	defer ticker.Stop()
	var all []*Session
	for {
		select {
		case <-b.over:
			return
		case <-ticker.C:
			now := time.Now()
			b.mu.Lock()
			idle := b.options.Limits.SessionIdleTimeout
			if b.ended && (idle <= 0 || idle > drainIdle) {
				idle = drainIdle
			}
			b.mu.Unlock()
			all = b.all(all[:0])
			for i, s := range all {
				s.tick(now, idle)
				all[i] = nil
			}
		}
	}
}

// Session is the datagrams of one client, and their answers.
type Session struct {
	bind    *sessions
	from    netip.AddrPort // as the socket has it
	control []byte         // makes answers leave by the address that was asked; of the goroutine that waits for them
	peer    exchange.Peer
	start   time.Time
	life    exchange.Life

	in, out atomic.Int64 // bytes
	moved   atomic.Int64 // datagrams

	mu       sync.Mutex
	endpoint Endpoint  // nil until Relay; guarded by mu
	waiting  [][]byte  // for it; guarded by mu
	held     int       // bytes in waiting; guarded by mu
	over     bool      // datagrams are dropped; guarded by mu
	refused  time.Time // when it was, zero when it was not; guarded by mu

	// The ticker's.
	seen  int64
	since time.Time
}

// serve is the session's goroutine.
func (s *Session) serve() {
	s.bind.options.OnConnections(s.bind.key, exchange.UDP, 1)
	if handler := s.bind.options.Streams; handler != nil {
		handler.ServeSession(s)
	}
	s.bind.options.OnConnections(s.bind.key, exchange.UDP, -1)
	s.mu.Lock()
	refused := s.endpoint == nil && !s.over
	s.over, s.waiting = true, nil
	if refused {
		s.refused = time.Now()
	}
	s.mu.Unlock()
	if !refused {
		s.bind.forget(s)
	}
}

func (s *Session) wasRefused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.refused.IsZero()
}

// Peer describes the client.
func (s *Session) Peer() *exchange.Peer { return &s.peer }

// Start is when the first datagram came.
func (s *Session) Start() time.Time { return s.start }

// Life ends when the session does: with a nil Fault when it was idle, which is how sessions end.
func (s *Session) Life() *exchange.Life { return &s.life }

// Bytes returns how many have come from and gone to the client.
func (s *Session) Bytes() (in, out int64) { return s.in.Load(), s.out.Load() }

// Relay carries the datagrams, those that wait first, until the session is over. It returns why the endpoint ended it, nil when it did not.
// The caller closes the endpoint.
func (s *Session) Relay(endpoint Endpoint) *exchange.Fault {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return nil
	}
	s.endpoint = endpoint
	for _, p := range s.waiting {
		s.send(p)
	}
	s.waiting = nil
	s.mu.Unlock()
	err := endpoint.Receive(s.answer)
	if s.life.Over() || errors.Is(err, net.ErrClosed) {
		return s.life.Fault()
	}
	return exchange.NewFault(exchange.UpstreamReset, fmt.Errorf("the endpoint takes no datagrams: %w", err))
}

// answer sends an endpoint's datagram to the client. One that cannot be sent is lost, as datagrams are.
func (s *Session) answer(p []byte) {
	s.moved.Add(1)
	if len(s.control) > 0 {
		if _, _, err := s.bind.conn.WriteMsgUDPAddrPort(p, s.control, s.from); err == nil {
			s.out.Add(int64(len(p)))
			return
		}
		s.control = nil // the client asked a group of machines, say: the kernel knows by which address we speak
	}
	if _, err := s.bind.conn.WriteToUDPAddrPort(p, s.from); err == nil {
		s.out.Add(int64(len(p)))
	}
}

// deliver takes a datagram of the client's.
func (s *Session) deliver(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
	case s.endpoint != nil:
		s.send(p)
	case len(s.waiting) < sessionBacklog && s.held+len(p) <= backlogBytes:
		s.held += len(p)
		s.waiting = append(s.waiting, slices.Clone(p))
	}
}

// send is called with mu held. An error that the endpoint's machine sent is told once only, to who writes or reads first.
func (s *Session) send(p []byte) {
	s.moved.Add(1)
	s.in.Add(int64(len(p)))
	if _, err := s.endpoint.Write(p); err != nil && sock.Refused(err) {
		s.finish(exchange.NewFault(exchange.UpstreamReset, fmt.Errorf("the endpoint takes no datagrams: %w", err)))
	}
}

// End ends the session at once; Life tells why.
func (s *Session) End(why *exchange.Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finish(why)
}

// finish is called with mu held.
func (s *Session) finish(why *exchange.Fault) {
	s.over, s.waiting = true, nil
	s.life.End(why)
	if s.endpoint != nil {
		_ = s.endpoint.Close()
	}
}

// tick ends a session that is idle, or whose endpoint has gone; a refused one is forgotten.
func (s *Session) tick(now time.Time, idle time.Duration) {
	s.mu.Lock()
	refused, endpoint := s.refused, s.endpoint
	s.mu.Unlock()
	if !refused.IsZero() {
		if now.Sub(refused) >= refusedFor {
			s.bind.forget(s)
		}
		return
	}
	if endpoint != nil && endpoint.Gone() {
		s.End(nil)
		return
	}
	if moved := s.moved.Load(); moved != s.seen || s.since.IsZero() {
		s.seen, s.since = moved, now
		return
	}
	if idle > 0 && now.Sub(s.since) >= idle {
		s.End(nil)
	}
}
