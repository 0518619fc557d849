package downstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
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

// gatedConn leaves its gate when it is closed.
type gatedConn struct {
	net.Conn
	leave func()
}

// Close closes the connection.
func (c *gatedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// CloseWrite half-closes the connection.
func (c *gatedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// gatedListener accepts no more connections than its gate lets in. The newest is the one refused.
type gatedListener struct {
	net.Listener
	gate *gate
}

// Accept returns the next connection within the limit.
func (l *gatedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.gate.enter() {
			return &gatedConn{Conn: conn, leave: sync.OnceFunc(l.gate.leave)}, nil
		}
		_ = conn.Close()
	}
}

// tlsListener does the handshakes in goroutines of their own, with a deadline, and hands out connections whose handshake is done: a
// slow handshake holds nobody up.
type tlsListener struct {
	net.Listener
	config  *tls.Config
	timeout time.Duration

	ready   chan net.Conn
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	pending sync.WaitGroup
}

func newTLSListener(inner net.Listener, config *tls.Config, timeout time.Duration) *tlsListener {
	l := &tlsListener{Listener: inner, config: config, timeout: timeout, ready: make(chan net.Conn)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.pending.Go(l.accept)
	return l
}

func (l *tlsListener) accept() {
	defer l.cancel()
	for {
		conn, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: wait for some to come back rather than spin.
			select {
			case <-l.ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		l.pending.Go(func() { l.handshake(conn) })
	}
}

func (l *tlsListener) handshake(conn net.Conn) {
	secure := tls.Server(conn, l.config)
	ctx, cancel := context.WithTimeout(l.ctx, l.timeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return
	}
	select {
	case l.ready <- secure:
	case <-l.ctx.Done():
		_ = secure.Close()
	}
}

// Accept returns the next connection whose handshake is done.
func (l *tlsListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close stops accepting and ends the handshakes under way.
func (l *tlsListener) Close() error {
	l.cancel()
	err := l.Listener.Close()
	l.pending.Wait()
	return err
}
