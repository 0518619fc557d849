package downstream

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// toEndpoint relays every session to one UDP endpoint, and streams nowhere.
type toEndpoint struct {
	endpoint netip.AddrPort
	ended    chan *exchange.Fault
}

func (*toEndpoint) ServeStream(*Stream) {}

func (h *toEndpoint) ServeSession(s *Session) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(h.endpoint))
	if err != nil {
		return
	}
	defer conn.Close()
	packet, err := sock.NewPacket(conn)
	if err != nil {
		return
	}
	fault := s.Relay(stays{packet})
	if h.ended != nil {
		h.ended <- fault
	}
}

// stays is an endpoint that never leaves.
type stays struct{ *sock.Packet }

func (stays) Gone() bool { return false }

// echoes starts an endpoint that answers with what it gets.
func echoes(t testing.TB) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		room := make([]byte, sock.MaxDatagram)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(room)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(room[:n], from)
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// openUDPHouse opens a UDP bind on a free port.
func openUDPHouse(t testing.TB, h StreamHandler, limits Limits) (*Server, Bind) {
	t.Helper()
	s := New(Options{Streams: h, Limits: limits, DrainTime: 50 * time.Millisecond})
	for range 50 {
		probe, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at := netip.MustParseAddrPort(probe.LocalAddr().String())
		_ = probe.Close()
		b := Bind{Addr: at.Addr(), Port: at.Port(), Kind: KindUDP}
		if len(s.Apply([]Bind{b})) == 0 {
			t.Cleanup(func() { s.Apply(nil); s.draining.Wait() })
			return s, b
		}
	}
	t.Fatal("no port is free")
	return nil, Bind{}
}

func dialBind(t testing.TB, b Bind) net.Conn {
	t.Helper()
	c, err := net.Dial("udp", b.listenAddress())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// TestSessionEndsWithRefusal: what the endpoint's machine says of a datagram that nobody took ends the session, so that the next one finds
// another endpoint.
func TestSessionEndsWithRefusal(t *testing.T) {
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &toEndpoint{endpoint: netip.MustParseAddrPort(gone.LocalAddr().String()), ended: make(chan *exchange.Fault, 10)}
	_ = gone.Close()
	_, b := openUDPHouse(t, h, Limits{})
	c := dialBind(t, b)
	began := time.Now()
	for range 2 {
		for ended := false; !ended; { // a datagram may still fall to the session that has just ended, and is lost then
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			select {
			case fault := <-h.ended:
				if ended = true; fault == nil || fault.Kind != exchange.UpstreamReset {
					t.Errorf("got %v", fault)
				}
			case <-time.After(50 * time.Millisecond):
				if time.Since(began) > patience {
					t.Fatal("the session goes on")
				}
			}
		}
	}
}

// BenchmarkDatagram is a datagram and its answer through a session, 64 under way at once.
func BenchmarkDatagram(b *testing.B) {
	_, bind := openUDPHouse(b, &toEndpoint{endpoint: echoes(b)}, Limits{})
	c := dialBind(b, bind)
	room, text := make([]byte, 2048), make([]byte, 100)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := c.Write(text); err != nil {
			b.Fatal(err)
		}
		if i < 64 {
			continue
		}
		if _, err := c.Read(room); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSessionBacklog: what waits for an endpoint is bounded in number and in bytes, and one datagram of any size can wait.
func TestSessionBacklog(t *testing.T) {
	tests := map[string]struct{ size, want int }{
		"small":   {1200, sessionBacklog},
		"large":   {30 << 10, 2},
		"largest": {65507, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &Session{}
			for range 2 * sessionBacklog {
				s.deliver(make([]byte, tt.size))
			}
			if len(s.waiting) != tt.want || s.held > backlogBytes {
				t.Errorf("%d datagrams of %d bytes wait, want %d", len(s.waiting), s.held, tt.want)
			}
		})
	}
}
