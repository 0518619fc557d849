package upstream

import (
	"context"
	"net"
	"sync/atomic"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// Stream is a raw connection to an endpoint: TCP, or TLS over it where the cluster has TLS settings. It is an exchange.Stream.
type Stream struct {
	line *line
	net.Conn
}

// Connect opens a Stream to an endpoint that Pick chose. A Fault with Retryable set means that the endpoint got none of the stream's bytes,
// which is always so here. bare leaves TLS out: what the stream carries is the client's own TLS.
func (c *Cluster) Connect(life *exchange.Life, e *Endpoint, bare bool) (*Stream, *exchange.Fault) {
	l, fault := c.dialer.dial(life, e.addr)
	if fault != nil {
		return nil, fault
	}
	if c.dialer.secure == nil || bare {
		return &Stream{line: l, Conn: l}, nil
	}
	secure, fault := l.handshake(life, c.dialer.secure.settings().raw, e.addr)
	if fault != nil {
		_ = l.Close()
		return nil, fault
	}
	return &Stream{line: l, Conn: secure}, nil
}

// Socket is the connection itself where its bytes are the stream's; nil over TLS.
func (s *Stream) Socket() *sock.Conn {
	if s.Conn != net.Conn(s.line) {
		return nil
	}
	return s.line.Conn
}

// CloseWrite half-closes the connection.
func (s *Stream) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return s.line.CloseWrite()
}

// Close ends the connection, and what waits for it. It may be called again, and from any goroutine.
func (s *Stream) Close() error { return s.line.Close() }

// Packets is a UDP socket that is connected to an endpoint.
type Packets struct {
	*sock.Packet
	dialer   *dialer
	endpoint *Endpoint
	closed   atomic.Bool
}

// Packets opens a socket to an endpoint that Pick chose. UDP has no handshake: that nobody is there shows when a datagram was sent.
func (c *Cluster) Packets(e *Endpoint) (*Packets, *exchange.Fault) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(context.Background(), "udp", e.text) // an address: nothing to wait for
	if err != nil {
		return nil, exchange.NewFault(exchange.UpstreamConnect, err)
	}
	packet, err := sock.NewPacket(conn.(*net.UDPConn))
	if err != nil {
		_ = conn.Close()
		return nil, exchange.NewFault(exchange.UpstreamConnect, err)
	}
	if c.dialer.count != nil {
		c.dialer.count(c.dialer.cluster, 1)
	}
	return &Packets{Packet: packet, dialer: c.dialer, endpoint: e}, nil
}

// Gone reports whether the endpoint left its cluster, or the cluster the configuration.
func (p *Packets) Gone() bool { return p.endpoint.retired.Load() }

// Close closes the socket. It may be called again, and from any goroutine.
func (p *Packets) Close() error {
	if p.closed.Swap(true) {
		return nil
	}
	if p.dialer.count != nil {
		p.dialer.count(p.dialer.cluster, -1)
	}
	return p.Packet.Close()
}
