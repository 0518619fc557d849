package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
)

// pair returns the two ends of a connection, the first wrapped.
func pair(t *testing.T, w *Watcher) (*Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(accepted, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), peer.Close() })
	return c, peer
}

// echo answers every byte that comes on c.
func echo(c net.Conn) { _, _ = io.Copy(c, c) }

func TestRoundTrip(t *testing.T) {
	c, peer := pair(t, nil)
	go echo(peer)
	in := make([]byte, 64)
	for range 1000 {
		n, sent, err := c.RoundTrip([]byte("ping"), in)
		if err != nil || !sent || string(in[:n]) != "ping" {
			t.Fatalf("%q, sent %v, %v", in[:n], sent, err)
		}
	}
	ping := []byte("ping")
	if allocs := testing.AllocsPerRun(100, func() { _, _, _ = c.RoundTrip(ping, in) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestRoundTripOfMoreThanTheSocketTakes(t *testing.T) {
	c, peer := pair(t, nil)
	big := bytes.Repeat([]byte("x"), 8<<20)
	go func() {
		_, _ = io.CopyN(io.Discard, peer, int64(len(big)))
		_, _ = peer.Write([]byte("done"))
	}()
	in := make([]byte, 64)
	n, sent, err := c.RoundTrip(big, in)
	if err != nil || !sent || string(in[:n]) != "done" {
		t.Fatalf("%q, sent %v, %v", in[:n], sent, err)
	}
}

func TestRoundTripEnds(t *testing.T) {
	t.Run("by the peer", func(t *testing.T) {
		c, peer := pair(t, nil)
		go func() {
			_, _ = io.ReadFull(peer, make([]byte, 4))
			_ = peer.Close()
		}()
		if _, sent, err := c.RoundTrip([]byte("ping"), make([]byte, 8)); !sent || err != io.EOF {
			t.Errorf("sent %v, %v", sent, err)
		}
	})
	t.Run("by Interrupt", func(t *testing.T) {
		c, peer := pair(t, nil)
		go func() {
			_, _ = io.ReadFull(peer, make([]byte, 4))
			c.Interrupt()
		}()
		if _, sent, err := c.RoundTrip([]byte("ping"), make([]byte, 8)); !sent || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("sent %v, %v", sent, err)
		}
	})
}

// TestServe sends messages that are answered before the next is sent, and some in one go.
func TestServe(t *testing.T) {
	c, peer := pair(t, nil)
	served := make(chan error, 1)
	buffer := make([]byte, 16)
	go func() {
		served <- c.Serve(func() bool {
			for {
				n, err := c.TryRead(buffer)
				if errors.Is(err, ErrAgain) {
					return true
				}
				if err != nil {
					return false
				}
				if _, err := c.Write(buffer[:n]); err != nil {
					return false
				}
				if n < len(buffer) {
					return true
				}
			}
		})
	}()
	for size := range 200 {
		want := bytes.Repeat([]byte{byte(size)}, size+1)
		if _, err := peer.Write(want); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q, %v", got, err)
		}
	}
	c.Interrupt()
	if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

func TestReadable(t *testing.T) {
	c, peer := pair(t, nil)
	readable := func() (is bool) {
		if err := c.Serve(func() bool { is = c.Readable(); return false }); err != nil {
			t.Fatal(err)
		}
		return is
	}
	if readable() {
		t.Error("a silent connection is readable")
	}
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !readable() {
			t.Error("a byte is not seen, or was taken")
		}
	}
	if n, err := c.Read(make([]byte, 8)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if _ = peer.CloseWrite(); !readable() {
		t.Error("the peer's end is not seen")
	}
}

func TestWatch(t *testing.T) {
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(peer *net.TCPConn){
		"close":      func(peer *net.TCPConn) { _ = peer.Close() },
		"half-close": func(peer *net.TCPConn) { _ = peer.CloseWrite() },
		"reset":      func(peer *net.TCPConn) { _, _ = peer.SetLinger(0), peer.Close() },
	}
	for name, end := range tests {
		t.Run(name, func(t *testing.T) {
			c, peer := pair(t, w)
			hung := make(chan struct{})
			c.Watch(func() { close(hung) })
			if _, err := peer.Write([]byte("unread")); err != nil {
				t.Fatal(err)
			}
			if c.Hung() {
				t.Fatal("data counts as a hang-up")
			}
			end(peer)
			<-hung
			if !c.Hung() {
				t.Error("Hung is false")
			}
		})
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.conns) != 0 {
		t.Errorf("%d connections are remembered", len(w.conns))
	}
}
