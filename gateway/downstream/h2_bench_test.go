package downstream

import (
	"encoding/binary"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h2Load is a client that allocates nothing: it sends requests in batches and counts the ends of the answers.
type h2Load struct {
	*h2peer
	next  uint32
	out   []byte
	in    []byte
	block []byte
	body  []byte
}

func (h *house) load2(t testing.TB, body []byte) *h2Load {
	p := h.visit2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	p.ok(p.frame.WriteWindowUpdate(0, 1<<30))
	p.until("the handshake", func() bool { return p.acked == 1 && len(p.settings) > 0 })
	method := "GET"
	if body != nil {
		method = "POST"
	}
	block := h2Block(h2fields(":method", method, "user-agent", "load", "accept", "*/*"))
	return &h2Load{h2peer: p, next: 1, in: make([]byte, 64<<10), block: block, body: body}
}

// batch sends n requests and waits for their answers.
func (l *h2Load) batch(n int) error {
	l.out = l.out[:0]
	for range n {
		l.header(len(l.block), http2.FrameHeaders, 5, l.body == nil)
		l.out = append(l.out, l.block...)
		if l.body != nil {
			l.header(len(l.body), http2.FrameData, 1, true)
			l.out = append(l.out, l.body...)
		}
		l.next += 2
	}
	if _, err := l.conn.Write(l.out); err != nil {
		return err
	}
	for have := 0; n > 0; {
		m, err := l.conn.Read(l.in[have:])
		if err != nil {
			return err
		}
		have += m
		rest := l.in[:have]
		for len(rest) >= 9 {
			size := 9 + int(rest[0])<<16 + int(rest[1])<<8 + int(rest[2])
			if len(rest) < size {
				break
			}
			if rest[3] <= byte(http2.FrameHeaders) && rest[4]&1 != 0 {
				n--
			}
			rest = rest[size:]
		}
		have = copy(l.in, rest)
	}
	return nil
}

func (l *h2Load) header(n int, kind http2.FrameType, flags byte, end bool) {
	if !end {
		flags &^= 1
	}
	l.out = append(l.out, byte(n>>16), byte(n>>8), byte(n), byte(kind), flags)
	l.out = binary.BigEndian.AppendUint32(l.out, l.next)
}

// plainAnswer answers with 130 bytes, and reads the request's body.
func plainAnswer(x *exchange.Exchange, w exchange.Responder) {
	buffer, _ := readBuffers.Get().(*[4096]byte)
	for {
		if _, err := x.ReqBody.Read(buffer[:]); err != nil {
			break
		}
	}
	readBuffers.Put(buffer)
	x.Resp.Status = 200
	x.Resp.Fields.AddID(exchange.ContentType, "Content-Type", "text/plain")
	x.Resp.Fields.AddID(exchange.Date, "Date", "Mon, 02 Jan 2006 15:04:05 GMT")
	if w.Respond(&x.Resp, int64(len(answer130))) == nil {
		_, _ = w.Write(answer130)
		_ = w.Finish(nil)
	}
}

var readBuffers = sync.Pool{New: func() any { return new([4096]byte) }}

var answer130 = make([]byte, 130)

// BenchmarkServeH2 is requests that the handler answers by itself: what the server costs, with a client that costs little.
func BenchmarkServeH2(b *testing.B) {
	for _, bc := range []struct {
		name   string
		secure bool
		body   []byte
	}{{"get", false, nil}, {"get-tls", true, nil}, {"post", false, make([]byte, 200)}} {
		b.Run(bc.name, func(b *testing.B) {
			h := build(b, houseOptions{secure: bc.secure, handler: serve(plainAnswer)})
			l := h.load2(b, bc.body)
			if err := l.batch(100); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for left := b.N; left > 0; left -= 10 {
				if err := l.batch(min(left, 10)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A request costs no heap allocation in the long run.
func TestH2DoesNotAllocate(t *testing.T) {
	for name, body := range map[string][]byte{"get": nil, "post": make([]byte, 3000)} {
		h := build(t, houseOptions{handler: serve(plainAnswer)})
		l := h.load2(t, body)
		if err := l.batch(100); err != nil {
			t.Fatal(err)
		}
		const requests = 10
		if n := testing.AllocsPerRun(200, func() {
			if err := l.batch(requests); err != nil {
				t.Fatal(err)
			}
		}) / requests; n > 0.5 && !raceDetector {
			t.Errorf("%s: %v allocations for a request", name, n)
		}
	}
}
