package downstream

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/sock"
)

// securePair returns the two ends of a TLS connection after its handshake, and the client's socket.
func securePair(t *testing.T) (*secureConn, *tls.Conn, *net.TCPConn) {
	t.Helper()
	under := &bytewise{}
	server, client := secureOver(t, under)
	raw, _ := under.Conn.(*net.TCPConn)
	return server, client, raw
}

// secureOver has the client's end write through under, whose Conn it sets.
func secureOver(t *testing.T, under *bytewise) (*secureConn, *tls.Conn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := sock.New(accepted, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := newSecure(wrapped, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})
	under.Conn = raw
	client := tls.Client(under, &tls.Config{InsecureSkipVerify: true})
	for _, c := range []net.Conn{server, client} {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	t.Cleanup(func() { _, _ = server.Close(), raw.Close() })
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return server, client
}

func TestSecureWrite(t *testing.T) {
	for name, size := range map[string]int{"nothing": 0, "small": 100, "one record": 2000, "many records": 50_000, "more than is gathered": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			server, client, _ := securePair(t)
			want := bytes.Repeat([]byte("0123456789"), size/10)
			sent := make(chan error, 1)
			go func() {
				n, err := server.Write(want)
				if n != len(want) {
					t.Errorf("wrote %d of %d", n, len(want))
				}
				sent <- errors.Join(err, server.CloseWrite())
			}()
			got, err := io.ReadAll(client)
			if err := errors.Join(err, <-sent); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes of %d, %v", len(got), len(want), err)
			}
			if server.wire.held != nil || server.wire.holding != 0 {
				t.Error("records are left behind")
			}
		})
	}
}

// What is gathered leaves with the last release, at once, and not before.
func TestWireGathers(t *testing.T) {
	server, client, _ := securePair(t)
	server.wire.hold()
	for _, part := range []string{"one ", "two ", "three"} {
		if _, err := io.WriteString(server, part); err != nil {
			t.Fatal(err)
		}
	}
	server.wire.mu.Lock()
	held := len(server.wire.held.data)
	server.wire.mu.Unlock()
	if held < len("one two three") {
		t.Errorf("%d bytes are held", held)
	}
	if err := server.wire.release(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("one two three"))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "one two three" {
		t.Errorf("%q, %v", got, err)
	}
}

// A peer that reads nothing does not hold up Close for long, and a failed write stays one.
func TestSecureWriteFails(t *testing.T) {
	server, _, raw := securePair(t)
	_, _ = raw.SetLinger(0), raw.Close()
	big := make([]byte, 1<<20)
	var err error
	for range 100 { // until the reset has arrived
		if _, err = server.Write(big); err != nil {
			break
		}
	}
	if err == nil {
		t.Fatal("writes to a connection that was reset do not fail")
	}
	if _, err := server.Write([]byte("x")); err == nil {
		t.Error("a write after a failed one succeeds")
	}
}

// bytewise sends each byte by itself, when the other end has asked for it.
type bytewise struct {
	net.Conn
	wanted chan struct{} // nil: all at once
}

func (b *bytewise) Write(p []byte) (int, error) {
	if b.wanted == nil {
		return b.Conn.Write(p)
	}
	for i := range p {
		<-b.wanted
		if _, err := b.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// A record that comes byte by byte is read when it is whole, and until then there is nothing.
func TestSecureTryRead(t *testing.T) {
	slow := &bytewise{}
	server, client := secureOver(t, slow)
	_ = server.SetDeadline(time.Time{})
	slow.wanted = make(chan struct{})
	const text = "a request in one record"
	got := make(chan string, 1)
	go func() {
		buf := make([]byte, 64)
		var read []byte
		_ = server.wire.Serve(func() bool {
			server.fresh()
			for len(read) < len(text) {
				n, err := server.tryRead(buf)
				read = append(read, buf[:n]...)
				if errors.Is(err, sock.ErrAgain) {
					slow.wanted <- struct{}{}
					return true
				}
				if err != nil {
					break
				}
			}
			return false
		})
		got <- string(read)
	}()
	if _, err := io.WriteString(client, text); err != nil {
		t.Fatal(err)
	}
	if read := <-got; read != text {
		t.Errorf("got %q", read)
	}
}
