package upstream

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h1Pool is the HTTP/1.1 connections to one endpoint. The connection used last is used first: it is the surest to be alive, its memory is
// still in the processor's caches, and those that a lull leaves over grow old and go.
type h1Pool struct {
	dialer *dialer
	addr   netip.AddrPort
	open   atomic.Int64 // connections, idle and in use

	mu      sync.Mutex
	idle    []*conn // the one used last is last; guarded by mu
	retired bool    // no connection is kept any more; guarded by mu
}

func newH1Pool(d *dialer, addr netip.AddrPort) *h1Pool { return &h1Pool{dialer: d, addr: addr} }

// roundTrip carries one attempt, over a kept connection where there is one. Such a connection may turn out to be closed; the request then
// goes out again, on a new one, where it cannot have been processed or may be processed twice (RFC 9112 9.3.1).
func (p *h1Pool) roundTrip(a *Attempt) *exchange.Fault {
	for c := p.take(); c != nil; c = p.take() {
		fault, stale := p.try(c, a)
		if stale == notStale {
			return fault
		}
		a.carrier = nil
		c.end(a)
		if stale == maybeSent {
			break
		}
	}
	l, rw, _, fault := p.dialer.connect(a.Life, p.addr, false)
	if fault != nil {
		return fault
	}
	return p.roundTripOn(p.adopt(l, rw), a)
}

// adopt makes a connection part of the pool. Its first attempt is roundTripOn's.
func (p *h1Pool) adopt(l *line, rw net.Conn) *conn {
	p.open.Add(1)
	c := newConn(p, l, rw)
	l.Watch(c.hungUp)
	return c
}

// take returns the idle connection used last, nil when there is none.
func (p *h1Pool) take() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	c := p.idle[last]
	p.idle[last] = nil
	p.idle = p.idle[:last]
	return c
}

// put takes a connection back, or closes it where there is no use for it.
func (p *h1Pool) put(c *conn) {
	c.kept, c.parked = true, p.dialer.upkeep.clock()
	p.mu.Lock()
	kept := !p.retired && len(p.idle) < MaxIdlePerEndpoint && !c.line.Hung()
	if kept {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !kept {
		c.close(true)
	}
}

// remove takes a connection out of the idle ones, and reports whether it was one.
func (p *h1Pool) remove(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.idle, c)
	if i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
	return i >= 0
}

// tick closes the connections that were idle for too long.
func (p *h1Pool) tick() {
	now := p.dialer.upkeep.clock()
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now-p.idle[n].parked >= IdleTimeout {
		n++
	}
	old := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
	p.mu.Unlock()
	for _, c := range old {
		c.close(true)
	}
}

// retire closes the idle connections, and those in use as they come back.
func (p *h1Pool) retire() {
	p.mu.Lock()
	p.retired = true
	old := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range old {
		c.close(true)
	}
}
