package upstream

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h2Mux is the HTTP/2 connections to one endpoint, which attempts share. An attempt takes a free stream of a connection that is there already,
// the first one that has any, so that the frames of many streams leave together. Where all are full it waits for a stream, and more
// connections are opened.
//
//	attempt -> stream free?  yes: take it
//	                         no:  wait in line; dial, unless enough is under way for all that wait
//	stream ends, connection comes, endpoint allows more streams -> the first in line take what is free
//	dial fails -> all that wait get the fault
//	endpoint chooses HTTP/1.1 -> the first in line gets the connection, the others go to the h1Pool
//
// A connection under way is nobody's: it is dialled by a goroutine of its own, which then reads from it, and lives on when the attempt that
// wanted it first has ended.
type h2Mux struct {
	dialer *dialer
	addr   netip.AddrPort
	text   string // addr, where a request names no authority
	scheme string
	client *client

	current atomic.Pointer[h2Conn] // where the last attempt found a stream; the quick way
	waiting atomic.Int32           // how many wait

	mu          sync.Mutex // guards what follows
	conns       []*h2Conn  // those that are open, full or draining ones too
	first, last *h2Stream  // those that wait
	dials       []*exchange.Life
	streams     int  // how many a connection has, as far as is known; 0 before the first one
	retired     bool // a connection without streams is not kept
}

const (
	// maxH2Conns bounds the connections to one endpoint.
	maxH2Conns = 256
	// maxH2Dials bounds those under way at one time.
	maxH2Dials = 8
	// maxH2Streams bounds the streams of one connection, whatever the endpoint allows: one goroutine reads for all of them.
	maxH2Streams = 128
	// maxH2Wait bounds the wait for a free stream: a dial with all its parts, at their slowest, fits in.
	maxH2Wait = 3 * ConnectTimeout
	// maxH2Redirections bounds how often an attempt finds that its connection closes before it could send.
	maxH2Redirections = 3
)

func newH2Mux(d *dialer, addr netip.AddrPort, c *client) *h2Mux {
	m := &h2Mux{dialer: d, addr: addr, text: addr.String(), scheme: "http", client: c}
	if d.secure != nil {
		m.scheme = "https"
	}
	return m
}

// roundTrip carries one attempt. A connection that the endpoint closed meanwhile may show that only once the request is out; the request is sent
// again then, once, on another one, where processing it twice means the same as once.
func (m *h2Mux) roundTrip(a *Attempt) *exchange.Fault {
	for resent := false; ; resent = true {
		s, fault := m.begin(a)
		if fault != nil {
			return fault
		}
		fault, sent := m.try(s, a)
		if fault == nil || !sent || resent || !s.mayResend(a) {
			return fault
		}
		a.carrier = nil
		s.end(a)
	}
}

// begin makes an object for the attempt.
func (m *h2Mux) begin(a *Attempt) (*h2Stream, *exchange.Fault) {
	s := takeStream(m, a)
	if !a.Life.Attach(s) {
		s.recycle()
		return nil, over(a.Life)
	}
	a.carrier = s
	return s, nil
}

// try carries the attempt over the first connection that lets it send; sent says that there was one.
func (m *h2Mux) try(s *h2Stream, a *Attempt) (fault *exchange.Fault, sent bool) {
	for range maxH2Redirections {
		if fault := m.acquire(s); fault != nil {
			return fault, false
		}
		if s.found.h1 && !s.send.holdsBody() {
			return m.overH1(s, a), false
		}
		if s.found.h1 { // the endpoint changed its mind
			s.found.close()
			break
		}
		if a.Request.Protocol != "" && !s.found.conn.takesConnect() {
			s.found.conn.release()
			return m.withoutConnect(s, a), false
		}
		if fault, sent := s.roundTrip(s.found.conn, a); sent || fault != nil {
			return fault, true
		}
	}
	fault = exchange.NewFault(exchange.UpstreamReset, errors.New("the endpoint closes its connections before a request can be sent"))
	fault.Retryable = true
	return fault, false
}

// acquire finds a stream for s, perhaps after a wait: s.found says where.
func (m *h2Mux) acquire(s *h2Stream) *exchange.Fault {
	s.found = h2Found{}
	if c := m.current.Load(); c != nil && m.waiting.Load() == 0 && c.reserve() {
		s.found.conn = c
		return nil
	}
	m.mu.Lock()
	m.waiting.Add(1) // before the look, so that a stream that ends meanwhile is noticed on one side or the other
	if m.first == nil {
		if s.found.conn = m.reserve(); s.found.conn != nil {
			m.waiting.Add(-1)
			m.mu.Unlock()
			return nil
		}
	}
	m.enqueue(s)
	m.dialMore()
	m.mu.Unlock()
	return s.awaitFound()
}

// reserve takes a stream of the first connection that has one. It is called with mu held.
func (m *h2Mux) reserve() *h2Conn {
	for _, c := range m.conns {
		if c.reserve() {
			m.current.Store(c)
			return c
		}
	}
	return nil
}

func (m *h2Mux) enqueue(s *h2Stream) {
	s.next, s.queued, s.since = nil, true, m.dialer.upkeep.ticks.Load()
	if m.last == nil {
		m.first = s
	} else {
		m.last.next = s
	}
	m.last = s
}

// dequeue takes the first in line off. It is called with mu held.
func (m *h2Mux) dequeue() *h2Stream {
	s := m.first
	m.first = s.next
	if m.first == nil {
		m.last = nil
	}
	s.next, s.queued = nil, false
	m.waiting.Add(-1)
	return s
}

// leave takes s off the line. It returns false when s was given something already.
func (m *h2Mux) leave(s *h2Stream) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !s.queued {
		return false
	}
	var before *h2Stream
	for at := m.first; at != s; at = at.next {
		before = at
	}
	if before == nil {
		m.dequeue()
		return true
	}
	before.next = s.next
	if m.last == s {
		m.last = before
	}
	s.next, s.queued = nil, false
	m.waiting.Add(-1)
	return true
}

// serve gives the first in line what is free.
func (m *h2Mux) serve() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serveLocked()
}

func (m *h2Mux) serveLocked() {
	for m.first != nil {
		c := m.reserve()
		if c == nil {
			m.dialMore()
			return
		}
		m.dequeue().find(h2Found{conn: c})
	}
}

// dialMore opens connections for those that wait: one to find out how many streams it has, then as many as are needed.
func (m *h2Mux) dialMore() {
	wanted := 1
	if m.streams > 0 {
		wanted = (int(m.waiting.Load()) + m.streams - 1) / m.streams
	}
	if m.anyClosed() {
		return
	}
	wanted = min(wanted, maxH2Dials, maxH2Conns-len(m.conns))
	for len(m.dials) < wanted {
		life := &exchange.Life{}
		m.dials = append(m.dials, life)
		go m.dial(life)
	}
}

// anyClosed reports whether an endpoint that was reached allows no streams at all for now: another connection would have none either.
func (m *h2Mux) anyClosed() bool { return slices.ContainsFunc(m.conns, (*h2Conn).closed) }

// dial opens a connection and reads from it until it ends.
func (m *h2Mux) dial(life *exchange.Life) {
	l, rw, alpn, fault := m.dialer.connect(life, m.addr, true)
	switch {
	case fault != nil:
	case m.dialer.secure != nil && alpn != "h2":
		m.choseH1(life, l, rw)
		return
	default:
		var c *h2Conn
		if c, fault = m.greet(life, l, rw); fault == nil {
			m.opened(life, c)
			c.read()
			return
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dialled(life)
	if life.Over() { // by retire, when nobody waited
		if m.first != nil {
			m.dialMore()
		}
		return
	}
	m.failWaiting(fault)
}

// dialled ends a dial. It is called with mu held.
func (m *h2Mux) dialled(life *exchange.Life) {
	if i := slices.Index(m.dials, life); i >= 0 {
		m.dials = slices.Delete(m.dials, i, i+1)
	}
}

// opened makes a connection one of the shared ones.
func (m *h2Mux) opened(life *exchange.Life, c *h2Conn) {
	m.client.learn(true)
	m.mu.Lock()
	m.dialled(life)
	m.conns = append(m.conns, c)
	m.allowed(c)
	c.keep(!m.retired)
	m.serveLocked()
	m.mu.Unlock()
	c.expire()
}

// allowed remembers how many streams a connection has. It is called with mu held.
func (m *h2Mux) allowed(c *h2Conn) {
	if n := c.limit(); n > 0 {
		m.streams = n
	}
}

// choseH1 hands an HTTP/1.1 connection, the endpoint's choice, to the first in line, and sends the others to where such are.
func (m *h2Mux) choseH1(life *exchange.Life, l *line, rw net.Conn) {
	m.client.learn(false)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dialled(life)
	if m.first == nil {
		m.client.h1.put(m.client.h1.adopt(l, rw))
	}
	for m.first != nil {
		m.dequeue().find(h2Found{h1: true, line: l, rw: rw})
		l, rw = nil, nil
	}
}

// overH1 carries an attempt over HTTP/1.1.
func (m *h2Mux) overH1(s *h2Stream, a *Attempt) *exchange.Fault {
	found := s.found
	if fault := s.letGo(a); fault != nil {
		found.close()
		return fault
	}
	if found.line == nil {
		return m.client.h1.roundTrip(a)
	}
	return m.client.h1.roundTripOn(m.client.h1.adopt(found.line, found.rw), a)
}

// withoutConnect carries a request for another protocol to an endpoint that does not take extended CONNECT. Over TLS it gets an Upgrade on a
// connection whose handshake asks for HTTP/1.1 alone: most servers take WebSocket only so.
func (m *h2Mux) withoutConnect(s *h2Stream, a *Attempt) *exchange.Fault {
	if m.dialer.secure == nil {
		return exchange.NewFault(exchange.UpgradeUnsupported, errors.New(
			"the endpoint does not offer extended CONNECT (RFC 8441): have it send SETTINGS_ENABLE_CONNECT_PROTOCOL, or speak HTTP/1.1 to it"))
	}
	if fault := s.letGo(a); fault != nil {
		return fault
	}
	return m.client.h1.roundTrip(a)
}

// forget drops a connection that ended because of err. Where it never had a stream for anybody those that wait get the fault, as if it had not
// come about: an endpoint that takes connections and closes them is not dialled for ever.
func (m *h2Mux) forget(c *h2Conn, err error) {
	m.current.CompareAndSwap(c, nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.Index(m.conns, c)
	if i < 0 {
		return
	}
	m.conns = slices.Delete(m.conns, i, i+1)
	if c.wasUsed() {
		m.serveLocked()
		return
	}
	fault := faultOfConn(err)
	fault.Retryable = true
	m.failWaiting(fault)
}

// failWaiting ends the wait of all that wait. It is called with mu held.
func (m *h2Mux) failWaiting(fault *exchange.Fault) {
	for m.first != nil {
		m.dequeue().find(h2Found{fault: fault})
	}
}

// retire closes the connections without streams now, and the others when their last stream ends.
func (m *h2Mux) retire() {
	m.mu.Lock()
	m.retired = true
	conns := slices.Clone(m.conns)
	for _, c := range conns {
		c.keep(false)
	}
	if m.first == nil {
		for _, life := range m.dials {
			life.End(nil)
		}
	}
	m.mu.Unlock()
	for _, c := range conns {
		c.expire()
	}
}

// tick ends what is overdue: connections that are idle or dead, and the wait for a stream.
func (m *h2Mux) tick(time.Time) {
	now := m.dialer.upkeep.ticks.Load()
	m.mu.Lock()
	conns := slices.Clone(m.conns)
	for m.first != nil && now-m.first.since > uint32(maxH2Wait/tickPeriod) {
		m.dequeue().find(h2Found{fault: exchange.NewFault(exchange.UpstreamConnect,
			fmt.Errorf("no stream to the endpoint was free within %v: it allows too few, or all are in use", maxH2Wait))})
	}
	m.mu.Unlock()
	for _, c := range conns {
		c.tick(now)
	}
}
