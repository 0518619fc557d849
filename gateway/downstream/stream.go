package downstream

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// StreamHandler serves what is not HTTP. Each call has a goroutine of its own.
type StreamHandler interface {
	// ServeStream takes a client's connection to its end. When it returns the connection is closed; nothing may use s any more.
	ServeStream(s *Stream)
	// ServeSession finds an endpoint for a client's datagrams and has s.Relay carry them. A session that it returns from without Relay is
	// refused. Nothing may use s when it has returned.
	ServeSession(s *Session)
}

// Stream is a client's connection whose bytes the gateway passes on unread. One goroutine may read while another writes; the rest may be
// called from anywhere.
type Stream struct {
	client *client
	start  time.Time
	hello  []byte // what was read to learn the server name, and comes first; of the goroutine that reads
	passed bool   // hello was there: the TLS is not opened
	life   exchange.Life

	in, out atomic.Int64

	// The ticker's.
	seen  int64     // in and out as they were
	since time.Time // since when they are so
}

// serveStream serves the connection as a Stream. hello is what was read of a TLS that is not opened.
func (c *client) serveStream(proto exchange.Proto, hello []byte) {
	defer c.end()
	if c.bind.options.Streams == nil {
		return
	}
	c.peer.Proto = proto
	c.count(proto)
	// Idle clients of HTTP are ended by its limits. Here nothing but this tells of one that vanished.
	_ = c.sock.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true})
	s := &Stream{client: c, start: time.Now(), hello: hello, passed: len(hello) > 0}
	c.become(s)
	c.bind.options.Streams.ServeStream(s)
}

// Peer describes the client. Its Proto is TCP, or TLS, opened or not; TLS then has the server name.
func (s *Stream) Peer() *exchange.Peer { return &s.client.peer }

// Start is when the connection was ready to be served.
func (s *Stream) Start() time.Time { return s.start }

// Unopened reports whether the stream is TLS that is not opened, its ClientHello included.
func (s *Stream) Unopened() bool { return s.passed }

// Opened reports whether the stream is what is within a TLS that the gateway opened. A Stream over TLS that is neither this nor Unopened was
// not meant to be served.
func (s *Stream) Opened() bool { return s.client.secure != nil }

// Life ends when the connection is cut, because it is idle or its socket's time is over.
func (s *Stream) Life() *exchange.Life { return &s.life }

// Bytes returns how many have come from and gone to the client.
func (s *Stream) Bytes() (in, out int64) { return s.in.Load(), s.out.Load() }

// Read returns the client's bytes, io.EOF when it ended its side.
func (s *Stream) Read(p []byte) (int, error) {
	if len(s.hello) > 0 {
		n := copy(p, s.hello)
		s.hello = s.hello[n:]
		if len(s.hello) == 0 {
			s.hello = nil // a connection may last for hours
		}
		s.in.Add(int64(n))
		return n, nil
	}
	n, err := s.client.rw.Read(p)
	s.in.Add(int64(n))
	return n, err
}

// Write sends bytes at once.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.client.rw.Write(p)
	s.out.Add(int64(n))
	return n, err
}

// CloseWrite half-closes the connection.
func (s *Stream) CloseWrite() error {
	if s.client.secure != nil {
		return s.client.secure.CloseWrite()
	}
	return s.client.sock.CloseWrite()
}

// Close ends reads and writes under way, and later ones; the connection itself ends with ServeStream.
func (s *Stream) Close() error {
	s.client.sock.Interrupt()
	return nil
}

// Linger ends our side and takes what the client still sends for a moment, to nowhere: a connection that is closed with bytes unread is reset,
// and what the client has not read yet of what it got is lost. Nobody may use s after it.
func (s *Stream) Linger() {
	if s.life.Over() {
		return
	}
	s.client.linger(func() bool { return s.client.sock.SetReadDeadline(time.Now().Add(lingerTime)) == nil })
}

// Socket is the connection itself, nil where its bytes are not the stream's: over TLS that the gateway opened. Nobody reads from it as long as
// Ahead. Whoever reads from or writes to it says so with Moved.
func (s *Stream) Socket() *sock.Conn {
	if s.client.secure != nil {
		return nil
	}
	return s.client.sock
}

// Ahead reports whether there are bytes that were read from Socket already, and come from Read first. It is for who reads.
func (s *Stream) Ahead() bool { return len(s.hello) > 0 }

// Moved counts bytes that were read from and written to Socket.
func (s *Stream) Moved(in, out int64) {
	s.in.Add(in)
	s.out.Add(out)
}

// tick ends a stream that is idle for too long.
func (s *Stream) tick(now time.Time) {
	limit := s.client.bind.options.Limits.StreamIdleTimeout
	moved := s.in.Load() + s.out.Load()
	if moved != s.seen || s.since.IsZero() {
		s.seen, s.since = moved, now
		return
	}
	if limit > 0 && now.Sub(s.since) >= limit {
		s.End(exchange.NewFault(exchange.ClientTimeout, fmt.Errorf("no byte passed either way for %s", limit)))
	}
}

// drain lets the stream go on: nobody can tell where it could end.
func (s *Stream) drain() {}

// errDrained is the cause of a cut.
var errDrained = errors.New("the listener is gone and the drain time over")

func (s *Stream) cut() { s.End(exchange.NewFault(exchange.ClientAborted, errDrained)) }

// End ends the stream at once; Life tells why.
func (s *Stream) End(why *exchange.Fault) {
	s.life.End(why)
	s.client.sock.Interrupt()
}
