package upstream

import (
	"net/netip"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// client carries attempts to one endpoint: over a pool of HTTP/1.1 connections, or over HTTP/2 connections that many attempts share. Which
// one is the cluster's to say, with one exception: an endpoint of an HTTP/2 cluster with TLS may choose HTTP/1.1 in its handshake. That is
// remembered for as long as there are such connections, so that nobody has to ask again for each.
type client struct {
	h1 *h1Pool
	h2 *h2Mux // nil where the cluster speaks HTTP/1.1

	choseH1 atomic.Bool // what the endpoint chose in its last handshake that let it
}

// learn remembers what the endpoint chose in a handshake that let it choose. A connection that turned out to be HTTP/1.1 is h1's to
// adopt and use.
func (c *client) learn(h2 bool) { c.choseH1.Store(!h2) }

func (d *dialer) client(addr netip.AddrPort) *client {
	c := &client{h1: newH1Pool(d, addr)}
	if d.protocol == config.UpstreamH2C || d.protocol == config.UpstreamHTTP2 && d.secure != nil {
		c.h2 = newH2Mux(d, addr, c)
	}
	return c
}

func (c *client) roundTrip(a *Attempt) *exchange.Fault {
	if c.h2 == nil || c.choseH1.Load() && c.h1.open.Load() > 0 {
		return c.h1.roundTrip(a)
	}
	return c.h2.roundTrip(a)
}

// retire closes the idle connections; one that is in use closes when its exchange ends. It may be called again.
func (c *client) retire() {
	c.h1.retire()
	if c.h2 != nil {
		c.h2.retire()
	}
}

// tick ends what is overdue.
func (c *client) tick(now time.Time) {
	c.h1.tick()
	if c.h2 != nil {
		c.h2.tick(now)
	}
}
