package downstream

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// session is a client connection at work in one protocol. Its methods are called from other goroutines than the one that serves, also
// after that has ended, and must not wait.
type session interface {
	// tick ends what is overdue. It is called every bind.period, from one goroutine.
	tick(now time.Time)
	// drain lets no more requests begin after those under way (Connection: close, GOAWAY) and ends the session when it is idle.
	drain()
	// cut ends the session and its exchanges at once.
	cut()
}

// client is one accepted TCP connection, whatever it speaks.
type client struct {
	bind *bind
	sock *sock.Conn
	// secure is TLS over sock, nil without it.
	secure *secureConn
	rw     net.Conn      // sock or secure
	peer   exchange.Peer // all but Proto

	counted atomic.Bool    // OnConnections was told of it, as proto
	proto   exchange.Proto // written before counted is set

	began watch // over the handshake; used by the ticker's goroutine

	mu      sync.Mutex
	session session // nil until the handshake is done; guarded by mu
	drained bool    // guarded by mu
	wasCut  bool    // guarded by mu
	at      int     // its place in bind.clients, which owns it
}

// count tells of the connection once its protocol is known: ProtoUnknown is never counted. Its end is counted by itself.
func (c *client) count(proto exchange.Proto) {
	if !c.counted.Load() {
		c.proto = proto
		c.counted.Store(true)
		c.bind.options.OnConnections(c.bind.key, proto, 1)
	}
}

// become makes s what serves the connection. What was asked of the client before is asked of s.
func (c *client) become(s session) {
	c.mu.Lock()
	c.session = s
	drained, cut := c.drained, c.wasCut
	c.mu.Unlock()
	switch {
	case cut:
		s.cut()
	case drained:
		s.drain()
	}
}

// current returns the session, nil during the handshake.
func (c *client) current() session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

func (c *client) place() *int { return &c.at }

func (c *client) tick(now time.Time) {
	if s := c.current(); s != nil {
		s.tick(now)
	} else if c.began.overdue(now, c.bind.options.Limits.HandshakeTimeout) {
		c.sock.Interrupt()
	}
}

func (c *client) drain() {
	c.mu.Lock()
	c.drained = true
	s := c.session
	c.mu.Unlock()
	if s != nil {
		s.drain()
	} else {
		c.sock.Interrupt() // the handshake fails
	}
}

func (c *client) cut() {
	c.mu.Lock()
	c.wasCut = true
	s := c.session
	c.mu.Unlock()
	if s != nil {
		s.cut()
	} else {
		c.sock.Interrupt()
	}
}

// watch measures how long something stays in one phase without reading the clock where it works: who works calls next whenever
// there is progress, and the ticker notes when it first saw a phase. A limit is so noticed up to two of the ticker's periods late, and
// never early.
//
//	worker:  w.next(waiting)   ...              w.next(0)
//	ticker:            seen, since = 12:00:00.0 ...
//
// Phase 0 has no limit.
type watch struct {
	phase atomic.Uint64 // a count of the changes, and in the low byte what it is
	seen  uint64        // the ticker's
	since time.Time     // the ticker's
}

// next begins a phase of a kind. Only one goroutine may do so at a time.
func (w *watch) next(kind uint8) { w.phase.Store((w.phase.Load()>>8+1)<<8 | uint64(kind)) }

// same reports whether the phase is the one that overdue saw last.
func (w *watch) same() bool { return w.phase.Load() == w.seen }

// kind returns what the current phase is.
func (w *watch) kind() uint8 { return uint8(w.phase.Load()) }

// overdue reports whether the current phase lasts at least the limit; a limit that is not positive is none.
func (w *watch) overdue(now time.Time, limit time.Duration) bool {
	if phase := w.phase.Load(); phase != w.seen || w.since.IsZero() {
		w.seen, w.since = phase, now
		return false
	}
	return limit > 0 && now.Sub(w.since) >= limit
}

// leastProgress is how many bytes a client that makes the gateway wait must send of a body with a length, or take over HTTP/2, within
// BodyIdleTimeout.
const leastProgress = 1 << 10

// pace notices a body that comes a few bytes at a time, each just within the limit. A body without a length may do so: it can be a
// conversation.
type pace struct {
	mark    int64         // the bytes got when the client last made progress
	awaited time.Duration // for how long the ticker saw the body waited for since then
}

// trickles reports whether a body that is waited for comes too slowly. got is its bytes so far, elapsed the time since the ticker's last look.
func (p *pace) trickles(got int64, elapsed, limit time.Duration) bool {
	if limit <= 0 {
		return false
	}
	if got-p.mark >= leastProgress {
		p.mark, p.awaited = got, 0
		return false
	}
	p.awaited += elapsed
	return p.awaited > limit+elapsed // the first look may have come right after the wait began
}

// handshake has a goroutine of its own: it needs a large stack for once, which the connection would keep.
func (c *client) handshake() {
	secure := newSecure(c.sock, c.bind.tlsConf)
	opening := &secure.wire.opening
	opening.keep = c.bind.passthrough.Load()
	err := secure.Handshake()
	switch {
	case opening.silent:
		c.peer.TLS = &exchange.TLSInfo{ServerName: exchange.CanonicalHost(opening.serverName)}
		go c.serveStream(exchange.TLS, opening.read)
		return
	case err != nil:
		c.end()
		return
	}
	state := secure.ConnectionState()
	c.secure, c.rw, c.peer.TLS = secure, secure, tlsInfo(state)
	if opening.stream {
		go c.serveStream(exchange.TLS, nil)
		return
	}
	go c.serve(state.NegotiatedProtocol)
}

// serve serves the connection. protocol is what the handshake agreed on, "" for plaintext.
func (c *client) serve(protocol string) {
	if protocol == "h2" {
		c.serveHTTP2(nil)
		return
	}
	if c.secure != nil {
		c.count(exchange.HTTP11)
	}
	s := newH1(c)
	c.become(s)
	c.serveHTTP1(s)
}

func (c *client) serveHTTP1(s *h1Session) {
	switch s.serve() {
	case turnRenew:
		go c.serveHTTP1(s)
	case turnHTTP2:
		c.serveHTTP2(s.preface)
	default:
		c.end()
	}
}

// serveHTTP2 goes on from what was read already.
func (c *client) serveHTTP2(read []byte) {
	defer c.end()
	c.count(exchange.HTTP2)
	s := newH2(c, read)
	c.become(s)
	s.serve()
}

// end closes the connection for good.
func (c *client) end() {
	_ = c.sock.Close()
	c.bind.tcpGate.leave()
	if c.counted.Load() {
		c.bind.options.OnConnections(c.bind.key, c.proto, -1)
	}
	c.bind.clients.remove(c) // last: a drain that waits for it reports the bind closed
}

const (
	// lingerTime is how long a client may go on sending what nobody reads, so that it sees the response before the connection ends: a
	// socket that is closed with unread bytes resets the connection, and what the client had not read yet is lost.
	lingerTime = time.Second
	// lingerBytes bounds what it may send.
	lingerBytes = 256 << 10
)

// linger ends our side of the connection and reads on for a while, unless bound, which limits the time, returns false.
func (c *client) linger(bound func() bool) {
	if c.secure != nil {
		_ = c.secure.CloseWrite()
	}
	if c.sock.CloseWrite() != nil || !bound() {
		return
	}
	scratch, _ := chunks.Get().(*chunk)
	defer chunks.Put(scratch)
	room := scratch.data[:cap(scratch.data)]
	for left := lingerBytes; left > 0; {
		n, err := c.sock.Read(room[:min(left, len(room))])
		if err != nil {
			return
		}
		left -= n
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return unmap(a.AddrPort())
	case *net.UDPAddr:
		return unmap(a.AddrPort())
	}
	return netip.AddrPort{}
}

// unmap makes one address of an IPv4 client on a dual-stack socket and on an IPv4 one.
func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func tlsInfo(cs tls.ConnectionState) *exchange.TLSInfo {
	info := &exchange.TLSInfo{ServerName: exchange.CanonicalHost(cs.ServerName), Version: cs.Version, CipherSuite: cs.CipherSuite}
	for _, c := range cs.PeerCertificates {
		info.PeerCertificates = append(info.PeerCertificates, c.Raw)
	}
	return info
}
