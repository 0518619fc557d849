package downstream

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// streams hands each Stream to a function.
type streams func(*Stream)

func (f streams) ServeStream(s *Stream)   { f(s) }
func (f streams) ServeSession(s *Session) {}

// passing starts a server whose TLS is decided on by server name: "pass" is not opened, "open" is, as a Stream, all else is HTTP.
func passing(t *testing.T, o houseOptions, serve func(*Stream)) *house {
	t.Helper()
	o.secure = true
	h := build(t, o)
	inner := h.options.TLS
	h.options.Streams = streams(serve)
	h.options.TLS = func(bind string, quic bool, hello *tls.ClientHelloInfo) (Handshake, error) {
		decided, err := inner(bind, quic, hello)
		switch hello.ServerName {
		case "pass.test":
			return Handshake{Stream: true}, nil
		case "open.test":
			decided.Stream = true
		}
		return decided, err
	}
	return h
}

func hello(t *testing.T, h *house, name string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(ours, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
	}()
	room := make([]byte, 16<<10)
	n, err := theirs.Read(room)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(append(room[:n], "early"...)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// A TLS that is not opened is a Stream from its first byte on, with what came right behind it, and nothing but the handler's bytes reaches
// the client.
func TestUnopened(t *testing.T) {
	type seen struct {
		hello                         []byte
		unopened, opened, ahead, sock bool
		name                          string
	}
	got := make(chan seen, 1)
	h := passing(t, houseOptions{handler: serve(echo)}, func(s *Stream) {
		ahead := s.Ahead()
		room := make([]byte, 16<<10)
		n := 0
		for n < 6 || string(room[n-5:n]) != "early" {
			more, err := s.Read(room[n:])
			if n += more; err != nil {
				break
			}
		}
		got <- seen{room[:n], s.Unopened(), s.Opened(), ahead && !s.Ahead(), s.Socket() != nil, s.Peer().TLS.ServerName}
		_, _ = s.Write([]byte("answer"))
	})
	h.bind.Passthrough = true
	h.Apply([]Bind{h.bind})
	c := hello(t, h, "pass.test")
	one := <-got
	if one.hello[0] != 0x16 || string(one.hello[len(one.hello)-5:]) != "early" || !one.unopened || one.opened || !one.ahead || !one.sock || one.name != "pass.test" {
		t.Errorf("got %+v", one)
	}
	if back, err := io.ReadAll(c); err != nil || string(back) != "answer" {
		t.Errorf("the client got %q, %v", back, err)
	}
	if n := h.count(exchange.TLS); n != 0 {
		t.Errorf("%d connections are counted as open", n)
	}
}

// Where no listener passes TLS on, nothing of a hello is kept: a decision not to open it leaves a Stream that cannot be served.
func TestNothingIsKeptWithoutPassthrough(t *testing.T) {
	got := make(chan bool, 1)
	h := passing(t, houseOptions{handler: serve(echo)}, func(s *Stream) { got <- s.Unopened() || s.Opened() || s.Ahead() })
	c := hello(t, h, "pass.test")
	if <-got {
		t.Error("a hello was kept")
	}
	if back, _ := io.ReadAll(c); len(back) > 0 {
		t.Errorf("the client got %q", back)
	}
}

// Streams and HTTP stand side by side on a socket, whether it may pass TLS on or not.
func TestOpenedStream(t *testing.T) {
	h := passing(t, houseOptions{handler: serve(echo)}, func(s *Stream) {
		if !s.Opened() || s.Unopened() || s.Socket() != nil {
			t.Error("it is not opened")
		}
		room := make([]byte, 100)
		n, _ := s.Read(room)
		_, _ = s.Write(room[:n])
		_ = s.CloseWrite()
		_, _ = s.Read(room)
	})
	for _, passthrough := range []bool{false, true, false} {
		h.bind.Passthrough = passthrough
		h.Apply([]Bind{h.bind})
		c, err := tls.Dial("tcp", h.address, &tls.Config{ServerName: "open.test", InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = c.Write([]byte("hello"))
		if back, err := io.ReadAll(c); err != nil || string(back) != "hello" {
			t.Errorf("got %q, %v", back, err)
		}
		c.Close()
		v := h.visit(t)
		v.say(get)
		if got := v.hear("GET"); got.StatusCode != 200 {
			t.Errorf("HTTP beside it: got %d", got.StatusCode)
		}
	}
}

// A stream is cut when its socket's drain time is over, and not before.
func TestStreamDrain(t *testing.T) {
	began, ended := make(chan *Stream, 1), make(chan *exchange.Fault, 1)
	h := passing(t, houseOptions{handler: serve(echo), drain: 200 * time.Millisecond}, func(s *Stream) {
		began <- s
		_, _ = io.Copy(io.Discard, s)
		ended <- s.Life().Fault()
	})
	h.bind.Passthrough = true
	h.Apply([]Bind{h.bind})
	hello(t, h, "pass.test")
	s := <-began
	h.Apply(nil)
	if s.Life().Over() {
		t.Error("cut at once")
	}
	if fault := <-ended; fault == nil || fault.Kind != exchange.ClientAborted {
		t.Errorf("got %v", fault)
	}
}

// HTTP/3 comes and goes with the socket staying; its port is free afterwards.
func TestHTTP3ComesAndGoes(t *testing.T) {
	h := build(t, houseOptions{secure: true, handler: serve(echo), drain: time.Second})
	free := func() bool {
		c, err := net.ListenPacket("udp", h.bind.listenAddress())
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	if free() {
		t.Fatal("HTTP/3 is not there")
	}
	h.bind.HTTP3 = false
	h.Apply([]Bind{h.bind})
	for end := time.Now().Add(patience); !free(); {
		if time.Now().After(end) {
			t.Fatal("the UDP port is kept")
		}
	}
	v := h.visit(t)
	v.say(get)
	if got := v.hear("GET"); got.StatusCode != 200 || got.Header.Get("Alt-Svc") != "" {
		t.Errorf("got %d, Alt-Svc %q", got.StatusCode, got.Header.Get("Alt-Svc"))
	}
	h.bind.HTTP3 = true
	if problems := h.Apply([]Bind{h.bind}); len(problems) > 0 {
		t.Fatal(problems)
	}
	v.say(get)
	if got := v.hear("GET"); got.Header.Get("Alt-Svc") == "" {
		t.Error("HTTP/3 is not advertised again")
	}
}

// Another kind on the port makes another socket; the name is not reported closed as long as somebody has it.
func TestKindChanges(t *testing.T) {
	h := passing(t, houseOptions{handler: serve(echo)}, func(s *Stream) { _, _ = s.Write([]byte("plain")) })
	h.bind.Kind, h.bind.HTTP3 = KindTCP, false
	if problems := h.Apply([]Bind{h.bind}); len(problems) > 0 {
		t.Fatal(problems)
	}
	c, err := net.Dial("tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if back, err := io.ReadAll(c); err != nil || string(back) != "plain" {
		t.Errorf("got %q, %v", back, err)
	}
	h.draining.Wait()
	select {
	case key := <-h.closed:
		t.Errorf("%s was reported closed", key)
	default:
	}
	h.Apply(nil)
	if key := <-h.closed; key != h.address {
		t.Errorf("%s was reported closed", key)
	}
}
