package downstream

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// http3Server is the UDP side of a bind.
type http3Server struct {
	udp       net.PacketConn
	transport *quic.Transport
	server    *http3.Server

	mu       sync.Mutex
	conns    map[*quicConn]struct{} // guarded by mu
	draining bool                   // guarded by mu
}

// quicConn is a client connection with its requests counted, so that a drain can end it when it is idle: after a GOAWAY it would
// otherwise wait for the client to close, which one that vanished never does.
type quicConn struct {
	*quic.Conn
	owner  *http3Server
	active int // guarded by owner.mu
}

// goAwayTime is how long an idle connection stays open after GOAWAY, so that requests on their way are refused by it, which a client may
// safely send again, and not cut.
const goAwayTime = 200 * time.Millisecond

// openUDP starts HTTP/3. TCP serves even when it fails: clients are then not told of HTTP/3.
func (b *bind) openUDP() error {
	limits := &b.options.Limits
	conn, err := net.ListenPacket("udp", b.listenAddress())
	if err != nil {
		return fmt.Errorf("http/3: the udp address cannot be bound; http/1.1 and http/2 are served: %w", err)
	}
	h := &http3Server{udp: conn, transport: &quic.Transport{Conn: conn}, conns: map[*quicConn]struct{}{}}
	listener, err := h.transport.ListenEarly(b.tlsConfig(true), &quic.Config{
		HandshakeIdleTimeout:  limits.HandshakeTimeout,
		MaxIdleTimeout:        limits.IdleTimeout,
		MaxIncomingStreams:    int64(limits.MaxStreams),
		MaxIncomingUniStreams: 8, // control, QPACK encoder and decoder; the rest is spare for extensions
	})
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("http/3: %w", err)
	}
	h.server = &http3.Server{
		Handler:        http.HandlerFunc(b.serveHTTP),
		MaxHeaderBytes: limits.MaxHeaderBytes,
		IdleTimeout:    limits.IdleTimeout,
		Logger:         slog.New(slog.DiscardHandler),
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context {
			info := connInfo{remote: addrPort(c.RemoteAddr()), local: addrPort(c.LocalAddr()), tls: tlsInfo(c.ConnectionState().TLS), quic: h.add(c)}
			return context.WithValue(ctx, connInfoKey{}, &info)
		},
	}
	b.http3 = h
	advertised := fmt.Sprintf(`h3=":%d"; ma=86400`, b.Port)
	b.altSvc.Store(&advertised)
	gated := &gatedQUIC{EarlyListener: listener, gate: b.gate(), count: func(delta int) { b.options.OnConnections(b.key, exchange.HTTP3, delta) }}
	b.serving.Go(func() { _ = h.server.ServeListener(gated) }) // ends when the listener is closed
	return nil
}

// retryUDP opens the UDP socket if it could not be opened before.
func (b *bind) retryUDP() error {
	if !b.TLS || b.http3 != nil {
		return nil
	}
	return b.openUDP()
}

func (h *http3Server) add(c *quic.Conn) *quicConn {
	h.mu.Lock()
	defer h.mu.Unlock()
	conn := &quicConn{Conn: c, owner: h}
	h.conns[conn] = struct{}{}
	context.AfterFunc(c.Context(), func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.conns, conn)
	})
	return conn
}

func (c *quicConn) begin() {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	c.active++
}

func (c *quicConn) end() {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	c.active--
	if c.active == 0 && c.owner.draining {
		// The last response's end must leave before the connection does.
		time.AfterFunc(goAwayTime, c.closeIdle)
	}
}

func (c *quicConn) closeIdle() {
	c.owner.mu.Lock()
	idle := c.active == 0
	c.owner.mu.Unlock()
	if idle {
		_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
	}
}

// drain sends GOAWAY, closes connections as they become idle, and cuts what is left when ctx ends.
func (h *http3Server) drain(ctx context.Context) {
	h.mu.Lock()
	h.draining = true
	for c := range h.conns {
		if c.active == 0 {
			time.AfterFunc(goAwayTime, c.closeIdle)
		}
	}
	h.mu.Unlock()
	if h.server.Shutdown(ctx) != nil {
		_ = h.server.Close()
	}
	_ = h.transport.Close()
	_ = h.udp.Close()
}

// gatedQUIC accepts no more connections than its gate lets in.
type gatedQUIC struct {
	*quic.EarlyListener
	gate  *gate
	count func(delta int)
}

// Accept returns the next connection within the limit.
func (l *gatedQUIC) Accept(ctx context.Context) (*quic.Conn, error) {
	for {
		conn, err := l.EarlyListener.Accept(ctx)
		if err != nil {
			return nil, err
		}
		if l.gate.enter() {
			l.count(1)
			context.AfterFunc(conn.Context(), func() {
				l.gate.leave()
				l.count(-1)
			})
			return conn, nil
		}
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "too many connections")
	}
}
