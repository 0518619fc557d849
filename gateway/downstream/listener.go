package downstream

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// gate refuses the connections of a socket over the limit.
type gate struct {
	most int64
	open atomic.Int64
}

func (g *gate) enter() bool {
	if g.open.Add(1) > g.most {
		g.open.Add(-1)
		return false
	}
	return true
}

func (g *gate) leave() { g.open.Add(-1) }

// acceptRetry is how long the accept loop rests after an error: descriptors that ran out come back when connections end.
const acceptRetry = 10 * time.Millisecond

// accept takes TCP connections until the listener is closed, no more at a time than the gate lets in. The newest is the one refused.
func (b *bind) accept() {
	failing := false
	for {
		conn, err := b.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if !failing {
				b.options.Logger.Error("client connections cannot be accepted; trying again until they can", "bind", b.key, "error", err)
			}
			failing = true
			select {
			case <-b.closed:
				return
			case <-time.After(acceptRetry):
			}
			continue
		}
		failing = false
		b.admit(conn)
	}
}

// admit starts a client's goroutine.
func (b *bind) admit(conn *net.TCPConn) {
	if !b.tcpGate.enter() {
		_ = conn.Close()
		return
	}
	wrapped, err := sock.New(conn, b.watcher)
	if err != nil { // closed already
		b.tcpGate.leave()
		_ = conn.Close()
		return
	}
	c := &client{bind: b, sock: wrapped, rw: wrapped, peer: exchange.Peer{
		Bind: b.key, Remote: addrPort(conn.RemoteAddr()), Local: addrPort(conn.LocalAddr()),
	}}
	c.peer.RemoteIP = c.peer.Remote.Addr().String()
	if !b.clients.add(c) {
		c.end()
		return
	}
	switch b.Kind {
	case KindTLS:
		go c.handshake()
	case KindTCP:
		go c.serveStream(exchange.TCP, nil)
	default:
		go c.serve("")
	}
}
