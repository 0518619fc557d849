package upstream

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// answerer is an endpoint that costs little: it reads request heads without looking at them, skips bodies of a known size, and answers the
// same to each.
func answerer(tb testing.TB, body int, answer string) *Endpoint {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerAll(c, body, []byte(answer))
		}
	}()
	return endpointAt(tb, l.Addr().String())
}

func answerAll(c net.Conn, body int, answer []byte) {
	defer c.Close()
	buf := make([]byte, 64<<10)
	have := 0
	for {
		n, err := c.Read(buf[have:])
		if err != nil {
			return
		}
		have += n
		end := bytes.Index(buf[:have], []byte("\r\n\r\n"))
		if end < 0 {
			continue
		}
		for left := end + 4 + body - have; left > 0; left -= n {
			if n, err = c.Read(buf); err != nil {
				return
			}
		}
		have = 0
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

const smallAnswer = "HTTP/1.1 200 OK\r\nServer: test\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n" +
	"Content-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!"

// once makes one attempt with a body and reads the answer.
func once(tb testing.TB, e *Endpoint, a *Attempt, head *exchange.Head, body exchange.Body, buf []byte) {
	a.Reset()
	a.Request, a.Body = head, body
	if fault := e.RoundTrip(a); fault != nil {
		tb.Fatal(fault)
	}
	for {
		_, err := a.Answer.Read(buf)
		if err == io.EOF {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	a.End()
}

func benchHead() *exchange.Head {
	h := &exchange.Head{Method: "GET", Scheme: "http", Authority: "www.example.com", Target: "/index.html?a=1"}
	h.Fields.Add("User-Agent", "bench/1.0")
	h.Fields.Add("Accept", "*/*")
	h.Fields.Add("X-Forwarded-For", "192.0.2.1")
	h.Fields.Add("X-Forwarded-Proto", "http")
	h.Fields.Add("X-Request-Id", "0123456789abcdef0123456789abcdef")
	if err := h.Normalize(); err != nil {
		panic(err)
	}
	return h
}

// again is a body that can be read again: of known length or in chunks, in memory or as it comes.
type again struct {
	data   []byte
	length int64
	rest   []byte
}

func (b *again) rewind() exchange.Body            { b.rest = b.data; return b }
func (b *again) Read(p []byte) (n int, err error) { return b.read(p) }
func (b *again) read(p []byte) (n int, err error) {
	n = copy(p, b.rest)
	b.rest = b.rest[n:]
	if len(b.rest) == 0 {
		err = io.EOF
	}
	return n, err
}
func (b *again) Close() error              { return nil }
func (b *again) Length() int64             { return b.length }
func (b *again) Trailers() exchange.Fields { return nil }

// againReady is one that lies in memory.
type againReady struct{ again }

func (b *againReady) rewind() exchange.Body      { b.again.rewind(); return b }
func (b *againReady) Ready() (n int, whole bool) { return len(b.rest), true }

// BenchmarkRoundTripH1 is an exchange over a kept connection, with an endpoint that costs next to nothing.
func BenchmarkRoundTripH1(b *testing.B) {
	run := func(name string, body int, rewind func() exchange.Body, answer string) {
		b.Run(name, func(b *testing.B) {
			e := answerer(b, body, answer)
			head, a, buf := benchHead(), &Attempt{}, make([]byte, 32<<10)
			once(b, e, a, head, rewind(), buf)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				once(b, e, a, head, rewind(), buf)
			}
		})
	}
	none := func() exchange.Body { return exchange.NoBody }
	run("get", 0, none, smallAnswer)
	chunks := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
	run("chunks", 0, none, chunks)
	post := &againReady{again{data: bytes.Repeat([]byte("x"), 1000), length: 1000}}
	run("post", 1000, post.rewind, smallAnswer)
	large := &again{data: bytes.Repeat([]byte("x"), 1<<20), length: 1 << 20}
	run("post 1 MB", 1<<20, large.rewind, smallAnswer)
	run("answer 1 MB", 0, none, "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n"+strings.Repeat("x", 1<<20))
}

// TestAllocations: what the benchmark shows, as a test.
func TestAllocations(t *testing.T) {
	tests := map[string]struct {
		body   interface{ rewind() exchange.Body }
		size   int
		answer string
	}{
		"no body":        {nil, 0, smallAnswer},
		"body in memory": {&againReady{again{data: make([]byte, 1000), length: 1000}}, 1000, smallAnswer},
		"body to come":   {&again{data: make([]byte, 100<<10), length: 100 << 10}, 100 << 10, smallAnswer},
		"chunks":         {nil, 0, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := answerer(t, tt.size, tt.answer)
			head, a, buf := benchHead(), &Attempt{}, make([]byte, 32<<10)
			exchangeOnce := func() {
				body := exchange.NoBody
				if tt.body != nil {
					body = tt.body.rewind()
				}
				once(t, e, a, head, body, buf)
			}
			for name, idle := range map[string]time.Duration{"": -time.Hour, ", looked at": lookAfter} {
				step := func() {
					passTime(e, idle)
					exchangeOnce()
				}
				if allocs := testing.AllocsPerRun(1000, step); allocs >= 0.5 {
					t.Errorf("%v allocations for each exchange%s", allocs, name)
				}
			}
		})
	}
}
