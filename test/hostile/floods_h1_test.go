package hostile

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/test/harness"
)

// crowd is many connections of one attacker, each with its own goroutine. It returns when all have done their part; those that keep their
// connection open do so until the flood is over.
func crowd(t testing.TB, f *floodBed, n int, part func(conn net.Conn) (keep bool)) {
	var all sync.WaitGroup
	for range n {
		conn, err := net.Dial("tcp", f.Address())
		if err != nil {
			t.Error(err)
			break
		}
		_ = conn.SetDeadline(time.Now().Add(harness.Patience))
		all.Go(func() {
			if !part(conn) {
				_ = conn.Close()
				return
			}
			go func() {
				<-f.held
				_ = conn.Close()
			}()
		})
	}
	all.Wait()
}

// trickling is how long a connection may trickle: several times every limit of the flood's bed.
const trickling = 2 * time.Second

// trickle sends a byte now and then until the gateway ends the connection, and reports whether it did so in time.
func trickle(conn net.Conn, bytes string) bool {
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		close(gone)
	}()
	defer func() { <-gone }()
	defer conn.Close()
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	over := time.After(trickling)
	for i := 0; ; i++ {
		select {
		case <-gone:
			return true
		case <-over:
			return false
		case <-pace.C:
			if _, err := conn.Write([]byte{bytes[i%len(bytes)]}); err != nil {
				return true
			}
		}
	}
}

// floodsH1 are slow, or many.
func floodsH1() map[string]flood {
	request := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: app.example.test\r\n\r\n" }
	trickled := func(begin, bytes string) func(testing.TB, *floodBed) end {
		return func(t testing.TB, f *floodBed) end {
			var kept atomic.Int64
			crowd(t, f, 100, func(conn net.Conn) bool {
				_, _ = io.WriteString(conn, begin)
				if !trickle(conn, bytes) {
					kept.Add(1)
				}
				return false
			})
			return end{over: kept.Load() == 0}
		}
	}
	unread := func(conns int, bytes string, arrive int) func(testing.TB, *floodBed) end {
		return func(t testing.TB, f *floodBed) end {
			crowd(t, f, conns, func(conn net.Conn) bool {
				_ = conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond)) // it blocks for ever when all is well
				_, _ = io.WriteString(conn, bytes)
				return true
			})
			if !f.wait(arrive, false) {
				t.Error("the requests do not come to the origin")
			}
			return end{}
		}
	}
	return map[string]flood{
		"heads that trickle":               {down: harness.H1, attack: trickled(get+"X-A: ", "a"), cut: []end{{over: true}}},
		"first bytes that trickle":         {down: harness.H1, attack: trickled("", "PRI * HTTP/2.0\r"), cut: []end{{over: true}}},
		"bodies that trickle":              {down: harness.H1, attack: trickled(post+"Content-Length: 1000000\r\n\r\n", "a"), cut: []end{{over: true}}},
		"chunks that trickle":              {down: harness.H1, attack: trickled(chunked, "1\r\nx\r\n")}, // it may be a conversation
		"connections that say nothing":     {down: harness.H1, attack: unread(1000, "", 0)},
		"large answers that are not read":  {down: harness.H1, attack: unread(100, request("/big"), 100), givesUp: true},
		"pipelined answers, not read":      {down: harness.H1, attack: unread(10, strings.Repeat(request("/big"), 20_000), 10), givesUp: true},
		"small pipelined answers":          {down: harness.H1, attack: unread(10, strings.Repeat(request("/"), 20_000), 10), givesUp: true},
		"chunks of a byte":                 {down: harness.H1, attack: unread(10, chunked+strings.Repeat("1\r\nx\r\n", 50_000), 10)},
		"chunk extensions without end":     {down: harness.H1, attack: unread(10, chunked+"1;"+strings.Repeat("x", 4<<20), 0)},
		"a field line without end":         {down: harness.H1, attack: unread(10, get+"X-A: "+strings.Repeat("x", 4<<20), 0)},
		"a target without end":             {down: harness.H1, attack: unread(10, "GET /"+strings.Repeat("x", 4<<20), 0)},
		"empty lines before a request":     {down: harness.H1, attack: unread(10, strings.Repeat("\r\n", 2<<20), 0)},
		"a large answer, byte by byte":     {down: harness.H1, attack: sipped, givesUp: true},
		"requests that hang and go":        {down: harness.H1, attack: hangAndGo, givesUp: true},
		"requests that hang and half-go":   {down: harness.H1, attack: hangAndHalfGo, givesUp: true},
		"handshakes that are never begun":  {down: harness.H1TLS, attack: unread(200, "", 0)},
		"handshakes that are never ended":  {down: harness.H1TLS, attack: trickled("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\x00"), cut: []end{{over: true}}},
		"records without an end":           {down: harness.H1TLS, attack: unread(50, "\x16\x03\x01\x40\x00"+strings.Repeat("\x00", 100_000), 0)},
		"a ClientHello in many records":    {down: harness.H1TLS, attack: unread(50, strings.Repeat("\x16\x03\x01\x00\x01\x01", 50_000), 0)},
		"plain requests where TLS belongs": {down: harness.H1TLS, attack: unread(50, request("/"), 0)},
	}
}

// sipped takes a large answer a byte at a time.
func sipped(t testing.TB, f *floodBed) end {
	crowd(t, f, 20, func(conn net.Conn) bool {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetReadBuffer(4 << 10) // what lies in the client's socket was sent
		}
		_, _ = io.WriteString(conn, "GET /huge HTTP/1.1\r\nHost: a.test\r\n\r\n")
		go func() {
			pace := time.NewTicker(20 * time.Millisecond)
			defer pace.Stop()
			for one := make([]byte, 1); ; {
				select {
				case <-f.held:
					return
				case <-pace.C:
					if _, err := conn.Read(one); err != nil {
						return
					}
				}
			}
		}()
		return true
	})
	if !f.wait(20, false) {
		t.Error("the requests do not come to the origin")
	}
	return end{}
}

// hangAndGo asks for what takes for ever, and leaves: the origin must be told.
func hangAndGo(t testing.TB, f *floodBed) end {
	crowd(t, f, 100, func(conn net.Conn) bool {
		_, _ = io.WriteString(conn, "GET /hang HTTP/1.1\r\nHost: a.test\r\n\r\n")
		f.wait(1, false)
		return false
	})
	return end{}
}

// hangAndHalfGo closes its half only.
func hangAndHalfGo(t testing.TB, f *floodBed) end {
	crowd(t, f, 100, func(conn net.Conn) bool {
		_, _ = io.WriteString(conn, "GET /hang HTTP/1.1\r\nHost: a.test\r\n\r\n")
		f.wait(1, false)
		if half, ok := conn.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
		return true
	})
	return end{}
}
