package downstream

import "net"

// hasBytes reports whether the client sent something that was not read. It must not be called within poll.
func (s *h1Session) hasBytes() bool {
	room := s.work.reader.Space()
	if len(room) == 0 {
		return true
	}
	n := 0
	if s.client.secure != nil {
		s.client.secure.fresh()
	}
	if served := s.client.sock.Serve(func() bool {
		n, _ = s.tryRead(room)
		return false
	}); served != nil {
		return false // the connection broke: nothing will follow
	}
	s.work.reader.Advance(n)
	return n > 0
}

// becomeTunnel makes the connection a raw stream: limits, and the end of one direction, end it no more. It returns false when the client
// hung up before.
func (s *h1Session) becomeTunnel() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.wasCut {
		return false
	}
	s.tunnel = true
	// Nothing but these tells of a client that vanished.
	_ = s.client.sock.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true})
	return true
}

// h1Tunnel is an HTTP/1.1 connection after 101.
type h1Tunnel struct{ session *h1Session }

// Read returns the client's bytes.
func (t *h1Tunnel) Read(p []byte) (int, error) { return t.session.client.rw.Read(p) }

// Write sends bytes at once.
func (t *h1Tunnel) Write(p []byte) (int, error) { return t.session.client.rw.Write(p) }

// CloseWrite half-closes the connection.
func (t *h1Tunnel) CloseWrite() error {
	if secure := t.session.client.secure; secure != nil {
		return secure.CloseWrite()
	}
	return t.session.client.sock.CloseWrite()
}

// Close ends reads and writes under way; the connection ends with the exchange.
func (t *h1Tunnel) Close() error {
	t.session.client.sock.Interrupt()
	return nil
}
